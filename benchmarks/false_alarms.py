"""How often do a comparison's tests find a difference between recipes that do not differ? Simulations as in coverage.py.

    python benchmarks/false_alarms.py > benchmarks/results/false-alarms.json

The two configurations are one recipe with other seeds, so that every difference found is a false alarm. Counted are McNemar's
exact test and the exact sign-flip test at 5 %, and what the pages call found: a sign-flip test at 5 % whose interval over seeds
leaves 0 out. Accuracy alone is tested. Nothing is corrected, because there is one test in each simulated comparison.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import click
import numpy as np
from coverage import DRAWS, WORLDS, World, answers, draw
from machine import machine

from empathy_kit.comparison import statistics
from empathy_kit.comparison.statistics import Answers, Resampled, paired_test

LEVEL = 0.05
SEEDS = (3, 5)
TESTS = ("mcnemar", "exact", "exact_and_interval")


def alarms(world: World, seeds: int, pairs: int, resplit: bool, repeats: int, generator: np.random.Generator) -> dict[str, float]:
    """The share of simulated comparisons in which each test finds a difference."""
    statistics.RESAMPLES = DRAWS
    counts = dict.fromkeys(TESTS, 0)
    for repeat in range(repeats):
        parts = [draw(world, pairs, generator) for _ in range(seeds if resplit else 1)]
        sides: list[list[Answers]] = [[], []]
        for side in sides:
            for seed in range(seeds):
                at = seed if resplit else 0
                hard, true = parts[at]
                ids = tuple(f"{at}-{row}" for row in range(pairs))
                side.append(Answers(ids, true, answers(world, 0.0, hard, true, generator)))
        test = paired_test(*sides)
        estimate = Resampled([*sides[0], *sides[1]], 3, seed=repeat).difference(
            list(range(seeds)), list(range(seeds, 2 * seeds)), "accuracy"
        )
        assert estimate.low is not None
        assert estimate.high is not None
        counts["mcnemar"] += test.mcnemar <= LEVEL
        counts["exact"] += test.exact <= LEVEL
        counts["exact_and_interval"] += test.exact <= LEVEL and not estimate.low <= 0 <= estimate.high
    return {name: round(float(count) / repeats, 4) for name, count in counts.items()}


@click.command()
@click.option("--repeats", default=400, help="simulated comparisons per case")
@click.option("--pairs", default=463)
@click.option("--jobs", default=2, help="processes; the figures do not depend on how many")
def main(repeats: int, pairs: int, jobs: int) -> None:
    """Print the shares as JSON."""
    cases = [(name, seeds, resplit) for name in WORLDS if not WORLDS[name].gain for seeds in SEEDS for resplit in (False, True)]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(jobs) as pool:
        found = [
            pool.submit(alarms, WORLDS[name], seeds, pairs, resplit, repeats, np.random.default_rng([2, at]))
            for at, (name, seeds, resplit) in enumerate(cases)
        ]
        for (name, seeds, resplit), each in zip(cases, found, strict=True):
            rows.append({"world": name, "seeds": seeds, "resplit": resplit, **each.result()})
            print(rows[-1], file=sys.stderr)
    content = {
        "what": f"share of comparisons of one recipe with itself in which a test at {LEVEL} finds a difference of accuracy",
        "repeats": repeats,
        "draws": DRAWS,
        "test_pairs": pairs,
        "machine": machine(),
        "rows": rows,
    }
    click.echo(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
