"""The four losses keep the kit's promises, are their papers' formulas, and refuse what they cannot weigh."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from empathy_kit_longtail import (
    ASYMMETRIC,
    CLASS_BALANCED,
    LDAM,
    LOGIT_ADJUSTED,
    asymmetric,
    class_balanced,
    ldam,
    logit_adjusted,
)
from torch import Tensor

from empathy_kit import KitError, Loss, Task
from empathy_kit.plugins import load_registry
from empathy_kit.testing import Check, loss_checks

COUNTS = (60, 30, 10)
TASK = Task("ER", ("0", "1", "2"), COUNTS)
ABSENT = Task("EX", ("0", "1", "2"), (60, 0, 10))
TARGET = torch.arange(9) % 3
ROWS = torch.arange(9)
PROMISES = [
    pytest.param(check, id=f"{spec.name}-{check}")
    for spec, options in (
        (CLASS_BALANCED, {}),
        (CLASS_BALANCED, {"gamma": 2.0}),
        (LDAM, {}),
        (LOGIT_ADJUSTED, {}),
        (ASYMMETRIC, {}),
        (ASYMMETRIC, {"gamma_positive": 1.0, "shift": 0.0}),
    )
    for check in loss_checks(spec, options=options)
]


@pytest.mark.parametrize("check", PROMISES)
def test_promise(check: Check) -> None:
    check()


def logits() -> Tensor:
    return 2 * torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ce(given: Tensor) -> Tensor:
    return F.cross_entropy(given, TARGET, reduction="none")


@pytest.mark.parametrize("spec", [CLASS_BALANCED, LDAM, LOGIT_ADJUSTED, ASYMMETRIC], ids=lambda spec: spec.name)
def test_the_kit_finds_it(spec: Loss) -> None:
    assert load_registry().get("loss", spec.name).distribution == "empathy-kit-longtail"


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_class_balanced_weighs_by_the_effective_number(gamma: float) -> None:
    effective = torch.tensor([(1 - 0.99**count) / (1 - 0.99) for count in COUNTS], dtype=torch.float64)
    weights = (1 / effective) * 3 / (1 / effective).sum()
    right = logits().softmax(-1)[ROWS, TARGET]
    expected = weights[TARGET] * (1 - right) ** gamma * ce(logits())
    assert torch.allclose(class_balanced(TASK, beta=0.99, gamma=gamma)(logits(), TARGET), expected, rtol=1e-6)


def test_class_balanced_with_beta_0_is_cross_entropy() -> None:
    assert torch.allclose(class_balanced(TASK, beta=0.0)(logits(), TARGET), ce(logits()))


def test_ldam_takes_the_margin_off_the_targets_logit() -> None:
    margins = torch.tensor([count**-0.25 for count in COUNTS], dtype=torch.float64) / 10**-0.25 * 0.5
    moved = logits()
    moved[ROWS, TARGET] -= margins[TARGET]
    assert torch.allclose(ldam(TASK, scale=3.0)(logits(), TARGET), ce(3 * moved), rtol=1e-6)


def test_logit_adjusted_adds_tau_times_the_log_share() -> None:
    shares = torch.tensor(COUNTS, dtype=torch.float64) / 100
    assert torch.allclose(logit_adjusted(TASK, tau=0.5)(logits(), TARGET), ce(logits() + 0.5 * shares.log()), rtol=1e-6)
    assert torch.allclose(logit_adjusted(TASK, tau=0.0)(logits(), TARGET), ce(logits()))


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_asymmetric_asks_each_level_by_itself(shift: float) -> None:
    p = logits().sigmoid()
    q = (p - shift).clamp(min=0)
    questions = -(q**4) * (1 - q).log()
    questions[ROWS, TARGET] = (-(1 - p) * p.log())[ROWS, TARGET]
    found = asymmetric(TASK, gamma_positive=1.0, gamma_negative=4.0, shift=shift)(logits(), TARGET)
    assert torch.allclose(found, questions.sum(1))


@pytest.mark.parametrize(
    ("build", "name"), [(class_balanced, "class-balanced"), (ldam, "ldam"), (logit_adjusted, "logit-adjusted")]
)
def test_a_level_without_pairs_is_refused(build: object, name: str) -> None:
    with pytest.raises(KitError) as error:
        build(ABSENT)  # type: ignore[operator]
    assert str(error.value) == f"loss {name} of EX: the training part has no pair of level 1; expected at least one"


def test_an_option_out_of_range_is_refused() -> None:
    with pytest.raises(KitError) as error:
        logit_adjusted(TASK, tau=-1.0)
    assert str(error.value) == "loss logit-adjusted of ER: option 'tau' is -1.0; expected 0 to 100"
