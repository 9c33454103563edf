"""The fused kernel and the closed form: the formula's numbers in float64, at the ends too, whatever differentiates them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from exactness import CLASSES, GAMMAS, allowed_error, exact, hard_rows, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from empathy_kit.core import kernels
from empathy_kit.core.losses.focal import focal, focal_mean
from empathy_kit.core.losses.formula import reference


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("classes", CLASSES)
def test_float32_is_right_on_every_row(way: str, classes: int, gamma: float) -> None:
    """Within (4 + gamma (4 + |z|)) 2^-24 of the float64 row."""
    logits = hard_rows(classes)
    target = torch.arange(len(logits)) % classes
    weight = torch.linspace(0.25, 3, classes)
    values, gradient = value_and_gradient(lambda z: focal(z, target, gamma, weight), logits)
    expected, slope = exact(logits, target, gamma, weight)
    allowed = allowed_error(logits, gamma)
    if way == "closed":
        allowed = allowed * (6 + logits.abs().amax(1).clamp(max=100) / 8)  # torch's exp keeps the rounding of z - max
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    smallest = 1e-36  # what is subnormal has few digits
    assert ((values.double() - expected).abs() <= allowed * expected.abs() + smallest).all()
    assert ((gradient.double() - slope).abs().amax(1) <= allowed * slope.abs().amax(1) + smallest).all()


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(
    rows=st.lists(
        st.lists(
            st.one_of(st.floats(-80, 80, width=32), st.sampled_from([0.0, 1e4, -1e4, 1e30, -1e30, 3e38, -3e38])),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=40,
    ),
    gamma=st.sampled_from([*GAMMAS, 1.7, 3.3]),
)
def test_no_row_is_ever_not_a_number(rows: list[list[float]], gamma: float) -> None:
    logits = torch.tensor(rows)
    for level in range(3):
        target = torch.full((len(rows),), level)
        values, gradient = value_and_gradient(lambda z, target=target: focal(z, target, gamma), logits)  # type: ignore[misc]
        assert not values.isnan().any()
        assert gradient.isfinite().all()
        assert (values >= 0).all()


def test_a_logit_of_minus_infinity_is_a_class_that_cannot_be(way: str) -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.5]])
    values, gradient = value_and_gradient(lambda z: focal(z, torch.tensor([0]), 2.0), logits)
    expected, slope = value_and_gradient(lambda z: focal(z, torch.tensor([0]), 2.0), torch.tensor([[1.0, 0.5]]))
    torch.testing.assert_close(values, expected)
    assert gradient[0, 1] == 0
    torch.testing.assert_close(gradient[:, [0, 2]], slope)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [3, 5])
def test_a_row_that_has_no_answer_gives_none_and_its_neighbours_theirs(way: str, classes: int, gamma: float, bad: float) -> None:
    for column in range(classes):
        for level in range(classes):
            logits = torch.randn(3, classes, generator=torch.Generator().manual_seed(5))
            logits[1, column] = bad
            values, gradient = value_and_gradient(lambda z, y=level: focal(z, torch.full((3,), y), gamma), logits)  # type: ignore[misc]
            assert values.isnan().tolist() == [False, True, False]
            assert gradient.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    logits = (3 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))).to(dtype)
    target = torch.arange(4000) % 3
    values, gradient = value_and_gradient(lambda z: focal(z, target, 2.0), logits)
    assert values.dtype == gradient.dtype == dtype
    expected, slope = exact(logits, target, 2.0)
    for found, wanted in ((values, expected), (gradient, slope)):
        right = (found.view(torch.int16).int() - wanted.to(dtype).view(torch.int16).int()).abs() <= 1
        assert right.double().mean() >= 0.999


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (17, 3), (5000, 3), (0, 7), (33, 7)])
def test_any_number_of_rows(way: str, shape: tuple[int, int]) -> None:
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    target = torch.arange(shape[0]) % shape[1]
    values, gradient = value_and_gradient(lambda z: focal(z, target, 2.0), logits)
    expected, slope = exact(logits, target, 2.0)
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_rows_and_change_nothing(threads: int) -> None:
    logits, target = torch.randn(20_011, 3, generator=torch.Generator().manual_seed(2)), torch.arange(20_011) % 3
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = value_and_gradient(lambda z: focal(z, target, 2.0), logits)
        torch.set_num_threads(threads)
        shared = value_and_gradient(lambda z: focal(z, target, 2.0), logits)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[0], shared[0])
    assert torch.equal(alone[1], shared[1])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_targets_of_any_integer_type(way: str, dtype: torch.dtype) -> None:
    logits, target = torch.randn(9, 3), torch.arange(9) % 3
    assert torch.equal(focal(logits, target.to(dtype), 2.0), focal(logits, target, 2.0))


def test_logits_that_are_not_contiguous(way: str) -> None:
    wide, target = torch.randn(9, 6), torch.arange(9) % 3
    for view in (wide[:, ::2], torch.randn(3, 9).T):
        assert torch.equal(focal(view, target, 2.0), focal(view.contiguous(), target, 2.0))
        _, gradient = value_and_gradient(lambda z: focal(z, target, 2.0), view)
        torch.testing.assert_close(gradient.double(), exact(view, target, 2.0)[1], rtol=1e-5, atol=1e-7)


def test_one_gamma_per_class(way: str) -> None:
    logits, target, gamma = torch.randn(30, 3), torch.arange(30) % 3, torch.tensor([0.0, 2.0, 3.5])
    values = focal(logits, target, gamma)
    for level in range(3):
        torch.testing.assert_close(values[target == level], focal(logits, target, float(gamma[level]))[target == level])


def test_gamma_0_is_cross_entropy_and_weights_of_1_are_none(way: str) -> None:
    logits, target, weight = 4 * torch.randn(500, 3), torch.arange(500) % 3, torch.tensor([0.3, 1.0, 4.0])
    expected = value_and_gradient(lambda z: F.cross_entropy(z, target, weight, reduction="none"), logits)
    found = value_and_gradient(lambda z: focal(z, target, 0.0, weight), logits)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-6)
    assert torch.equal(focal(logits, target, 2.0, torch.ones(3)), focal(logits, target, 2.0))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_first_and_second_derivatives_are_those_of_the_value(gamma: float) -> None:
    logits = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    target, weight = torch.arange(6) % 3, torch.tensor([0.5, 1.0, 2.0])
    assert torch.autograd.gradcheck(lambda z: focal(z, target, gamma, weight), logits)
    assert torch.autograd.gradgradcheck(lambda z: focal(z, target, gamma, weight), logits)


def test_a_second_derivative_of_the_kernel_is_the_formulas(way: str) -> None:
    target = torch.arange(6) % 3

    def curvature(loss: Callable[[Tensor, Tensor, float], Tensor]) -> Tensor:
        logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits, target, 2.0).sum(), logits, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), logits)[0]

    torch.testing.assert_close(curvature(focal), curvature(reference), rtol=1e-4, atol=1e-6)


def test_torchs_function_transforms_go_through(way: str) -> None:
    logits, target = torch.randn(6, 3), torch.arange(6) % 3
    by_row = torch.func.vmap(torch.func.grad(lambda z, y: focal(z[None], y[None], 2.0).sum()))(logits, target)
    torch.testing.assert_close(by_row, value_and_gradient(lambda z: focal(z, target, 2.0), logits)[1], rtol=1e-5, atol=1e-6)


def test_the_logits_are_left_alone_and_a_graph_may_be_used_twice(way: str) -> None:
    logits, target = torch.randn(9, 3).requires_grad_(), torch.arange(9) % 3
    before = logits.detach().clone()
    values = focal(logits, target, 2.0)
    first, second = (torch.autograd.grad(values.sum(), logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(logits.detach(), before)
    other = torch.autograd.grad(focal(logits, target, 0.5).sum() + values.sum(), logits)[0]
    torch.testing.assert_close(other - first, value_and_gradient(lambda z: focal(z, target, 0.5), before)[1])
    again = checkpoint(lambda z: focal(z, target, 2.0), logits, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(again.sum(), logits)[0], first)


def test_one_number_may_be_the_gradient_of_every_loss(way: str) -> None:
    logits, target, weights = torch.randn(9, 3).requires_grad_(), torch.arange(9) % 3, torch.rand(9)
    mean = torch.autograd.grad(focal(logits, target, 2.0).mean(), logits)[0]
    each = torch.autograd.grad((focal(logits, target, 2.0) * weights).sum(), logits)[0]
    whole = value_and_gradient(lambda z: focal(z, target, 2.0), logits.detach())[1]
    torch.testing.assert_close(mean, whole / 9)
    torch.testing.assert_close(each, whole * weights[:, None])


def test_it_compiles_whole_and_is_a_proper_operation(fused: kernels.Kernel) -> None:
    logits, target = torch.randn(32, 3).requires_grad_(), torch.arange(32) % 3
    plain = torch.autograd.grad(focal(logits, target, 2.0).sum(), logits)[0]
    compiled = torch.compile(lambda z: focal(z, target, 2.0).sum(), fullgraph=True, backend="aot_eager")
    assert torch.equal(torch.autograd.grad(compiled(logits), logits)[0], plain)
    powers, weights = torch.full((3,), 2.0), torch.ones(3)
    torch.library.opcheck(torch.ops.empathy_kit.focal.default, (logits, target, powers, weights, 2))


INT = torch.int64
WRONG: dict[str, tuple[tuple[Any, ...], str]] = {
    "one dimension": ((torch.zeros(3), torch.zeros(3, dtype=INT)), r"logits are \(3,\) torch.float32, expected \(N, C\)"),
    "one class": ((torch.zeros(3, 1), torch.zeros(3, dtype=INT)), r"with C of 2 or more"),
    "whole logits": ((torch.zeros(3, 3, dtype=INT), torch.zeros(3, dtype=INT)), "of a float type"),
    "targets of another length": ((torch.zeros(3, 3), torch.zeros(2, dtype=INT)), r"expected \(3,\) of an integer"),
    "targets of two dimensions": ((torch.zeros(3, 3), torch.zeros(3, 1, dtype=INT)), r"\(3, 1\) torch.int64, expected \(3,\)"),
    "float targets": ((torch.zeros(3, 3), torch.zeros(3)), r"torch.float32, expected \(3,\) of an integer type"),
    "true and false": ((torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool)), r"torch.bool, expected \(3,\) of an integer type"),
    "a negative gamma": ((torch.zeros(1, 3), torch.tensor([0]), -1.0), "gamma is -1.0, expected 0 or more"),
    "a gamma that is none": ((torch.zeros(1, 3), torch.tensor([0]), float("nan")), "gamma is nan"),
    "a negative gamma of a class": (
        (torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([1.0, -2.0, 0.0])),
        r"gamma is \[1.0, -2.0, 0.0\], expected 0 or more for every class",
    ),
    "too few gammas": ((torch.zeros(1, 3), torch.tensor([0]), torch.ones(2)), r"gamma is \(2,\), expected \(3,\)"),
    "a negative weight": (
        (torch.zeros(2, 3), torch.tensor([0, 1]), 2.0, torch.tensor([1.0, 2.0, -1.0])),
        r"weight is \[1.0, 2.0, -1.0\], expected 0 or more for every class",
    ),
    "a weight that is none": (
        (torch.zeros(2, 3), torch.tensor([0, 1]), 0.0, torch.tensor([torch.nan, 2.0, 1.0])),
        r"weight is \[nan, 2.0, 1.0\]",
    ),
    "a weight that is to learn": (
        (torch.zeros(1, 3), torch.tensor([0]), 2.0, torch.ones(3, requires_grad=True)),
        r"weight requires a gradient, which focal loss has for the logits alone: expected weight.detach\(\)",
    ),
    "a gamma that is to learn": ((torch.zeros(1, 3), torch.tensor([0]), torch.ones(3, requires_grad=True)), "gamma requires a"),
    "too few weights": ((torch.zeros(1, 3), torch.tensor([0]), 2.0, torch.ones(2)), r"weight is \(2,\), expected \(3,\)"),
    "a target too high": ((torch.zeros(2, 3), torch.tensor([0, 3])), "target 3 in row 1: expected 0 to 2"),
    "a negative target": ((torch.zeros(2, 3), torch.tensor([-100, 0])), "target -100 in row 0: expected 0 to 2"),
    "a target too high of many": ((torch.zeros(2, 9), torch.tensor([0, 9])), "target 9 in row 1: expected 0 to 8"),
}


@pytest.mark.parametrize("loss", [focal, focal_mean, reference])
@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_and_never_computed(way: str, case: str, loss: Callable[..., Tensor]) -> None:
    arguments, message = WRONG[case]
    logits = arguments[0].clone()
    if logits.is_floating_point():
        logits.requires_grad_()
    with pytest.raises(ValueError, match=message):
        loss(logits, *arguments[1:])


@pytest.mark.parametrize("peer", ["kornia", "monai"])
def test_peers_means_are_ours_up_to_what_they_divide_by(peer: str) -> None:
    pytest.importorskip(peer)
    logits, target = torch.randn(64, 3), torch.arange(64) % 3
    ours = focal(logits, target, 2.0)
    if peer == "kornia":
        from kornia.losses import focal_loss

        found = focal_loss(logits, target, alpha=None, gamma=2.0, reduction="mean")
    else:
        from monai.losses import FocalLoss

        found = FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True)(logits, target[:, None])
    torch.testing.assert_close(found, ours.sum() / logits.numel(), rtol=1e-5, atol=1e-6)
