"""Do the comparison's 95 % intervals cover the truth 95 % of the time? Simulated comparisons whose truth is known.

    python benchmarks/coverage.py --repeats 400 > benchmarks/results/coverage.json

Each simulated pair has a true level, drawn with the data's shares, and a difficulty that all runs share; each run has a luck of
its own (initial weights, split) and makes noise of its own on each pair. What is estimated is the difference between two
configurations over other pairs and other seeds; its true value comes from a simulation of very many of both.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from machine import machine
from numpy.typing import NDArray

from empathy_kit.comparison.statistics import MANY, Answers, Resampled
from empathy_kit.core.metrics import confusion_matrix, from_confusion

SHARES = (0.66, 0.29, 0.05)  # of the levels, as ER's
METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class World:
    """What the simulated runs are like, in logits."""

    gain: float  # of the second configuration
    difficulty: float  # spread of the pairs' difficulty
    luck: float  # spread of the seeds, a level


WORLDS = {
    "no difference, no luck": World(0.0, 1.5, 0.0),
    "no difference, usual luck": World(0.0, 1.5, 0.25),
    "a difference, usual luck": World(0.3, 1.5, 0.25),
    "no difference, much luck": World(0.0, 1.5, 0.6),
}


def answers(
    world: World, gain: float, hard: NDArray[np.float64], true: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """One run's levels: the true one's logit is ahead by what the run is worth, less the difficulty."""
    logits = generator.gumbel(size=(len(true), 3)) + world.luck * generator.standard_normal(3)
    logits += np.array([1.0, 0.3, -0.6])  # common levels are likelier
    logits[np.arange(len(true)), true] += 2.2 + gain - hard
    return logits.argmax(1)


def draw(world: World, pairs: int, generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pairs: their difficulty and true level."""
    return world.difficulty * generator.standard_normal(pairs), generator.choice(3, size=pairs, p=SHARES)


def truth(world: World, pairs: int, generator: np.random.Generator) -> dict[str, float]:
    """The expected difference over seeds and test parts of this size (macro F1 depends on the size)."""
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for _ in range(4000):
        hard, true = draw(world, pairs, generator)
        scores = [
            from_confusion(confusion_matrix(true, answers(world, gain, hard, true, generator), 3).astype(np.float64))
            for gain in (0.0, world.gain)
        ]
        for metric in METRICS:
            found[metric].append(float(scores[1][metric] - scores[0][metric]))
    return {metric: float(np.mean(values)) for metric, values in found.items()}


def covered(
    world: World, seeds: int, pairs: int, resplit: bool, repeats: int, generator: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """How often the interval holds the truth, beside a plain percentile interval over seeds and pairs.

    And how often it is the interval of the pairs alone, because the seeds agree, and holds the truth then.
    """
    aim = truth(world, pairs, generator)
    hits = {metric: {"ours": 0, "percentile": 0} for metric in METRICS}
    alone = {metric: {"share": 0, "held": 0} for metric in METRICS}  # where the interval is that of the pairs alone
    for repeat in range(repeats):
        runs: list[Answers] = []
        parts = [draw(world, pairs, generator) for _ in range(seeds if resplit else 1)]
        for gain in (0.0, world.gain):
            for seed in range(seeds):
                hard, true = parts[seed if resplit else 0]
                ids = tuple(f"{seed if resplit else 0}-{at}" for at in range(pairs))
                runs.append(Answers(ids, true, answers(world, gain, hard, true, generator)))
        resampled = Resampled(runs, 3, seed=repeat)
        first, second = list(range(seeds)), list(range(seeds, 2 * seeds))
        picks = generator.integers(seeds, size=(len(resampled.draws["accuracy"]), seeds))
        for metric in METRICS:
            estimate = resampled.difference(first, second, metric)
            assert estimate.low is not None
            assert estimate.high is not None
            held = estimate.low <= aim[metric] <= estimate.high
            hits[metric]["ours"] += held
            if estimate.freedom == MANY:
                alone[metric]["share"] += 1
                alone[metric]["held"] += held
            draws = resampled.draws[metric][:, second] - resampled.draws[metric][:, first]
            low, high = np.percentile(np.take_along_axis(draws, picks, 1).mean(1), [2.5, 97.5])
            hits[metric]["percentile"] += low <= aim[metric] <= high
    return {
        metric: {
            **{name: round(float(count) / repeats, 4) for name, count in hits[metric].items()},
            "pairs_alone": {name: round(float(count) / repeats, 4) for name, count in alone[metric].items()},
        }
        for metric in METRICS
    }


@click.command()
@click.option("--repeats", default=1000, help="simulated comparisons per cell")
@click.option("--pairs", default=463)
def main(repeats: int, pairs: int) -> None:
    """Print coverage as JSON."""
    generator = np.random.default_rng(0)
    rows = []
    for name, world in WORLDS.items():
        for seeds in (2, 3, 5, 10):
            for resplit in (False, True):
                rows.append(
                    {
                        "world": name,
                        "seeds": seeds,
                        "resplit": resplit,
                        **covered(world, seeds, pairs, resplit, repeats, generator),
                    }
                )
                print(rows[-1], file=sys.stderr)
    content = {"what": "share of 95 % intervals of a difference that hold the true one", "repeats": repeats, "test_pairs": pairs}
    click.echo(json.dumps({**content, "machine": machine(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
