"""Confident learning: the rule as the paper has it, and what it finds of labels that were flipped on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from empathy_kit.core.confident import NONE, confident
from empathy_kit.core.metrics import Floats, Ints


def by_hand(labels: list[int], probabilities: list[list[float]]) -> tuple[list[int], set[int]]:
    """The class that each pair is counted as, and the pairs off the diagonal: the definition, pair by pair."""
    thresholds = {}
    for each in set(labels):
        of_class = [row[each] for label, row in zip(labels, probabilities, strict=True) if label == each]
        thresholds[each] = sum(of_class) / len(of_class)
    counted = []
    for row in probabilities:
        reached = [each for each, mean in thresholds.items() if row[each] >= mean - 1e-9]
        counted.append(max(reached, key=lambda each: (row[each], -each)) if reached else NONE)
    wrong = {
        at
        for at, (label, other, row) in enumerate(zip(labels, counted, probabilities, strict=True))
        if other not in (NONE, label) and row[label] < max(row)
    }
    return counted, wrong


def world(seed: int, pairs: int = 600, share: float = 0.1) -> tuple[Ints, Ints, Floats]:
    """True labels of unequal classes, the same with a share flipped, and a good model's probabilities of the true ones."""
    draw = np.random.default_rng(seed)
    true = draw.choice(3, size=pairs, p=[0.6, 0.3, 0.1])
    logits = draw.gumbel(size=(pairs, 3))
    logits[np.arange(pairs), true] += 5
    shares = np.exp(logits)
    labels = true.copy()
    flipped = draw.choice(pairs, size=round(share * pairs), replace=False)
    labels[flipped] = (labels[flipped] + draw.integers(1, 3, size=len(flipped))) % 3
    return true, labels, shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize("seed", range(8))
def test_the_rule_is_that_of_the_paper_without_labels_that_are_still_the_likeliest(seed: int) -> None:
    draw = np.random.default_rng(seed)
    classes, pairs = 3 + seed % 3, 40
    labels = draw.integers(0, classes - seed % 2, size=pairs)  # in every second world no pair has the last class
    shares = draw.dirichlet(np.ones(classes), size=pairs).round(1 + seed % 4)  # ties
    found = confident(labels, shares)
    counted, wrong = by_hand(labels.tolist(), shares.tolist())
    assert found.suggested.tolist() == counted
    assert set(found.faults.tolist()) == wrong
    assert len(wrong) > 3
    margins = found.margin[found.faults]
    assert (np.diff(margins) >= 0).all()
    for at in found.faults.tolist():
        others = np.delete(shares[at], labels[at])
        assert found.margin[at] == shares[at, labels[at]] - others.max()


@pytest.mark.parametrize("seed", range(5))
def test_most_flipped_labels_are_found_and_most_of_what_is_found_was_flipped(seed: int) -> None:
    true, labels, shares = world(seed)
    found = confident(labels, shares)
    flipped, faults = set(np.flatnonzero(true != labels).tolist()), set(found.faults.tolist())
    hits = flipped & faults
    assert len(hits) / len(flipped) > 0.7
    assert len(hits) / len(faults) > 0.6
    first = found.faults[: len(flipped) // 2].tolist()  # the rank puts the flipped ones first
    assert len(flipped & set(first)) / len(first) > 0.9
    restored = [at for at in hits if found.suggested[at] == true[at]]
    assert len(restored) / len(hits) > 0.9


def test_labels_that_the_model_is_sure_of_are_no_faults() -> None:
    labels = np.array([0, 1, 2, 0])
    found = confident(labels, np.eye(3)[labels])
    assert found.faults.tolist() == []
    assert found.suggested.tolist() == labels.tolist()
    assert found.margin.tolist() == [1.0] * 4


def test_a_label_that_is_still_the_likeliest_is_no_fault_though_another_class_alone_reaches_its_threshold() -> None:
    labels = np.array([0, 0, 0, 1])
    found = confident(labels, np.array([[0.9, 0.1], [0.55, 0.45], [0.45, 0.55], [0.7, 0.3]]))
    assert found.thresholds == pytest.approx([19 / 30, 0.3])
    assert found.suggested.tolist() == [0, 1, 1, 0]
    assert found.faults.tolist() == [3, 2]  # pair 1 is counted as class 1, and class 0 is likelier
    tied = confident(np.array([0, 0, 1]), np.array([[0.5, 0.5], [0.9, 0.1], [0.6, 0.4]]))
    assert (tied.suggested[0], tied.faults.tolist()) == (1, [])


def test_a_class_without_a_label_is_never_suggested_and_equal_probabilities_reach_their_mean() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    found = confident(labels, np.tile([0.1, 0.3, 0.6], (6, 1)))
    assert np.isnan(found.thresholds[2])
    assert found.thresholds[:2] == pytest.approx([0.1, 0.3])
    assert found.suggested.tolist() == [1] * 6
    assert found.faults.tolist() == [0, 1, 2]
