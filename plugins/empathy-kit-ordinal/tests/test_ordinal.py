"""The ordinal head keeps the kit's promises, and is CORN."""

from __future__ import annotations

import pytest
import torch
from empathy_kit_ordinal import ORDINAL
from empathy_kit_ordinal.head import OrdinalHead

from empathy_kit import Task
from empathy_kit.plugins import load_registry
from empathy_kit.testing import Check, head_checks


@pytest.mark.parametrize("check", head_checks(ORDINAL), ids=str)
def test_promise(check: Check) -> None:
    check()


def test_the_kit_finds_it() -> None:
    assert load_registry().get("head", "ordinal").distribution == "empathy-kit-ordinal"


def test_three_levels_are_two_questions_and_the_second_is_asked_above_level_0_only() -> None:
    head = OrdinalHead(4, 3)
    logits = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    first, second = logits.sigmoid()[0]
    expected = {0: -(1 - first).log(), 1: -first.log() - (1 - second).log(), 2: -first.log() - second.log()}
    for level, loss in expected.items():
        assert torch.allclose(head.criterion(logits, torch.tensor([level]))[0], loss)


def test_its_loss_is_the_negative_logarithm_of_its_probability() -> None:
    head, logits = OrdinalHead(4, 3), 3 * torch.randn(9, 2, dtype=torch.float64)
    target = torch.arange(9) % 3
    right = head.probabilities(logits)[torch.arange(9), target]
    assert torch.allclose(head.criterion(logits, target), -right.log())


def test_being_at_least_a_level_never_gets_likelier_upwards() -> None:
    head, logits = OrdinalHead(4, 7), 5 * torch.randn(50, 6)
    at_least = head.probabilities(logits).flip(1).cumsum(1).flip(1)
    assert (at_least.diff(dim=1) <= 1e-6).all()


def test_a_builder_knows_the_levels_from_its_task() -> None:
    head = ORDINAL.build(Task("ER", ("0", "1", "2", "3"), (4, 3, 2, 1)), 8)
    assert head.linear.out_features == 3
