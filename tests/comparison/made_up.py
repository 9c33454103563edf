"""A finished comparison of invented answers: what a report needs of runs, without a model."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from empathy_kit.comparison.plan import Plan, without_separate, write_plan
from empathy_kit.config import COMPARISON, RunConfig, configure, to_dict
from empathy_kit.data.schema import EPITOME, Schema, TaskSchema
from empathy_kit.runs import record
from empathy_kit.runs.reservation import reserved

PAIRS = 200
OTHERS = dict.fromkeys(("logit-adjusted", "class-balanced", "ldam"), "empathy-kit-longtail")
ODD = Schema(  # labels of any text, and of other numbers
    (
        TaskSchema("warmth", "a | <b>title</b> & `more`", "warmth", ("no", "$y$es | `or` <i>so</i>")),
        TaskSchema("advice_given", "advice_given", "advice", ("none at all", "a hint", "a suggestion", "完整的计划")),
    )
)


def made_up(
    folder: Path,
    names: list[str],
    seeds: int,
    *,
    resplit: bool = True,
    schema: Schema = EPITOME,
    missing: float = 0.0,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write one: known configurations, or with the changes that make them."""
    base = configure(RunConfig(), {"data": "sample", "schema": schema})
    given = {name: without_separate({**COMPARISON.get(name, {}), **(changes or {}).get(name, {})}) for name in names}
    configurations = {name: configure(base, own) for name, (own, _) in given.items()}
    separate = frozenset(name for name, (_, apart) in given.items() if apart)
    plan = Plan(configurations, tuple(range(seeds)), resplit, separate)
    folder.mkdir()
    write_plan(plan, folder)
    for number, (model, config) in enumerate(plan.models.items()):
        for seed in range(seeds):
            made_up_run(folder / "runs" / f"{model}-{seed}", config, number, seed, seed if resplit else 0, missing)
    return folder


def made_up_run(folder: Path, config: RunConfig, number: int, seed: int, split: int, missing: float) -> None:
    """Write one run: two thirds of its answers right, and level 1 of IP never predicted."""
    pairs, generator = np.random.default_rng(split), np.random.default_rng([number, seed])
    columns: dict[str, list[Any]] = {"id": [f"{split:04x}{at:012x}" for at in range(PAIRS)]}
    scores, counts, tested, accuracy = {}, {}, {}, {}
    trained = config.schema.select(config.tasks).names
    for task in config.schema.tasks:
        classes = len(task.labels)
        shares = np.array([6, 3, *[1] * (classes - 2)]) / (7 + classes)
        true, labelled = pairs.choice(classes, size=PAIRS, p=shares), pairs.random(PAIRS) >= missing
        counts[task.name] = [round(1000 * (1 - missing) * share) for share in shares]
        tested[task.name] = np.bincount(true[labelled], minlength=classes).tolist()
        if task.name not in trained:
            continue
        logits = generator.gumbel(size=(PAIRS, classes))
        logits[np.arange(PAIRS), true] += 2
        if task.name == "IP":
            logits[:, 1] = -20
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        predicted = chances.argmax(1)
        columns[f"{task.name}_true"] = [str(level) if known else "" for level, known in zip(true, labelled, strict=True)]
        columns[f"{task.name}_predicted"] = predicted.tolist()
        columns[f"{task.name}_swapped"] = np.roll(predicted, 1).tolist()
        for level in range(classes):
            columns[f"{task.name}_p{level}"] = [f"{value:.6f}" for value in chances[:, level]]
        confusion = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(confusion, (true[labelled], predicted[labelled]), 1)
        scores[task.name] = {"confusion": confusion.tolist()}
        accuracy[task.name] = float((true == predicted)[labelled].mean())
    # The validation part has the test part's labels, under other ids.
    trained_on = {name: [of_all - 2 * level for of_all, level in zip(counts[name], tested[name], strict=True)] for name in counts}
    epochs = [{"validation_loss": 1.0, "validation_macro_f1": dict.fromkeys(trained, 0.4 + 0.1 * turn)} for turn in range(3)]
    agreement = dict.fromkeys(config.schema.names, 0.9)
    content = record.Record(
        format=record.FORMAT,
        kit="0.1.0",
        oracle=config.rationale == "gold",
        config={**to_dict(config), "seed": seed, "split_seed": split},
        plugins={"loss": {"name": config.loss, "distribution": OTHERS.get(config.loss, "empathy-kit"), "version": "0.1.0"}},
        versions={"python": "3"},
        machine={"threads": 1},
        data={
            "name": "a <b>& name",
            "pairs": 1000,
            "sha256": "d" * 64,
            "class_counts": counts,
            "duplicates": {"groups": 3, "agreement": agreement},
        },
        encoder={"name": config.encoder, "sha256": "e" * 64},
        split={
            "kind": "grouped",
            "seed": split,
            "sha256": f"{split}" * 64,
            "pairs": {"train": 1000 - 2 * PAIRS, "validation": PAIRS, "test": PAIRS},
            "class_counts": {"train": trained_on, "validation": tested, "test": tested},
        },
        truncation={},
        training={"seconds": 60.0, "validation_accuracy": accuracy},
        scores=scores,
        spans=None,
        calibration={name: {"temperature": 2.0, "ece_before": 0.1, "ece_after": 0.1} for name in trained},
        model={"parameters": 1000 + 10 * len(trained), "trained": 500, "bytes": 4096, "pairs_per_second": 40.0},
    )
    header, *rows = [list(columns), *(list(map(str, row)) for row in zip(*columns.values(), strict=True))]
    others = [[f"v{row[0][1:]}", *row[1:]] for row in rows]
    tables = {"predictions": [header, *rows], "validation": [header, *others]}
    with reserved(folder) as place:
        place.leave(lambda staging, model: record.write(staging, content, epochs, **tables))


def rewrite(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    """Change a run's files, and its manifest with them, as somebody may who wants it believed."""
    files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.name != record.MANIFEST}
    change(files)
    shutil.rmtree(folder)

    def write(staging: Path, model: bool) -> None:
        for name, text in files.items():
            (staging / name).write_text(text, encoding="utf-8")

    with reserved(folder) as place:
        place.leave(write)


def rewrite_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The same for what stands in run.json."""

    def changed(files: dict[str, str]) -> None:
        content = json.loads(files[record.RUN])
        change(content)
        files[record.RUN] = json.dumps(content)

    rewrite(folder, changed)


def recount(files: dict[str, str]) -> None:
    """Make the counts in run.json those of changed tables, and the training part the rest of the data."""
    content = json.loads(files[record.RUN])
    data, split = content["data"], content["split"]
    for part, table in (("test", record.PREDICTIONS), ("validation", record.VALIDATION)):
        rows = list(csv.DictReader(files[table].splitlines()))
        split["pairs"][part] = len(rows)
        for name, counts in split["class_counts"][part].items():
            if f"{name}_true" in rows[0]:
                counts[:] = [sum(row[f"{name}_true"] == str(level) for row in rows) for level in range(len(counts))]
    split["pairs"]["train"] = data["pairs"] - split["pairs"]["validation"] - split["pairs"]["test"]
    of = split["class_counts"]
    for name, counts in data["class_counts"].items():
        parts = zip(counts, of["validation"][name], of["test"][name], strict=True)
        of["train"][name] = [whole - validation - test for whole, validation, test in parts]
    files[record.RUN] = json.dumps(content)
