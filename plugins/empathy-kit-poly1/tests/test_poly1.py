"""Poly-1 keeps the kit's promises, and is its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from empathy_kit_poly1 import POLY1, poly1

from empathy_kit import KitError, Task
from empathy_kit.plugins import load_registry
from empathy_kit.testing import Check, loss_checks

TASK = Task("ER", ("0", "1", "2"), (60, 30, 10))


@pytest.mark.parametrize("check", loss_checks(POLY1), ids=str)
def test_promise(check: Check) -> None:
    check()


def test_the_kit_finds_it() -> None:
    assert load_registry().get("loss", "poly1").distribution == "empathy-kit-poly1"


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 0.5, 2.0])
def test_it_is_the_formula_of_the_paper(epsilon: float) -> None:
    logits, target = torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 3
    right = logits.softmax(-1)[torch.arange(8), target]
    assert torch.allclose(poly1(TASK, epsilon=epsilon)(logits, target), -right.log() + epsilon * (1 - right))


def test_epsilon_0_is_cross_entropy() -> None:
    logits, target = torch.randn(8, 3), torch.arange(8) % 3
    assert torch.equal(poly1(TASK, epsilon=0.0)(logits, target), F.cross_entropy(logits, target, reduction="none"))


def test_an_epsilon_that_would_teach_doubt_is_refused() -> None:
    with pytest.raises(KitError) as error:
        poly1(TASK, epsilon=-1.5)
    assert str(error.value) == "loss poly1 of ER: option 'epsilon' is -1.5; expected -1 or more"
