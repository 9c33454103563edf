"""How far probabilities can be believed, and the one temperature per task that mends what it can. No torch is loaded here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from empathy_kit.core.metrics import Floats, Ints

BINS = 10
HOTTEST = 10.0
"""Temperatures are sought between 1 / HOTTEST and HOTTEST: a part that is predicted without a fault would ask for 0."""


@dataclass(frozen=True)
class Calibration:
    """How far confidence can be believed. Lists run over bins of confidence from 0 to 1."""

    counts: list[int]
    confidence: list[float]  # mean per bin; 0 in an empty one
    accuracy: list[float]
    ece: float  # expected calibration error: the bins' mean distance of the two, weighted by count (Guo et al., arXiv 1706.04599)


def calibration(probabilities: Floats, true: Ints) -> Calibration:  # (N, C), (N,)
    """Confidence in the likeliest label against how often it is right."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == true
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    full = np.maximum(counts, 1)
    means = np.bincount(bins, confidence, BINS) / full
    shares = np.bincount(bins, right, BINS) / full
    ece = float((np.abs(means - shares) * counts).sum() / len(true))
    return Calibration(counts.tolist(), means.tolist(), shares.tolist(), ece)


def tempered(probabilities: Floats, temperature: float) -> Floats:  # (..., C) -> (..., C)
    """Probabilities at another temperature: p ** (1 / T), normalised. Their order stays.

    After a softmax this divides the logits by T (Guo et al., ICML 2017, arXiv 1706.04599), and it needs no logits: a head that
    has none, or fewer than it has labels, is calibrated in the same way.
    """
    if temperature == 1:
        return probabilities
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities) / temperature
    found: Floats = np.exp(logs - logs.max(-1, keepdims=True))
    found /= found.sum(-1, keepdims=True)
    return found


def fit_temperature(probabilities: Floats, true: Ints) -> float:  # (N, C), (N,)
    """The temperature that gives these pairs' true labels the largest likelihood; 1 where there are no pairs."""
    if not len(true):
        return 1.0
    from scipy.optimize import minimize_scalar

    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(probabilities), -700.0)  # a probability of 0 for a true label would be the only one that counts

    def loss(inverse: float) -> float:
        scaled = logs * inverse
        highest = scaled.max(1)
        total = highest + np.log(np.exp(scaled - highest[:, None]).sum(1))
        return float((total - scaled[np.arange(len(true)), true]).mean())

    # Convex in 1 / T.
    return 1 / float(minimize_scalar(loss, bounds=(1 / HOTTEST, HOTTEST), method="bounded", options={"xatol": 1e-6}).x)
