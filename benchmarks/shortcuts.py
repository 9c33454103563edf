"""What do the comparison's two short cuts cost in score: the lowest layers frozen, and bfloat16?

    cd benchmarks/results
    python ../shortcuts.py reddit-unfrozen reddit-grouped > shortcuts.json

Every run that both folders hold is paired with itself: the same configuration, seed, split and test pairs. Differences are the
second folder's scores less the first's. No interval is given, for the runs of a seed share its split: the exact test takes the
models as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import click

from empathy_kit.comparison.finished import Run, read_run
from empathy_kit.comparison.plan import NOT_COMPARED, read_plan, run_folder
from empathy_kit.comparison.statistics import paired_test
from empathy_kit.core.metrics import macro_f1
from empathy_kit.data.schema import TaskSchema

ALLOWED = {*NOT_COMPARED, "freeze_layers", "precision"}  # what may differ between the two of a pair


def in_both(first: Path, second: Path) -> list[tuple[Run, Run]]:
    """Runs of one name and seed, oracles left out."""
    shared = [run for run in read_plan(first).runs() if all(run_folder(folder, *run).exists() for folder in (first, second))]
    pairs = [(read_run(first, *run), read_run(second, *run)) for run in shared]
    pairs = [(one, other) for one, other in pairs if not one.record.oracle]
    if not pairs:
        raise click.ClickException(f"{first} and {second} have no run in common")
    for one, other in pairs:
        where = f"{one.name} {one.seed}"
        if (one.record.data["sha256"], one.record.split["sha256"]) != (other.record.data["sha256"], other.record.split["sha256"]):
            raise click.ClickException(f"{where}: the two runs have other data or another split")
        for name, value in one.record.config.items():
            if name not in ALLOWED and other.record.config[name] != value:
                raise click.ClickException(f"{where}: {name} is {value} and {other.record.config[name]}, expected one value")
    return pairs


def short_cuts(runs: Sequence[Run]) -> dict[str, Any]:
    """What of them the runs of one folder take."""
    found = [{name: run.record.config[name] for name in ("freeze_layers", "precision")} for run in runs]
    if any(one != found[0] for one in found):
        raise click.ClickException("the runs of one folder take different short cuts")
    return found[0]


def scores(run: Run, task: TaskSchema) -> tuple[float, float]:
    """Right answers, and macro F1."""
    said = run.answers[task.name]
    return float(said.right), macro_f1(said.true, said.predicted, len(task.labels))


@click.command()
@click.argument("first", type=click.Path(path_type=Path, exists=True))
@click.argument("second", type=click.Path(path_type=Path, exists=True))
def main(first: Path, second: Path) -> None:
    """Print the paired differences as JSON."""
    pairs = in_both(first, second)
    ones, others = zip(*pairs, strict=True)
    found: dict[str, Any] = {}
    for task in ones[0].record.tasks.tasks:
        name = task.name
        moved = [[b - a for a, b in zip(scores(one, task), scores(other, task), strict=True)] for one, other in pairs]
        validation = [
            other.record.training["validation_macro_f1"][name] - one.record.training["validation_macro_f1"][name]
            for one, other in pairs
        ]
        found[name] = {
            "right_answers": {"mean": round(mean(right for right, _ in moved), 2), "runs": [right for right, _ in moved]},
            "macro_f1": {"mean": round(mean(f1 for _, f1 in moved), 4), "runs": [round(f1, 4) for _, f1 in moved]},
            "validation_macro_f1": {"mean": round(mean(validation), 4), "runs": [round(value, 4) for value in validation]},
            "test": asdict(paired_test([run.answers[name] for run in ones], [run.answers[name] for run in others])),
        }
    content = {
        "what": "scores of the second folder's runs less those of the first's, the same configuration, seed and test pairs",
        "first": short_cuts(ones),
        "second": short_cuts(others),
        "runs": [f"{one.name} {one.seed}" for one, _ in pairs],
        "test_pairs": [one.record.split["pairs"]["test"] for one in ones],
        "differences": found,
    }
    click.echo(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
