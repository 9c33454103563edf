"""One temperature per task: it finds the one that was put in, mends the calibration error, and changes no level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from empathy_kit.core.calibration import HOTTEST, calibration, fit_temperature, tempered


def drawn(temperature: float, pairs: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels were drawn at another temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (pairs, 3))
    shares = softmax(logits / temperature, axis=1)
    return softmax(logits, axis=1), (rng.random((pairs, 1)) > shares.cumsum(1)).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 3.0])
def test_the_temperature_that_the_labels_were_drawn_at_is_found_and_mends_the_error(temperature: float) -> None:
    probabilities, true = drawn(temperature)
    found = fit_temperature(probabilities, true)
    assert found == pytest.approx(temperature, rel=0.04)
    unseen, theirs = drawn(temperature, seed=1)
    assert calibration(tempered(unseen, found), theirs).ece < 0.015
    if temperature != 1:
        assert calibration(unseen, theirs).ece > 0.04


def test_no_level_changes_and_a_softmaxs_logits_are_divided() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (500, 4))
    for temperature in (1 / HOTTEST, 0.7, 1.0, 2.5, HOTTEST):
        found = tempered(softmax(logits, axis=1), temperature)
        assert (found.argmax(1) == logits.argmax(1)).all()
        assert found == pytest.approx(softmax(logits / temperature, axis=1))
        assert found.sum(1) == pytest.approx(1)


def test_certainty_impossible_labels_and_no_pairs_are_no_obstacle() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(certain, np.array([0, 1])) == pytest.approx(1 / HOTTEST, rel=1e-3)
    assert fit_temperature(certain, np.array([1, 0])) == pytest.approx(HOTTEST, rel=1e-3)  # always wrong, and always sure
    assert tempered(certain, 3.0).tolist() == certain.tolist()
    assert fit_temperature(np.empty((0, 3)), np.empty(0, np.int64)) == 1
    assert (tempered(np.array([1e-300, 1.0]), 0.1) == [0, 1]).all()


def test_the_likelihood_is_that_of_a_grid_search() -> None:
    probabilities, true = drawn(1.4, pairs=150)

    def loss(temperature: float) -> float:
        return -float(log_softmax(np.log(probabilities) / temperature, axis=1)[np.arange(150), true].mean())

    best = min(np.linspace(0.5, 4, 3501), key=loss)
    assert fit_temperature(probabilities, true) == pytest.approx(best, abs=0.01)
