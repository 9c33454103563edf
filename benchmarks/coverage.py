"""Do the 95 % intervals of a comparison, and of one run, cover the truth 95 % of the time? Simulations whose truth is known.

    python benchmarks/coverage.py --repeats 400 > benchmarks/results/coverage.json

A comparison: each simulated pair has a true level, drawn with the data's shares, and a difficulty that all runs share. Each run
has its own luck (initial weights, split) and its own noise on each pair. The estimated quantity is the difference between two
configurations over new pairs and new seeds. Its true value comes from a simulation of very many of both.

One run: a test part's confusion matrix is drawn from known chances, with a rare level that is seldom recalled. The estimated
quantity is the expected macro F1 on test parts of this size. Intervals are grouped by how often the rare level was hit.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from machine import machine
from numpy.typing import NDArray

from empathy_kit.comparison import statistics
from empathy_kit.comparison.statistics import Answers, Resampled
from empathy_kit.core.metrics import RESAMPLES, confusion_matrix, from_confusion

SHARES = (0.66, 0.29, 0.05)  # of the levels, as ER's
METRICS = ("accuracy", "macro_f1")
SEEDS = (2, 3, 5, 10)
DRAWS = 500  # of pairs, for one interval: enough for its variance, and four times as fast as a report's 2,000


@dataclass(frozen=True)
class World:
    """What the simulated runs are like, in logits."""

    gain: float  # of the second configuration
    difficulty: float  # spread of the pairs' difficulty
    luck: float  # spread of the seeds, per level


WORLDS = {
    "no difference, no luck": World(0.0, 1.5, 0.0),
    "no difference, usual luck": World(0.0, 1.5, 0.25),
    "a difference, usual luck": World(0.3, 1.5, 0.25),
    "no difference, much luck": World(0.0, 1.5, 0.6),
}


def answers(
    world: World, gain: float, hard: NDArray[np.float64], true: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """One run's levels: the true level's logit is raised by the run's skill, less the pair's difficulty."""
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
    """How often the interval covers the truth, next to a plain percentile interval over seeds and pairs.

    Also counts how often it is the interval over the pairs alone, because the seeds agree, and how often that covers the truth.
    """
    statistics.RESAMPLES = DRAWS
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
            if estimate.by == "pairs":
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


HITS = ("once or never", "more often")  # that a rare level was hit


def one_run(share: float, recall: float, pairs: int, repeats: int, generator: np.random.Generator) -> dict[str, dict[str, float]]:
    """How often a run's bootstrap interval of macro F1 covers the truth, by how often its rare level was hit."""
    misses = (1 - recall) / 2
    common = np.array([[0.56, 0.08, 0.02], [0.08, 0.24, 0.02]])  # chances of the other two levels' cells, up to a factor
    chances = np.vstack([common / common.sum() * (1 - share), share * np.array([misses, misses, recall])])
    tables = generator.multinomial(pairs, chances.ravel(), size=repeats).reshape(-1, 3, 3)
    aim = from_confusion(tables.astype(np.float64))["macro_f1"].mean()
    counts, held = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
    for table in tables:
        draws = generator.multinomial(pairs, table.ravel() / pairs, size=RESAMPLES).reshape(-1, 3, 3)  # as core.metrics.score
        low, high = np.percentile(from_confusion(draws.astype(np.float64))["macro_f1"], [2.5, 97.5])
        often = int(table[2, 2] > 1)
        counts[often] += 1
        held[often] += low <= aim <= high
    return {
        name: {"parts": int(count), "held": round(float(inside / count), 4)}
        for name, count, inside in zip(HITS, counts, held, strict=True)
        if count >= LEAST
    }


LEAST = 100  # test parts of which a share is told


@click.command()
@click.option("--repeats", default=1000, help="simulated comparisons per case")
@click.option("--pairs", default=463)
@click.option("--jobs", default=2, help="processes; the figures do not depend on how many")
def main(repeats: int, pairs: int, jobs: int) -> None:
    """Print coverage as JSON."""
    cases = [(name, seeds, resplit) for name in WORLDS for seeds in SEEDS for resplit in (False, True)]
    rares = [(share, recall) for share in (0.035, 0.05) for recall in (0.03, 0.05, 0.1, 0.15)]
    rows = []
    with ProcessPoolExecutor(jobs) as pool:
        single = [
            pool.submit(one_run, *rare, pairs, 10 * repeats, np.random.default_rng([1, at])) for at, rare in enumerate(rares)
        ]
        comparisons = [
            pool.submit(covered, WORLDS[name], seeds, pairs, resplit, repeats, np.random.default_rng([0, at]))
            for at, (name, seeds, resplit) in enumerate(cases)
        ]
        for (name, seeds, resplit), found in zip(cases, comparisons, strict=True):
            rows.append({"world": name, "seeds": seeds, "resplit": resplit, **found.result()})
            print(rows[-1], file=sys.stderr)
        one = [{"share": share, "recall": recall, **found.result()} for (share, recall), found in zip(rares, single, strict=True)]
    content = {
        "what": "share of 95 % intervals that hold the truth",
        "repeats": repeats,
        "draws": DRAWS,
        "test_pairs": pairs,
        "machine": machine(),
        "rows": rows,  # of a difference between two configurations
        "one_run": one,  # of one run's macro F1
    }
    click.echo(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
