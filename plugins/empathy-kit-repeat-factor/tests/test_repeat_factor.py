"""Repeat-factor sampling keeps the kit's promises, and is its formula."""

from __future__ import annotations

import pytest
import torch
from empathy_kit_repeat_factor import REPEAT_FACTOR, repeat_factor

from empathy_kit import KitError, Task
from empathy_kit.plugins import load_registry
from empathy_kit.testing import Check, sampler_checks

TASKS = [Task("ER", ("0", "1", "2"), (48, 48, 4)), Task("EX", ("no", "yes"), (80, 10))]
LABELS = torch.tensor([[0, 0]] * 48 + [[1, 0]] * 28 + [[1, -1]] * 10 + [[1, 1]] * 10 + [[2, 0]] * 4)


@pytest.mark.parametrize("check", sampler_checks(REPEAT_FACTOR), ids=str)
def test_promise(check: Check) -> None:
    check()


def test_the_kit_finds_it() -> None:
    assert load_registry().get("sampler", "repeat-factor").distribution == "empathy-kit-repeat-factor"


def test_the_rarest_label_decides_how_often_on_average() -> None:
    epoch, generator, times = repeat_factor(TASKS, LABELS, threshold=0.36), torch.Generator().manual_seed(0), torch.zeros(100)
    for _ in range(2000):
        times += torch.bincount(epoch(generator), minlength=100)
    expected = torch.tensor([1.0] * 86 + [1.8] * 10 + [3.0] * 4)  # (.36 / (10 / 90))^.5, (.36 / .04)^.5
    assert (times / 2000 - expected).abs().max() < 0.05


def test_threshold_0_shows_every_pair_once() -> None:
    assert torch.equal(repeat_factor(TASKS, LABELS, threshold=0.0)(torch.Generator()), torch.arange(100))


def test_a_threshold_out_of_range_is_refused() -> None:
    with pytest.raises(KitError) as error:
        repeat_factor(TASKS, LABELS, threshold=2.0)
    assert str(error.value) == "sampler repeat-factor: option 'threshold' is 2.0; expected 0 to 1"
