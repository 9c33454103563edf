"""How much of the label do annotated spans reveal? A rule that only uses whether a test pair has a span.

    python benchmarks/leakage.py reddit > benchmarks/results/leakage.json

No span: level 0. A span: the commoner of the levels above 0, in the training part. Grouped split, seeds 0 to 4.
"""

from __future__ import annotations

import json
from statistics import mean

import click
import numpy as np

from empathy_kit.core.metrics import confusion_matrix, from_confusion
from empathy_kit.data.schema import EPITOME
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take

SEEDS = range(5)


@click.command()
@click.argument("data")
def main(data: str) -> None:
    """Print the rule's scores as JSON."""
    corpus = load_corpus(data)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in EPITOME.names}
    splits = {}
    for seed in SEEDS:
        split = make_split(corpus, "grouped", seed)
        splits[seed] = split.sha256()
        train, test = take(corpus, split.train), take(corpus, split.test)
        for index, name in enumerate(EPITOME.names):
            above = [pair.levels[index] for pair in train if pair.levels[index] > 0]
            commoner = max(set(above), key=above.count)
            true = np.array([pair.levels[index] for pair in test])
            # An annotated span that was not found in the response still counts as a span.
            rule = np.array([commoner if pair.spans[index] or pair.unplaced[index] else 0 for pair in test])
            scores = from_confusion(confusion_matrix(true, rule, len(EPITOME.tasks[index].labels)).astype(np.float64))
            found[name].append({metric: float(scores[metric]) for metric in ("accuracy", "weighted_f1", "macro_f1")})
    means = {name: {metric: round(mean(run[metric] for run in runs), 4) for metric in runs[0]} for name, runs in found.items()}
    what = "no span: level 0; a span: the commoner level above 0; nothing is read"
    told = {"what": what, "data": corpus.name, "split": "grouped", "seeds": list(SEEDS), "splits": splits, "scores": means}
    click.echo(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
