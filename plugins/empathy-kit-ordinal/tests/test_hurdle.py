"""The hurdle head keeps the kit's promises, and is two weighted questions."""

from __future__ import annotations

import pytest
import torch
from empathy_kit_ordinal.hurdle import HURDLE
from empathy_kit_ordinal.hurdle_head import HurdleHead

from empathy_kit import KitError, Task
from empathy_kit.plugins import load_registry
from empathy_kit.testing import Check, head_checks

COUNTS = (80, 15, 5)


@pytest.mark.parametrize("check", head_checks(HURDLE), ids=str)
def test_promise(check: Check) -> None:
    check()


def test_the_kit_finds_it() -> None:
    assert load_registry().get("head", "hurdle").distribution == "empathy-kit-ordinal"


def test_without_weights_its_loss_is_the_negative_logarithm_of_its_probability() -> None:
    head, logits = HurdleHead(4, COUNTS, 0.0), 3 * torch.randn(9, 3, dtype=torch.float64)
    target = torch.arange(9) % 3
    right = head.probabilities(logits)[torch.arange(9), target]
    assert torch.allclose(head.criterion(logits, target), -right.log())


def test_each_question_has_the_weights_of_its_own_classes() -> None:
    head, logits = HurdleHead(4, COUNTS, 1.0), torch.zeros(3, 3, dtype=torch.float64)
    half = torch.tensor(2.0, dtype=torch.float64).log()  # the loss of either question at even odds
    zero, one, two = (head.criterion(logits, torch.arange(3)) / half).tolist()
    assert zero == pytest.approx(100 / 160)
    assert one == pytest.approx(100 / 40 + 20 / 30)
    assert two == pytest.approx(100 / 40 + 20 / 10)
    whole = sum(count * loss for count, loss in zip(COUNTS, (zero, one, two), strict=True))
    assert whole == pytest.approx(100 + 20)  # each question's mean weight is 1


def test_the_second_question_learns_nothing_from_the_lowest_level() -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    HurdleHead(4, COUNTS, 0.5).criterion(logits, torch.zeros(5, dtype=torch.int64)).sum().backward()
    assert logits.grad is not None
    assert logits.grad[:, 1:].abs().max() == 0
    assert logits.grad[:, 0].abs().min() > 0


def test_two_levels_are_one_question() -> None:
    head = HURDLE.build(Task("advice", ("no", "yes"), (9, 3)), 8)
    logits = torch.randn(4, 2)
    assert torch.allclose(head.probabilities(logits)[:, 1], logits[:, 0].sigmoid())


@pytest.mark.parametrize("power", [-0.1, 11.0, float("nan")])
def test_a_power_out_of_range_is_refused(power: float) -> None:
    with pytest.raises(KitError, match=r"head hurdle of ER: option 'power' is .*; expected 0 to 10"):
        HURDLE.build(Task("ER", ("0", "1", "2"), COUNTS), 8, power=power)


def test_a_label_that_no_training_pair_has_is_refused() -> None:
    with pytest.raises(KitError, match="expected every label in the training part"):
        HURDLE.build(Task("ER", ("0", "1", "2"), (9, 3, 0)), 8)
