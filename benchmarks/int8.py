"""What does int8 cost in score?

    EMPATHY_KIT_REDDIT=FOLDER python benchmarks/int8.py RUN RUN RUN > benchmarks/results/int8.json

RUNs are finished runs with their models, best on splits of their own. Each is exported with all products of states and weights
in int8, and the graph's scores on the run's test part are put next to the model's. Here nothing is chosen by the test part:
`empathy-kit export --int8` leaves more in float32 where a score falls too far, and runs where it would do so are counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from machine import machine

from empathy_kit.errors import KitError
from empathy_kit.inference.export import MOST_LOST, export, losses
from empathy_kit.plugins import load_registry

SCORES = ("accuracy", "macro_f1")


def cost(run: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """What a run is of, and its points after minus before, with what of them is too much."""
    with patch.dict(MOST_LOST, clear=True):
        done = export(run, folder, load_registry(), int8=True).description
    if "scores" not in done:
        raise KitError(f"{run}: its data is not as it was, so there are no scores to compare")
    before, after = done["scores"]["before"], done["scores"]["after"]
    config = done["record"]["config"]
    name = f"{done['title']}, seed {config['seed']} on {config['split']} split {config['split_seed']}"
    return name, {
        "pairs": done["scores"]["pairs"],
        "too_much": losses(before, after),
        "points": {
            task: {
                **{score: round(100 * (after[task][score] - was[score]), 2) for score in SCORES},
                "recall": [round(100 * (now - then), 2) for then, now in zip(was["recall"], after[task]["recall"], strict=True)],
            }
            for task, was in before.items()
        },
    }


def main() -> None:
    """Print what each run loses, and their mean, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for run in parser.parse_args().runs:
            name, points = cost(run, Path(scratch) / str(len(found)))
            if name in found:
                raise KitError(f"{run}: {name} was given already, expected runs that differ in recipe, seed or split")
            found[name] = points
            print(f"{name}: {found[name]['points']}", file=sys.stderr)
    tasks = list(next(iter(found.values()))["points"])
    values = {task: {score: [run["points"][task][score] for run in found.values()] for score in SCORES} for task in tasks}
    result = {
        "what": "points of score after int8 minus before, on the runs' own test parts",
        "runs": found,
        "runs_with_too_much": sum(bool(run["too_much"]) for run in found.values()),
        "over_runs": {
            task: {
                score: {"mean": round(statistics.mean(each), 2), "min": min(each), "max": max(each)}
                for score, each in scores.items()
            }
            for task, scores in values.items()
        },
        "machine": machine(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        raise SystemExit(f"Error: {error}") from None
