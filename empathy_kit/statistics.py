"""How sure a comparison is: intervals over pairs and seeds, exact paired tests, Holm's correction, power, calibration.

Written out here and not taken from scipy.stats and statsmodels, which take longer to import than a report may take to be made;
the tests hold every function to theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, stdtrit

from empathy_kit.core.metrics import from_confusion

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 2000
CONFIDENCE = 0.95
POWER = 0.80
MANY = 1e6  # degrees of freedom of what is known well
BINS = 10  # of confidence, in reliability diagrams


@dataclass(frozen=True)
class Answers:
    """What one run said of its test part, one mechanism."""

    ids: tuple[str, ...]  # (N,) a pair keeps its id in every run on the same data
    true: Ints  # (N,) levels
    predicted: Ints  # (N,) levels

    @property
    def right(self) -> int:
        """How many pairs the run got right."""
        return int((self.predicted == self.true).sum())


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; without one where there is but one seed, whose noise nobody can know."""

    value: float
    low: float | None
    high: float | None
    error: float | None  # standard error
    freedom: float | None  # degrees of freedom of the error, in the interval
    design: float | None  # and those that the design has where the seeds do not happen to agree, for its power

    @property
    def smallest(self) -> float | None:
        """The smallest difference from 0 that would be found with 80 % power at 5 %, one test alone."""
        if self.error is None or self.design is None:
            return None
        return float((_t(self.design, (1 + CONFIDENCE) / 2) + _t(self.design, POWER)) * self.error)


@dataclass(frozen=True)
class PairedTest:
    """Two configurations on the same pairs, their runs taken as they are: how many pairs only one of them gets right."""

    gained: int  # pairs x seeds that only the second gets right
    lost: int  # pairs x seeds that only the first gets right
    mcnemar: float  # exact, every seed's answer counted as a pair of its own: too sure where seeds share pairs
    exact: float  # exact sign-flip test, every pair counted once with the sum of its differences over the seeds


class Resampled:
    """Scores of many runs on one mechanism, and how they move when pairs are drawn anew, the same pairs for all runs.

    A pair that stands in the test parts of several seeds is drawn for all of them together.
    """

    def __init__(self, runs: Sequence[Answers], classes: int, *, seed: int = 0) -> None:
        units = {name: at for at, name in enumerate(dict.fromkeys(name for run in runs for name in run.ids))}
        cells = classes * classes
        # (U, R * C * C): which cell of which run's confusion matrix a pair falls into.
        where = np.zeros((len(units), len(runs) * cells), dtype=np.float32)
        for number, run in enumerate(runs):
            rows = np.fromiter((units[name] for name in run.ids), dtype=np.int64, count=len(run.ids))
            # A row may occur twice in the data and bear one id; then it counts twice.
            np.add.at(where, (rows, number * cells + run.true * classes + run.predicted), 1)
        generator = np.random.default_rng(seed)
        weights = generator.multinomial(len(units), np.full(len(units), 1 / len(units)), size=RESAMPLES).astype(np.float32)
        shape = (-1, len(runs), classes, classes)
        self.point = from_confusion(where.sum(0, dtype=np.float64).reshape(shape)[0])  # metric to (R, ...)
        self.draws = from_confusion((weights @ where).astype(np.float64).reshape(shape))  # metric to (B, R, ...)

    def mean(self, runs: Sequence[int], metric: str, level: int | None = None) -> Estimate:
        """The mean score of a configuration's runs, one a seed."""
        return _estimate(*self._scores(runs, metric, level), within=(0.0, 1.0) if metric != "kappa" else (-1.0, 1.0))

    def difference(self, first: Sequence[int], second: Sequence[int], metric: str, level: int | None = None) -> Estimate:
        """How much higher the second configuration scores, the runs paired by seed."""
        (one, ones), (other, others) = self._scores(first, metric, level), self._scores(second, metric, level)
        return _estimate(other - one, others - ones, within=(-1.0, 1.0) if metric != "kappa" else (-2.0, 2.0))

    def _scores(self, runs: Sequence[int], metric: str, level: int | None) -> tuple[Floats, Floats]:  # (S,), (B, S)
        point, draws = self.point[metric][list(runs)], self.draws[metric][:, list(runs)]
        return (point, draws) if level is None else (point[..., level], draws[..., level])


def _estimate(point: Floats, draws: Floats, *, within: tuple[float, float]) -> Estimate:  # (S,), (B, S)
    """Mean over seeds, with a t interval whose variance has two parts: other pairs, and other seeds.

    A percentile interval over draws of both counts some noise twice; `benchmarks/coverage.py` measures both kinds.
    """
    seeds = len(point)
    value = float(point.mean())
    if seeds < 2:
        return Estimate(value, None, None, None, None, None)
    draws = draws[np.isfinite(draws).all(1)]  # a draw may leave a tiny test part without a pair, and without a score
    # The spread between seeds holds each seed's luck and its own noise over pairs. What it misses is the noise that all seeds
    # have in common because they are tested on the same pairs: the pairs' part of the mean, without the seeds' own shares.
    of_seeds = float(point.var(ddof=1)) / seeds
    of_pairs = float(draws.mean(1).var(ddof=1))
    own = (float(draws.var(axis=0, ddof=1).mean()) - of_pairs) / (seeds - 1)
    variance = of_seeds + max(0.0, of_pairs - own)
    if variance < of_pairs:
        # The seeds agree, by chance, more closely than the pairs of their own test parts allow. No noise of theirs can be seen
        # then, and what is left is that of the pairs. It is known well.
        variance, freedom, design = of_pairs, MANY, _freedom(seeds, of_pairs, own)
    else:
        freedom = design = _freedom(seeds, variance, of_seeds)
    error = math.sqrt(variance)
    reach = error * _t(freedom, (1 + CONFIDENCE) / 2)
    return Estimate(value, max(value - reach, within[0]), min(value + reach, within[1]), error, freedom, design)


def _freedom(seeds: int, variance: float, of_seeds: float) -> float:
    """Satterthwaite (1946): the pairs' part is known well, the seeds' part from S - 1 degrees of freedom alone."""
    return min((seeds - 1) * (variance / of_seeds) ** 2, MANY) if of_seeds > 0 else MANY


def _t(freedom: float, probability: float) -> float:
    return float(stdtrit(freedom, probability))


def paired_test(first: Sequence[Answers], second: Sequence[Answers]) -> PairedTest:
    """Test whether two configurations get the same pairs right; runs are paired by their place.

    Raises:
        ValueError: runs that were tested on different pairs.
    """
    gained = lost = 0
    sums: dict[str, int] = {}
    for one, other in zip(first, second, strict=True):
        if one.ids != other.ids:
            raise ValueError("the runs were tested on different pairs")
        moved = (other.predicted == other.true).astype(np.int64) - (one.predicted == one.true)
        gained += int((moved > 0).sum())
        lost += int((moved < 0).sum())
        for name, step in zip(one.ids, moved.tolist(), strict=True):
            if step:
                sums[name] = sums.get(name, 0) + step
    discordant = gained + lost
    mcnemar = min(1.0, 2 * float(bdtr(min(gained, lost), discordant, 0.5))) if discordant else 1.0
    return PairedTest(gained, lost, mcnemar, sign_flip([abs(value) for value in sums.values() if value], gained - lost))


def sign_flip(sizes: Sequence[int], total: int) -> float:
    """Two-sided probability of a sum at least as far from 0, each size's sign being a coin's.

    Exact: the distribution of the sum is built up size by size.
    """
    reach = sum(sizes)
    chances = np.zeros(2 * reach + 1)  # of every sum from -reach to reach
    chances[reach] = 1.0
    for size in sizes:
        moved = np.zeros_like(chances)
        moved[size:] += chances[: len(chances) - size] / 2
        moved[: len(chances) - size] += chances[size:] / 2
        chances = moved
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(total)
    return min(1.0, float(chances[far].sum()))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for how many they are (Holm, 1979), in their order."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    corrected = [0.0] * len(values)
    worst = 0.0
    for rank, at in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[at]))
        corrected[at] = worst
    return corrected


@dataclass(frozen=True)
class Calibration:
    """How far confidence can be believed. Lists run over bins of confidence from 0 to 1."""

    counts: list[int]
    confidence: list[float]  # mean a bin; 0 in an empty one
    accuracy: list[float]
    ece: float  # expected calibration error: the bins' mean distance of the two, weighted by count (Guo et al., arXiv 1706.04599)


def calibration(probabilities: Floats, true: Ints) -> Calibration:  # (N, C), (N,)
    """Confidence in the likeliest level against how often it is right."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == true
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    full = np.maximum(counts, 1)
    means = np.bincount(bins, confidence, BINS) / full
    shares = np.bincount(bins, right, BINS) / full
    ece = float((np.abs(means - shares) * counts).sum() / len(true))
    return Calibration(counts.tolist(), means.tolist(), shares.tolist(), ece)


def contrasts(settings: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str]]:
    """Which configurations to compare: each with the first, and all that differ in one setting alone.

    A plugin's options belong to the plugin: another loss with other options is one difference.
    """
    names = list(settings)
    pairs = []
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            keys = settings[one].keys() | settings[other].keys()
            different = {_owner(key) for key in keys if settings[one].get(key) != settings[other].get(key)}
            if at == 0 or len(different) == 1:
                pairs.append((one, other))
    return pairs


def _owner(key: str) -> str:
    """``-o loss.gamma`` -> ``loss``."""
    return key.removeprefix("-o ").partition(".")[0]
