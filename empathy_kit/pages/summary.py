"""What a comparison found: every figure of its report, as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from empathy_kit.comparison import NOT_COMPARED, Finished, Run
from empathy_kit.config import PAPER
from empathy_kit.core.metrics import confusion_matrix
from empathy_kit.data.pairs import LEVELS, MECHANISMS
from empathy_kit.statistics import (
    Answers,
    Calibration,
    Estimate,
    PairedTest,
    Resampled,
    calibration,
    contrasts,
    holm,
    paired_test,
)

METRICS = {"accuracy": "accuracy", "weighted_f1": "weighted F1", "macro_f1": "macro F1", "kappa": "kappa"}
CLASSES = len(LEVELS)


@dataclass(frozen=True)
class Cell:
    """One row of the table, one mechanism."""

    scores: dict[str, Estimate]  # metric to its mean over the seeds
    runs: dict[str, list[float]]  # metric to every run's own score
    recall: list[Estimate]  # a level
    never: list[int]  # a level: runs that never predicted it, though their test part has it
    confusion: list[list[int]]  # [true][predicted], summed over the runs


@dataclass(frozen=True)
class Row:
    """One configuration or yardstick."""

    name: str
    title: str
    kind: str  # "run", "oracle" or "yardstick"
    seeds: int
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Contrast:
    """Two configurations, one mechanism."""

    first: str
    second: str
    mechanism: str
    accuracy: Estimate  # of the second, less the first's
    macro_f1: Estimate
    test: PairedTest
    corrected: float  # the exact test's p, after Holm over all contrasts and mechanisms


@dataclass(frozen=True)
class Summary:
    """All that a report says."""

    data: str
    pairs: int
    split: str
    resplit: bool
    seeds: list[int]
    test_pairs: float  # mean over the seeds
    rows: list[Row]
    contrasts: list[Contrast]
    paper: dict[str, dict[str, tuple[float, float]]]  # configuration to mechanism to accuracy and weighted F1
    ceiling: dict[str, float] | None  # agreement of labels where a pair was labelled twice
    ceiling_groups: int
    class_counts: dict[str, list[int]]
    curves: dict[str, list[list[tuple[float, float]]]]  # configuration to a run's validation loss and mean macro F1, an epoch
    calibrations: dict[str, dict[str, Calibration]]  # configuration to mechanism
    recipe: dict[str, Any]  # settings that all configurations share
    settings: dict[str, dict[str, Any]]  # configuration to the settings that they do not share
    versions: dict[str, str]
    machine: dict[str, Any]
    kit: str
    seconds: float  # in training, all runs
    missing: list[str]
    plugins: dict[str, list[str]]  # configuration to its third-party plugins

    def ranked(self) -> list[Row]:
        """Configurations that may be compared: no oracle, no yardstick."""
        return [row for row in self.rows if row.kind == "run"]


def summarise(finished: Finished) -> Summary:
    """Compute every figure; the same runs give the same figures."""
    runs = finished.runs
    first = next(iter(runs.values()))
    seeds = [found.seed for found in first]
    columns = _columns(finished)
    resampled = {
        name: Resampled([answers[name] for column in columns for answers in column.answers], CLASSES) for name in MECHANISMS
    }
    places: dict[str, list[int]] = {}
    at = 0
    for column in columns:
        places[column.name] = list(range(at, at + len(column.answers)))
        at += len(column.answers)
    settings = {name: _settings(found[0]) for name, found in runs.items()}
    shared = {
        key: value for key, value in next(iter(settings.values())).items() if all(s.get(key) == value for s in settings.values())
    }
    ranked = {name: settings[name] for name in runs if not runs[name][0].record.oracle}
    found_contrasts = [
        (one, other, name, paired_test([r.answers[name] for r in runs[one]], [r.answers[name] for r in runs[other]]))
        for one, other in contrasts(ranked)
        for name in MECHANISMS
    ]
    corrected = holm([test.exact for *_, test in found_contrasts])
    record = first[0].record
    repeated = record.data["duplicates"]
    everything = [found for several in runs.values() for found in several]
    return Summary(
        data=record.data["name"],
        pairs=record.data["pairs"],
        split=record.split["kind"],
        resplit=finished.plan.resplit,
        seeds=seeds,
        test_pairs=float(np.mean([len(found.answers[MECHANISMS[0]].ids) for found in first])),
        rows=[_row(column, places[column.name], resampled) for column in columns],
        contrasts=[
            Contrast(
                one,
                other,
                name,
                resampled[name].difference(places[one], places[other], "accuracy"),
                resampled[name].difference(places[one], places[other], "macro_f1"),
                test,
                p,
            )
            for (one, other, name, test), p in zip(found_contrasts, corrected, strict=True)
        ],
        paper={name: PAPER[name] for name in runs if name in PAPER},
        ceiling=dict(repeated["agreement"]) if repeated["groups"] else None,
        ceiling_groups=repeated["groups"],
        class_counts=record.data["class_counts"],
        curves={name: [[_point(epoch) for epoch in found.history] for found in several] for name, several in runs.items()},
        calibrations={name: _calibrations(several) for name, several in runs.items()},
        recipe=shared,
        settings={name: {key: value for key, value in own.items() if key not in shared} for name, own in settings.items()},
        versions=record.versions,
        machine=record.machine,
        kit=record.kit,
        seconds=sum(found.record.training["seconds"] for found in everything),
        missing=[f"{name} {seed}" for name, seed in finished.missing],
        plugins={name: sorted(_third_parties(several[0])) for name, several in runs.items()},
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary as a program reads it."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(summary)))
    return content


@dataclass(frozen=True)
class _Column:
    """What is scored: the answers of some runs, one a seed."""

    name: str
    title: str
    kind: str
    answers: list[dict[str, Answers]]


def _columns(finished: Finished) -> list[_Column]:
    runs = finished.runs
    honest = [name for name in runs if not runs[name][0].record.oracle]
    oracles = [name for name in runs if name not in honest]
    columns = [_Column(name, runs[name][0].record.title, "run", [found.answers for found in runs[name]]) for name in honest]
    columns += [_Column(name, runs[name][0].record.title, "oracle", [found.answers for found in runs[name]]) for name in oracles]
    first = next(iter(runs.values()))
    columns.append(_Column("majority", "majority class", "yardstick", [_majority(found) for found in first]))
    titles = {"tfidf": "TF-IDF + logistic regression, response only", "tfidf-balanced": "the same, classes balanced"}
    columns += [_Column(name, titles[name], "yardstick", answers) for name, answers in finished.yardsticks.items()]
    # The first that was asked: a run of an earlier version was not.
    for name in honest:
        swapped = [found.swapped for found in runs[name] if found.swapped is not None]
        if swapped:
            columns.append(_Column(f"{name}-swapped", f"{name}, seekers swapped at test time", "yardstick", swapped))
            break
    return columns


def _majority(run: Run) -> dict[str, Answers]:
    """The training part's commonest level for every pair."""
    counts = run.record.split["class_counts"]["train"]
    return {
        name: Answers(said.ids, said.true, np.full_like(said.true, int(np.argmax(counts[name]))))
        for name, said in run.answers.items()
    }


def _row(column: _Column, places: Sequence[int], resampled: dict[str, Resampled]) -> Row:
    cells = {}
    for name in MECHANISMS:
        answers = [each[name] for each in column.answers]
        tables = [confusion_matrix(each.true, each.predicted, CLASSES) for each in answers]
        cells[name] = Cell(
            scores={metric: resampled[name].mean(places, metric) for metric in METRICS},
            runs={metric: resampled[name].point[metric][list(places)].tolist() for metric in METRICS},
            recall=[resampled[name].mean(places, "recall", level) for level in range(CLASSES)],
            never=[sum(bool(t[level].any() and not t[:, level].any()) for t in tables) for level in range(CLASSES)],
            confusion=np.sum(tables, axis=0).tolist(),
        )
    return Row(column.name, column.title, column.kind, len(column.answers), cells)


def _settings(run: Run) -> dict[str, Any]:
    config = run.record.config
    return {name: value for name, value in config.items() if name not in (*NOT_COMPARED, "options")} | {
        f"-o {name}": value for name, value in config.get("options", {}).items()
    }


def _point(epoch: dict[str, Any]) -> tuple[float, float]:
    scores = epoch["validation_macro_f1"]
    return epoch["validation_loss"], sum(scores.values()) / len(scores)


def _calibrations(runs: Sequence[Run]) -> dict[str, Calibration]:
    return {
        name: calibration(
            np.concatenate([found.probabilities[name] for found in runs]),
            np.concatenate([found.answers[name].true for found in runs]),
        )
        for name in MECHANISMS
    }


def _third_parties(run: Run) -> Iterator[str]:
    for kind, entry in run.record.plugins.items():
        if entry["distribution"] != "empathy-kit":
            yield f"{kind} {entry['name']} from {entry['distribution']} {entry['version']}"
