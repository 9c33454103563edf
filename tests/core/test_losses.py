"""Losses against obvious formulas in float64, value and gradient, and at the ends where naive formulas break."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from empathy_kit import Task
from empathy_kit.builtin import losses as built_in
from empathy_kit.core.losses.cross_entropy import balanced_weights, cross_entropy
from empathy_kit.core.losses.focal import focal
from empathy_kit.errors import KitError

GAMMAS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 8.0)
COUNTS = (2037, 895, 152)  # the imbalance of the field's data
ER = Task("ER", ("0", "1", "2"), COUNTS)

Criterion = Callable[[Tensor, Tensor], Tensor]


def examples(n: int, classes: int, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64) * spread
    return logits, torch.randint(0, classes, (n,), generator=generator)


def value_and_gradient(loss: Criterion, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


def obvious_focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    p = (logits.exp() / logits.exp().sum(-1, keepdim=True))[range(len(target)), target]
    return (1 - p) ** gamma * -p.log()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_focal_is_the_papers_formula_in_value_and_gradient(gamma: float, classes: int) -> None:
    logits, target = examples(200, classes)
    expected, slope = value_and_gradient(lambda z, y: obvious_focal(z, y, gamma), logits, target)
    value, gradient = value_and_gradient(lambda z, y: focal(z, y, gamma), logits, target)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)
    value, gradient = value_and_gradient(lambda z, y: focal(z, y, gamma), logits.float(), target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), slope, rtol=2e-5, atol=1e-6)


def test_focal_with_gamma_0_is_cross_entropy() -> None:
    logits, target = examples(200, 3, spread=8.0)
    expected, slope = value_and_gradient(lambda z, y: F.cross_entropy(z, y, reduction="none"), logits, target)
    for loss in (built_in.focal(ER, gamma=0.0), built_in.ce(ER), built_in.weighted(ER, power=0.0)):
        value, gradient = value_and_gradient(loss, logits, target)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("p", "less"), [(0.9, 100), (0.968, 1000), (0.5, 4)])
def test_focal_takes_away_what_its_paper_gives_as_examples(p: float, less: float) -> None:
    """Lin et al. (arXiv 1708.02002, section 3.2), gamma 2: the factors between cross-entropy and focal loss."""
    logits, target = torch.tensor([[p, 1 - p]], dtype=torch.float64).log(), torch.tensor([0])
    assert float(F.cross_entropy(logits, target) / focal(logits, target, 2.0)) == pytest.approx(less, rel=0.03)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_focal_of_two_labels_is_the_sigmoid_form(gamma: float) -> None:
    """The binary form reads one logit, which is the difference of the two here."""
    logits, target = examples(200, 2)
    margin = (logits[:, 1] - logits[:, 0]) * (2 * target - 1)
    expected = torch.sigmoid(-margin) ** gamma * F.softplus(-margin)
    torch.testing.assert_close(focal(logits, target, gamma), expected, rtol=1e-9, atol=1e-12)


def test_focal_counts_an_easy_pair_less_the_larger_gamma_and_is_2_by_default() -> None:
    logits, target = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([0])
    values = [float(focal(logits, target, gamma)) for gamma in GAMMAS]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)
    assert float(built_in.focal(ER)(logits, target)) == values[GAMMAS.index(2.0)]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_focal_is_finite_in_value_and_gradient_for_float64_logits_of_any_size(gamma: float) -> None:
    sizes = (-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4)
    logits = torch.cartesian_prod(*[torch.tensor(sizes, dtype=torch.float64)] * 3)
    for level in range(3):
        target = torch.full((len(logits),), level)
        value, gradient = value_and_gradient(lambda z, y: focal(z, y, gamma), logits, target)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert (value >= 0).all()
        wrong = (logits.argmax(-1) != level) & (logits.amax(-1) - logits[:, level] >= 1e4)
        torch.testing.assert_close(value[wrong], F.cross_entropy(logits, target, reduction="none")[wrong])


@pytest.mark.parametrize("counts", [COUNTS, (1, 1, 1), (5, 1), (1, 10_000, 3, 2)])
def test_balanced_weights_are_scikit_learns(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(balanced_weights(counts), expected, rtol=1e-12)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_class_weights_follow_their_power_and_are_1_on_average_over_the_training_part(power: float) -> None:
    weights = balanced_weights(COUNTS, power)
    assert np.average(weights, weights=COUNTS) == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx((COUNTS[0] / COUNTS[2]) ** power)


def test_weighted_multiplies_each_pairs_cross_entropy_by_its_levels_weight() -> None:
    logits, target = examples(50, 3)
    expected = torch.tensor(balanced_weights(COUNTS, 0.5))[target] * cross_entropy(logits.float(), target)
    torch.testing.assert_close(built_in.weighted(ER, power=0.5)(logits.float(), target), expected)


def test_a_level_that_the_training_part_lacks_cannot_be_weighted() -> None:
    with pytest.raises(KitError) as error:
        built_in.weighted(Task("EX", ("0", "1", "2"), (5, 0, 3)))
    assert str(error.value) == (
        "loss weighted of EX: class counts (5, 0, 3): expected every class in the training part, or no weighting"
    )


@pytest.mark.parametrize(
    ("build", "option", "message"),
    [
        (built_in.focal, {"gamma": -0.5}, "loss focal of ER: option 'gamma' is -0.5; expected 0 or more"),
        (built_in.weighted, {"power": -1.0}, "loss weighted of ER: option 'power' is -1.0; expected 0 to 10"),
    ],
)
def test_an_option_out_of_range_is_refused(build: Callable[..., object], option: dict[str, float], message: str) -> None:
    with pytest.raises(KitError, match=f"^{re.escape(message)}$"):
        build(ER, **option)
