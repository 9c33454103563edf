"""What do the comparison's two short cuts cost in score: the lowest layers frozen, and bfloat16?

    cd benchmarks/results
    python ../shortcuts.py reddit-unfrozen reddit-grouped > shortcuts.json

Every run that both folders hold is paired with itself: the same configuration, seed, split and test pairs. Differences are the
second folder's scores less the first's, with the intervals of a comparison, the runs in the place of seeds.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from empathy_kit.comparison import Run, read_plan, read_run, run_folder
from empathy_kit.data.pairs import LEVELS, MECHANISMS
from empathy_kit.statistics import Estimate, Resampled, paired_test


def in_both(first: Path, second: Path) -> list[tuple[Run, Run]]:
    """Runs of one name and seed."""
    shared = [run for run in read_plan(first).runs() if all(run_folder(folder, *run).exists() for folder in (first, second))]
    if not shared:
        raise click.ClickException(f"{first} and {second} have no run in common")
    pairs = [(read_run(first, *run), read_run(second, *run)) for run in shared]
    for one, other in pairs:
        if (one.record.data["sha256"], one.record.split["sha256"]) != (other.record.data["sha256"], other.record.split["sha256"]):
            raise click.ClickException(f"{one.name} {one.seed}: the two runs have other data or another split")
    return pairs


def plain(estimate: Estimate, scale: float = 1.0) -> dict[str, float | None]:
    """A value and its interval."""
    return {
        name: None if value is None else round(value * scale, 4)
        for name, value in (("value", estimate.value), ("low", estimate.low), ("high", estimate.high))
    }


@click.command()
@click.argument("first", type=click.Path(path_type=Path, exists=True))
@click.argument("second", type=click.Path(path_type=Path, exists=True))
def main(first: Path, second: Path) -> None:
    """Print the paired differences as JSON."""
    pairs = in_both(first, second)
    count = len(pairs)
    found: dict[str, Any] = {}
    for name in MECHANISMS:
        ones, others = ([run.answers[name] for run in runs] for runs in zip(*pairs, strict=True))
        resampled = Resampled([*ones, *others], len(LEVELS))
        places = range(count), range(count, 2 * count)
        size = sum(len(one.ids) for one in ones) / count
        found[name] = {
            "pairs_of_a_test_part": plain(resampled.difference(*places, "accuracy"), size),
            "accuracy": plain(resampled.difference(*places, "accuracy")),
            "macro_f1": plain(resampled.difference(*places, "macro_f1")),
            "test": asdict(paired_test(ones, others)),
            "validation_macro_f1": round(
                sum(
                    o.record.training["validation_macro_f1"][name] - u.record.training["validation_macro_f1"][name]
                    for u, o in pairs
                )
                / count,
                4,
            ),
        }
    settings = [{key: run.record.config[key] for key in ("freeze_layers", "precision")} for run in pairs[0]]
    content = {
        "what": "scores of the second folder's runs less those of the first's, the same configuration, seed and test pairs",
        "first": settings[0],
        "second": settings[1],
        "runs": [f"{one.name} {one.seed}" for one, _ in pairs],
        "test_pairs": round(size, 1),
        "differences": found,
    }
    click.echo(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
