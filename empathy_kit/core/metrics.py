"""Scores from confusion matrices, each with a bootstrap interval; token and span scores of rationale extraction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Stretch = tuple[int, int]  # tokens: the first, and one after the last

RESAMPLES = 2000
CHUNK = 100  # resamples at a time, or fewer where each takes much memory
HELD = 1_000_000  # numbers that a chunk may hold: a resample has one per pair, or one per cell of its confusion matrix
CONFIDENCE = 0.95
BATCH = 32  # pairs, in order: Sharma et al. (2020, arXiv 2009.08441) average F1 over the batches of their evaluation
IOU_MATCH = 0.5  # DeYoung et al. (ERASER, arXiv 1911.03429): a predicted span counts from this overlap on


@dataclass(frozen=True)
class Estimate:
    """A score and its 95 % percentile bootstrap interval over pairs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """How well one mechanism was predicted. Lists run over the levels."""

    n: int
    confusion: list[list[int]]  # [true level][predicted level]
    accuracy: Estimate
    weighted_f1: Estimate  # the paper's F: class F1 weighted by the class's share of the test part
    macro_f1: Estimate  # the field's: the plain mean over levels
    kappa: Estimate | None  # quadratic-weighted, Cohen (1968); None where undefined: all pairs and predictions of one level
    precision: list[Estimate]
    recall: list[Estimate]
    f1: list[Estimate]
    average_precision: list[Estimate | None]  # of each level against the others, by its probability; None where no pair has it
    batch_macro_f1: float  # the mean of macro F1 over `BATCH` pairs at a time: how others have published this data's F1
    majority: dict[str, float]  # the training part's commonest level for every pair: accuracy, weighted_f1, macro_f1
    never_predicted: list[int]  # levels that the test part has and the model never gave


@dataclass(frozen=True)
class SpanScores:
    """How well one mechanism's evidence was found, over all pairs whose evidence is known."""

    pairs: int
    token_f1: Estimate
    iou_f1: Estimate


def confusion_matrix(target: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts (C, C), the true level down, the predicted one across."""
    return np.bincount(target * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """0 / 0 is 0, as scikit-learn's ``zero_division=0`` has it."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


@np.errstate(invalid="ignore")
def from_confusion(confusion: Floats) -> dict[str, Floats]:
    """All scores of confusion matrices (..., C, C): (...) each, (..., C) for precision, recall and f1.

    A matrix without a pair has no accuracy, weighted F1 or kappa: NaN. Kappa is also undefined where all pairs and all
    predictions are of one level.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    total = confusion.sum((-2, -1))
    f1 = _ratio(2 * hits, true + predicted)
    levels = np.arange(confusion.shape[-1])
    distance = (levels[:, None] - levels[None]) ** 2.0
    chance = (true[..., :, None] * predicted[..., None, :] * distance).sum((-2, -1)) / total
    disagreement = (confusion * distance).sum((-2, -1))
    kappa = np.where(chance > 0, 1 - _ratio(disagreement, chance), np.nan)
    return {
        "accuracy": hits.sum(-1) / total,
        "weighted_f1": (f1 * true).sum(-1) / total,
        "macro_f1": f1.mean(-1),
        "kappa": kappa,
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, true),
        "f1": f1,
    }


def average_precision(positive: NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """Average precision, the sum of precision times the gain in recall over thresholds, as scikit-learn defines it.

    Args:
        positive: (N,), which pairs have the level.
        scores: (N,), its probabilities.
        weights: (R, N), how often each of R resamples drew a pair.

    Returns:
        (R,); NaN where a resample drew no positive pair.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores pass a threshold together
    drawn = weights[:, order]
    hits, passed = np.cumsum(drawn * positive[order], axis=1)[:, last], np.cumsum(drawn, axis=1)[:, last]
    gains: Floats = np.diff(hits, axis=1, prepend=0) * _ratio(hits, passed)
    found: Floats = np.divide(gains.sum(1), hits[:, -1], out=np.full(len(hits), np.nan), where=hits[:, -1] > 0)
    return found


def batch_macro_f1(target: Ints, predicted: Ints, classes: int) -> float:
    """The mean of macro F1 over batches of `BATCH` pairs in order, each over the levels that occur in it, true or predicted.

    Published figures of the Reddit data are made so. It does not estimate the F1 over all pairs: a batch without a rare level
    leaves it out.
    """
    starts = range(0, len(target), BATCH)
    return float(np.mean([_present_f1(target[at : at + BATCH], predicted[at : at + BATCH], classes) for at in starts]))


def _present_f1(target: Ints, predicted: Ints, classes: int) -> float:
    confusion = confusion_matrix(target, predicted, classes)
    occurs = (confusion.sum(0) + confusion.sum(1)) > 0
    return float(from_confusion(confusion.astype(np.float64))["f1"][occurs].mean())


def score(target: Ints, probabilities: Floats, majority: int, seed: int) -> Scores:
    """Score one mechanism's predictions: target (N,) levels, probabilities (N, C); the likeliest level is the prediction.

    Resampling pairs with replacement draws the confusion matrix's cells from a multinomial distribution, so the bootstrap
    of all scores but average precision needs no loop over pairs.

    Raises:
        ValueError: no pairs.
    """
    if not len(target):
        raise ValueError("no pairs to score")
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    confusion = confusion_matrix(target, predicted, classes)
    n = int(confusion.sum())
    point = from_confusion(confusion.astype(np.float64))
    spread = _redrawn(confusion, seed)
    baseline = from_confusion(confusion_matrix(target, np.full_like(target, majority), classes).astype(np.float64))

    def estimates(name: str) -> list[Estimate]:
        return [_estimate(value, draw) for value, draw in zip(point[name], spread[name].T, strict=True)]

    return Scores(
        n=n,
        confusion=confusion.tolist(),
        accuracy=_estimate(point["accuracy"], spread["accuracy"]),
        weighted_f1=_estimate(point["weighted_f1"], spread["weighted_f1"]),
        macro_f1=_estimate(point["macro_f1"], spread["macro_f1"]),
        kappa=None if np.isnan(point["kappa"]) else _estimate(point["kappa"], spread["kappa"]),
        precision=estimates("precision"),
        recall=estimates("recall"),
        f1=estimates("f1"),
        average_precision=_ranked(target, probabilities, seed),
        batch_macro_f1=batch_macro_f1(target, predicted, classes),
        majority={name: float(baseline[name]) for name in ("accuracy", "weighted_f1", "macro_f1")},
        never_predicted=[level for level in range(classes) if confusion[level].any() and not confusion[:, level].any()],
    )


def _redrawn(confusion: Ints, seed: int) -> dict[str, Floats]:
    """All scores of as many draws of a confusion matrix's cells as there are resamples."""
    n = int(confusion.sum())
    draws = _drawn(n, confusion.ravel() / n, seed)
    scores = [from_confusion(drawn.reshape(len(drawn), *confusion.shape)) for drawn in draws]
    return {name: np.concatenate([each[name] for each in scores]) for name in scores[0]}


def _resamples(n: int, seed: int) -> Iterator[Floats]:
    """How often each resample has each pair, (chunk, n) at a time: all at once would take 32 KB per pair."""
    return _drawn(n, np.full(n, 1 / n), seed)


def _drawn(n: int, shares: Floats, seed: int) -> Iterator[Floats]:
    """Draws of n from a multinomial distribution, as many as there are resamples, (chunk, shares) at a time."""
    generator = np.random.default_rng(seed)
    chunk = min(CHUNK, max(1, HELD // len(shares)))
    for done in range(0, RESAMPLES, chunk):
        yield generator.multinomial(n, shares, size=min(chunk, RESAMPLES - done)).astype(np.float64)


def _ranked(target: Ints, probabilities: Floats, seed: int) -> list[Estimate | None]:
    n, classes = probabilities.shape
    there = [level for level in range(classes) if (target == level).any()]
    draws: dict[int, list[Floats]] = {level: [] for level in there}
    for weights in _resamples(n, seed):
        for level in there:
            draws[level].append(average_precision(target == level, probabilities[:, level], weights))
    point = {level: average_precision(target == level, probabilities[:, level], np.ones((1, n)))[0] for level in there}
    return [_estimate(point[level], np.concatenate(draws[level])) if level in draws else None for level in range(classes)]


def _estimate(value: Floats, draws: Floats) -> Estimate:
    """The interval is over the draws in which the score is defined."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(draws[~np.isnan(draws)], [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


def macro_f1(target: Ints, predicted: Ints, classes: int) -> float:
    """Macro F1 alone, without an interval."""
    return float(from_confusion(confusion_matrix(target, predicted, classes).astype(np.float64))["macro_f1"])


def runs(tokens: Sequence[bool] | NDArray[np.bool_]) -> list[Stretch]:
    """The maximal stretches of True: (start, end) each."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(tokens, dtype=bool), [False]])))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _overlap(one: Stretch, other: Stretch) -> float:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)


def score_spans(gold: Sequence[Sequence[Stretch]], predicted: Sequence[Sequence[Stretch]], seed: int) -> SpanScores:
    """Score evidence over the corpus (micro), one sequence of stretches per pair: a stretch is the tokens start to end - 1.

    Token-F1 compares tokens; IOU-F1 compares stretches, which match from an overlap of one half on. Annotated stretches that
    touch stay apart, as in ERASER. Both take positions in the whole response, so evidence that truncation cut away is missed.

    Raises:
        ValueError: no pairs, or not as many of one as of the other.
    """
    if not gold:
        raise ValueError("no pairs to score")
    # Of each pair: tokens shared, predicted, gold; spans predicted and right, predicted, gold, gold and found.
    counts = np.zeros((len(gold), 7))
    for row, (true, guess) in enumerate(zip(gold, predicted, strict=True)):
        right = sum(any(_overlap(one, other) >= IOU_MATCH for other in true) for one in guess)
        found = sum(any(_overlap(one, other) >= IOU_MATCH for other in guess) for one in true)
        true_tokens, guess_tokens = (set().union(*(range(*one) for one in spans)) for spans in (true, guess))
        counts[row] = (len(true_tokens & guess_tokens), len(guess_tokens), len(true_tokens), right, len(guess), len(true), found)
    spread = np.concatenate([weights @ counts for weights in _resamples(len(gold), seed)])

    def token_f1(sums: Floats) -> Floats:
        return _ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])

    def iou_f1(sums: Floats) -> Floats:
        precision, recall = _ratio(sums[..., 3], sums[..., 4]), _ratio(sums[..., 6], sums[..., 5])
        return _ratio(2 * precision * recall, precision + recall)

    whole = counts.sum(0, keepdims=True)
    return SpanScores(
        pairs=len(gold),
        token_f1=_estimate(token_f1(whole)[0], token_f1(spread)),
        iou_f1=_estimate(iou_f1(whole)[0], iou_f1(spread)),
    )
