"""Statistics of a comparison: intervals over pairs and seeds, exact paired tests, Holm's correction, power.

Not taken from scipy.stats and statsmodels, because importing these takes longer than making a report;
the tests compare every function with theirs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, gammaln, nctdtrinc, stdtr, stdtrit

from empathy_kit.core.metrics import CONFIDENCE, RESAMPLES, from_confusion

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POWER = 0.80
MANY = 1e6  # degrees of freedom of a variance that is known well
BLOCK = 4_000_000  # numbers held in memory at once while resampling
SCORES = ("accuracy", "weighted_f1", "macro_f1", "kappa", "recall")


@dataclass(frozen=True)
class Answers:
    """What one run predicted for the labelled pairs of its test part, one task."""

    ids: tuple[str, ...]  # (N,) a pair keeps its id in every run on the same data
    true: Ints  # (N,) levels: positions in the task's labels
    predicted: Ints  # (N,) levels
    probabilities: Floats | None = None  # (N, C); None where they are not known

    @property
    def right(self) -> int:
        """How many pairs the run predicted right."""
        return int((self.predicted == self.true).sum())


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over seeds with its 95 % interval; one seed has none, because its noise cannot be estimated."""

    value: float  # NaN where a run's score is undefined
    low: float | None
    high: float | None
    by: Literal["seeds", "pairs"] | None  # the kind of interval: Student's over seeds, or that of the pairs alone
    error: float | None  # the interval's standard error
    freedom: float | None  # the interval's degrees of freedom
    smallest: float | None  # the smallest difference from 0 that the design finds with 80 % power at 5 %, one test alone
    p: float | None  # two-sided, of a value of 0: at most .05 where the interval leaves 0 out


@dataclass(frozen=True)
class PairedTest:
    """Tests of two configurations on the same pairs, conditional on their runs: how many pairs only one gets right."""

    gained: int  # pairs x seeds that only the second gets right
    lost: int  # pairs x seeds that only the first gets right
    mcnemar: float  # exact; counts every seed's answer as a separate pair: p is too small where seeds change a pair alike
    exact: float  # exact sign-flip test; counts each labelled row once, with the sum of its differences over the seeds


@dataclass(frozen=True)
class Corrected:
    """The p-values of two configurations after Holm's correction, each over the same kind of all rows of a table."""

    rows: int
    models: float  # of the exact test: do these trained models get as many pairs right?
    recipes: float | None  # of the larger of that test's p and the interval's: would others of the same recipes? None of one seed
    macro_f1: float | None  # of the interval's p


class Resampled:
    """Scores of many runs on one task, and a bootstrap of them that draws the same pairs for all runs.

    A pair in the test parts of several seeds is drawn for all of them together.
    """

    def __init__(self, runs: Sequence[Answers], classes: int, *, seed: int = 0) -> None:
        units = {name: at for at, name in enumerate(dict.fromkeys(name for run in runs for name in run.ids))}
        rows = [np.fromiter((units[name] for name in run.ids), dtype=np.int64, count=len(run.ids)) for run in runs]
        cells = [run.true * classes + run.predicted for run in runs]  # of its confusion matrix
        shape = (-1, classes, classes)
        counts = np.stack([np.bincount(each, minlength=classes * classes) for each in cells])
        self.point = _scores_of(counts.astype(np.float64).reshape(shape))  # metric to (R, ...)
        # In blocks: all draws at once would take gigabytes for 60,000 pairs.
        block = max(1, min(RESAMPLES, BLOCK // max(len(units), classes * classes)))
        generator = np.random.default_rng(seed)
        draws: list[list[dict[str, Floats]]] = [[] for _ in runs]
        for start in range(0, RESAMPLES, block):
            size = min(block, RESAMPLES - start)
            weights = _weights(generator, size, len(units))
            for found, at, cell in zip(draws, rows, cells, strict=True):
                found.append(_scores_of(_drawn(weights, at, cell, classes * classes).reshape(shape)))
        self.draws = {  # metric to (B, R, ...)
            name: np.stack([np.concatenate([each[name] for each in found]) for found in draws], axis=1) for name in SCORES
        }

    def mean(self, runs: Sequence[int], metric: str, level: int | None = None) -> SeedEstimate:
        """The mean score of a configuration's runs, one per seed."""
        return _estimate(*self._scores(runs, metric, level), within=(0.0, 1.0) if metric != "kappa" else (-1.0, 1.0))

    def difference(self, first: Sequence[int], second: Sequence[int], metric: str) -> SeedEstimate:
        """The mean difference, second configuration minus first, with runs paired by seed."""
        (one, ones), (other, others) = self._scores(first, metric), self._scores(second, metric)
        return _estimate(other - one, others - ones, within=(-1.0, 1.0) if metric != "kappa" else (-2.0, 2.0))

    def _scores(self, runs: Sequence[int], metric: str, level: int | None = None) -> tuple[Floats, Floats]:  # (S,), (B, S)
        point, draws = self.point[metric][list(runs)], self.draws[metric][:, list(runs)]
        return (point, draws) if level is None else (point[..., level], draws[..., level])


def _weights(generator: np.random.Generator, size: int, units: int) -> NDArray[np.float32]:  # (B, U)
    """How often each unit is drawn, per draw; the generator's multinomial has the same distribution, but is slower."""
    picks = generator.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
    return np.bincount(picks.ravel(), minlength=size * units).reshape(size, units).astype(np.float32)


def _scores_of(confusion: Floats) -> dict[str, Floats]:  # (..., C, C)
    scores = from_confusion(confusion)
    return {name: scores[name] for name in SCORES}


def _drawn(weights: NDArray[np.float32], rows: Ints, cells: Ints, size: int) -> Floats:  # (B, U), (N,), (N,) -> (B, size)
    """How many drawn pairs fall into each cell of a run's confusion matrix."""
    used, places = np.unique(cells, return_inverse=True)
    first, last = rows.min(), rows.max() + 1  # of the units: each split has a contiguous range
    where = np.zeros((last - first, len(used)), dtype=np.float32)
    np.add.at(where, (rows - first, places), 1)
    counts = np.zeros((len(weights), size))
    counts[:, used] = weights[:, first:last] @ where
    return counts


def _estimate(point: Floats, draws: Floats, *, within: tuple[float, float]) -> SeedEstimate:  # (S,), (B, S)
    """Mean over seeds with the wider of two intervals: Student's over seeds, and that of the pairs alone.

    A percentile interval over draws of pairs and seeds counts some noise twice; `benchmarks/coverage.py` measures both kinds.
    """
    seeds = len(point)
    value = float(point.mean())
    draws = draws[np.isfinite(draws).all(1)]  # a draw may leave a tiny test part empty, and its score undefined
    if seeds < 2 or math.isnan(value) or len(draws) < 2:
        return SeedEstimate(value, None, None, None, None, None, None, None)
    # The spread between seeds includes each seed's luck and its own noise over pairs. It misses the noise that all seeds
    # share because they are tested on the same pairs: the pairs' part of the mean, without the seeds' own shares.
    of_seeds = float(point.var(ddof=1)) / seeds
    of_pairs = float(draws.mean(1).var(ddof=1))
    own = (float(draws.var(axis=0, ddof=1).mean()) - of_pairs) / (seeds - 1)
    variance = of_seeds + max(0.0, of_pairs - own)
    freedom = _freedom(seeds, variance, of_seeds)
    # By chance, seeds may agree more closely than the noise over pairs allows. The pairs' variance is then a lower
    # bound that is known well, but its interval is taken only where it is wider: the agreement may be chance.
    both: list[tuple[Literal["seeds", "pairs"], float, float]] = [("seeds", variance, freedom), ("pairs", of_pairs, MANY)]
    by, squared, degrees = max(both, key=lambda each: _reach(each[1], each[2]))
    reach = _reach(squared, degrees)
    # The power of a design does not depend on whether its seeds happen to agree, nor on whether they happen to disagree: by
    # chance, `own` may be larger than the pairs' variance of the mean, which it is a part of.
    least = max(of_pairs, own)
    design = freedom if variance >= least else _freedom(seeds, least, own)
    smallest = math.sqrt(max(variance, least)) * _found(design)
    low, high = max(value - reach, within[0]), min(value + reach, within[1])
    p = max(_two_sided(value, squared, degrees) for _, squared, degrees in both)
    return SeedEstimate(value, low, high, by, math.sqrt(squared), degrees, smallest, p)


def _reach(variance: float, freedom: float) -> float:
    """Half the width of a Student interval."""
    return math.sqrt(variance) * _t(freedom, (1 + CONFIDENCE) / 2)


def _two_sided(value: float, variance: float, freedom: float) -> float:
    """The p of a t-test against 0."""
    if variance == 0:
        return float(value == 0)
    return min(1.0, 2 * float(stdtr(freedom, -abs(value) / math.sqrt(variance))))


def _freedom(seeds: int, variance: float, of_seeds: float) -> float:
    """Satterthwaite's (1946) degrees of freedom: the pairs' part is known well, the seeds' part has S - 1."""
    return min((seeds - 1) * (variance / of_seeds) ** 2, MANY) if of_seeds > 0 else MANY


def _found(freedom: float) -> float:
    """The difference in standard errors that a two-sided t-test finds with the design's power.

    The usual sum of two quantiles is less where degrees of freedom are few: 14 % less with one of them.
    """
    return float(nctdtrinc(freedom, 1 - POWER, _t(freedom, (1 + CONFIDENCE) / 2)))


def _t(freedom: float, probability: float) -> float:
    return float(stdtrit(freedom, probability))


def paired_test(first: Sequence[Answers], second: Sequence[Answers]) -> PairedTest:
    """Test whether two configurations get the same pairs right; runs are paired by position.

    Raises:
        ValueError: the runs were tested on different pairs.
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
    """Two-sided probability of a sum at least as far from 0, where each size has a random sign.

    Exact: the sum over equal sizes is binomial, and the distributions of different sizes are convolved.
    """
    chances = np.ones(1)  # of the sums, centred on 0, in steps of 1
    for size, count in sorted(Counter(sizes).items()):
        flips, step = _binomial(count), 2 * size
        moved = np.zeros(len(chances) + step * (len(flips) - 1))
        for phase in range(min(step, len(chances))):
            moved[phase::step] = np.convolve(chances[phase::step], flips)
        chances = _trimmed(moved)
    reach = len(chances) // 2
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(total)
    return min(1.0, float(chances[far].sum() / chances.sum()))


def _binomial(count: int) -> Floats:
    """The chances of 0 to ``count`` heads of a fair coin, without those at both ends that underflow."""
    heads = np.arange(count + 1)
    logs = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2)
    return _trimmed(np.exp(logs))


def _trimmed(chances: Floats) -> Floats:
    """Remove zeros at the ends, equally many at both, so that the middle stays the middle."""
    (full,) = np.nonzero(chances)
    edge = min(int(full[0]), len(chances) - 1 - int(full[-1]))
    return chances[edge : len(chances) - edge]


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple tests (Holm, 1979), in the same order."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    corrected = [0.0] * len(values)
    worst = 0.0
    for rank, at in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[at]))
        corrected[at] = worst
    return corrected


def correct(rows: Iterable[tuple[PairedTest, SeedEstimate, SeedEstimate]]) -> list[Corrected]:
    """Holm's correction over all rows of a table: each has its test, and the differences of accuracy and of macro F1.

    A row of one seed, whose intervals are not known, counts in the correction as one that finds nothing.
    """
    several = list(rows)
    models = [test.exact for test, _, _ in several]
    recipes = [None if accuracy.p is None else max(test.exact, accuracy.p) for test, accuracy, _ in several]
    macro_f1 = [found.p for _, _, found in several]
    sides = zip(holm(models), _known(recipes), _known(macro_f1), strict=True)
    return [Corrected(len(several), *side) for side in sides]


def _known(values: Sequence[float | None]) -> list[float | None]:
    corrected = holm([1.0 if value is None else value for value in values])
    return [None if value is None else p for value, p in zip(values, corrected, strict=True)]


def contrasts(settings: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str]]:
    """Which configurations to compare: each with the first, and all pairs that differ in exactly one setting."""
    names = list(settings)
    return [
        (one, other)
        for at, one in enumerate(names)
        for other in names[at + 1 :]
        if at == 0 or len(different(settings[one], settings[other])) == 1
    ]


def different(one: Mapping[str, object], other: Mapping[str, object]) -> set[str]:
    """The settings in which two configurations differ; options are named as they are given, ``-o loss.gamma``.

    A plugin's options belong to the plugin: another loss with other options is one difference. An option that differs for
    several tasks is one, and of tasks that only one of the two trains none. How many layers are frozen belongs to the encoder,
    because another one has another number of them, and so does the precision, because a large one may be too slow without it.
    """
    keys = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    if "encoder" in keys:
        keys -= {"freeze_layers", "precision"}
    plain = {key for key in keys if not key.startswith(OPTION)}
    return plain | set(_options(keys - plain, plain, one, other))


OPTION = "-o "  # before the route of a plugin's option among settings


def _options(keys: set[str], plain: set[str], one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[str]:
    for key in keys:
        kind, *task, option = key.removeprefix(OPTION).split(".")
        if kind not in plain and not (task and "tasks" in plain and (key not in one or key not in other)):
            yield f"{OPTION}{kind}.{option}"
