"""The pairs that the best recipe is tested on: no validation score of one of them chooses a part of it (docs/blocks/recipe.py).

    python benchmarks/held_out.py reddit > benchmarks/results/held-out.json

The ids are those of the runs' predictions, which only holders of the data can trace.
"""

from __future__ import annotations

import json

import click
from questions import QUESTIONS

from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.runs.record import hashed_ids


@click.command()
@click.argument("data")
def main(data: str) -> None:
    """Print the ids of the test part as JSON."""
    corpus, config = load_corpus(data), QUESTIONS["best"].plan.config("best", 0)
    split = make_split(corpus, config.split, config.split_seed)
    names = hashed_ids(corpus)
    ids = [names[at] for at in split.test]
    found = {"split": config.split, "split_seed": config.split_seed, "sha256": split.sha256(), "ids": ids}
    click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
