"""Which labels are probably wrong: confident learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from empathy_kit.core.metrics import Floats, Ints

NONE = -1
ROUNDING = 1e-9  # a mean of equal numbers may be larger than each of them by this much


@dataclass(frozen=True)
class Confident:
    """What probabilities say of given labels."""

    thresholds: Floats  # (C,) NaN for a class that no pair is labelled with
    suggested: Ints  # (N,) the class that a pair is counted as; NONE where no class reaches its threshold
    margin: Floats  # (N,) the label's probability less the largest other one; the lower, the less the label is believed
    faults: Ints  # (F,) positions of the pairs whose label is probably wrong, the lowest margin first


def confident(labels: Ints, probabilities: Floats) -> Confident:
    """Find the labels that are probably wrong by the rule of Northcutt, Jiang and Chuang (JAIR 2021, arXiv 1911.00068).

    A class's threshold is its mean probability over the pairs that are labelled with it. A pair is counted as the class of the
    largest probability among those that reach their thresholds. Pairs that are counted as another class than their label (off the
    diagonal of the confident joint), while some other class is likelier than the label, are the probable faults. The paper lists
    them also where the label is still the likeliest; cleanlab leaves those out too. Faults are ranked by their normalised margin.
    Classes have no order here: a label that is wrong by one level is treated as one that is wrong by two.

    Args:
        labels: (N,) the given classes, which may be wrong.
        probabilities: (N, C) by models that were not trained on the pair.
    """
    held = [probabilities[labels == each, each] for each in range(probabilities.shape[1])]
    thresholds = np.array([each.mean() if len(each) else np.nan for each in held])
    reached = probabilities >= thresholds - ROUNDING  # never for NaN
    suggested = np.where(reached.any(1), np.where(reached, probabilities, -1.0).argmax(1), NONE)
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1.0
    margin = probabilities[rows, labels] - others.max(1, initial=-1.0)
    off = np.flatnonzero((suggested != NONE) & (suggested != labels) & (margin < 0))
    return Confident(thresholds, suggested, margin, off[np.argsort(margin[off], kind="stable")])
