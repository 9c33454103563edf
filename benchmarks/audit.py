"""Does `empathy-kit data audit` find labels that are certainly wrong? Labels of the sample, flipped on purpose.

    python benchmarks/audit.py > benchmarks/results/audit.json

Of each task a share of the labels is replaced by another label at random, with a seed. The same seed makes the folds and trains
the models. A flipped label that is found is a hit. The sample's own labels count as right, and so every other finding as a false
alarm. A rule that picks labels at random has the flipped share as its precision.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from dataclasses import replace
from statistics import mean
from typing import Any

import click
from machine import machine

from empathy_kit.comparison.audit import Fault, TaskAudit, audit
from empathy_kit.comparison.out_of_fold import cross_validate, from_folds
from empathy_kit.config import RunConfig, configure
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.schema import MISSING
from empathy_kit.data.sources import load_corpus
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry

RULES = ("all found", "as many as flipped")


def flip(corpus: Corpus, share: float, seed: int) -> tuple[Corpus, dict[str, dict[int, str]]]:
    """The corpus with a share of each task's known labels replaced, and per task the true labels of those rows."""
    draw = random.Random(f"flipped labels {seed}")  # or it would draw as the folds of that seed do
    levels = [list(pair.levels) for pair in corpus.pairs]
    true: dict[str, dict[int, str]] = {}
    for index, task in enumerate(corpus.schema.tasks):
        true[task.name] = {}
        labelled = [at for at, own in enumerate(levels) if own[index] != MISSING]
        for at in draw.sample(labelled, round(share * len(labelled))):
            true[task.name][corpus.pairs[at].row] = task.labels[levels[at][index]]
            levels[at][index] = draw.choice([level for level in range(len(task.labels)) if level != levels[at][index]])
    # Without the spans, which belong to the labels before.
    pairs = (replace(pair, levels=tuple(own), spans=(), unplaced=()) for pair, own in zip(corpus.pairs, levels, strict=True))
    return replace(corpus, pairs=tuple(pairs)), true


def quality(found: Collection[Fault], true: dict[int, str]) -> dict[str, float | int | None]:
    """How many of the findings were flipped, and how many of the flipped labels were found."""
    hits = [fault for fault in found if fault.row in true]
    return {
        "found": len(found),
        "hits": len(hits),
        "precision": round(len(hits) / len(found), 4) if found else None,
        "recall": round(len(hits) / len(true), 4),
        "suggested_true": round(sum(fault.suggested == true[fault.row] for fault in hits) / len(hits), 4) if hits else None,
    }


def by_rule(task: TaskAudit, true: dict[int, str]) -> dict[str, dict[str, float | int | None]]:
    """All that is found, and the first ranks alone."""
    chosen = (task.faults, task.faults[: len(true)])
    return {rule: quality(faults, true) for rule, faults in zip(RULES, chosen, strict=True)}


def average(runs: list[dict[str, float | int | None]]) -> dict[str, float | None]:
    """The means over seeds, each over the seeds that have the value."""
    known = {name: [run[name] for run in runs if run[name] is not None] for name in runs[0]}
    return {name: round(mean(values), 4) if values else None for name, values in known.items()}


@click.command()
@click.option("--data", default="sample", show_default=True)
@click.option("--share", default=0.1, show_default=True)
@click.option("--folds", default=5, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--encoder", default="minilm", show_default=True)
@click.option("--epochs", default=5, show_default=True)
def main(data: str, share: float, folds: int, seeds: int, encoder: str, epochs: int) -> None:
    """Print precision and recall per task, seed by seed and their means, as JSON."""
    corpus, registry = load_corpus(data), load_registry()
    runs: list[dict[str, Any]] = []
    for seed in range(seeds):
        flipped, true = flip(corpus, share, seed)
        config = configure(RunConfig(), {"data": data, "encoder": encoder, "epochs": epochs, "seed": seed})
        done = []
        for fold in cross_validate(config, registry, flipped, folds):
            done.append(fold)
            click.echo(f"seed {seed}: fold {len(done)} of {folds}", err=True)
        judged = audit(flipped, from_folds(flipped, done)).tasks
        runs.append({name: by_rule(task, true[name]) for name, task in judged.items()})
    means = {name: {rule: average([run[name][rule] for run in runs]) for rule in RULES} for name in runs[0]}
    content = {
        "what": "labels flipped on purpose that `empathy-kit data audit` finds by cross-validation",
        "data": corpus.name,
        "pairs": len(corpus),
        "share": share,
        "flipped": {name: len(rows) for name, rows in true.items()},
        "folds": folds,
        "seeds": list(range(seeds)),
        "settings": {"encoder": encoder, "epochs": epochs},
        "means": means,
        "by_seed": runs,
        "machine": machine(),
    }
    click.echo(json.dumps(content, indent=2))


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        raise SystemExit(f"Error: {error}") from None
