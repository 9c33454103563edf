"""The mean of a batch in one reading: the rows' numbers, and a gradient that is made once and given away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from exactness import CLASSES, GAMMAS, allowed_error, exact, hard_rows, value_and_gradient
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from empathy_kit.core import kernels
from empathy_kit.core.losses.focal import focal, focal_mean
from empathy_kit.core.losses.formula import reference


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("classes", CLASSES)
def test_the_mean_and_its_gradient_are_right_on_every_row(way: str, classes: int, gamma: float) -> None:
    """With the rows' bound, and a rounding more for the division by N."""
    logits = hard_rows(classes)
    target = torch.arange(len(logits)) % classes
    weight = torch.linspace(0.25, 3, classes)
    value, gradient = value_and_gradient(lambda z: focal_mean(z, target, gamma, weight), logits)
    expected, slope = exact(logits, target, gamma, weight)
    torch.testing.assert_close(value.double(), expected.mean(), rtol=1e-6, atol=0)
    if way == "fused":
        allowed = (allowed_error(logits, gamma) + 2 * 2**-24) * slope.abs().amax(1) + 1e-36
        assert ((gradient.double() * len(target) - slope).abs().amax(1) <= allowed).all()
    each = value_and_gradient(lambda z: focal(z, target, gamma, weight), logits)[1]
    torch.testing.assert_close(gradient * len(target), each, rtol=1e-6, atol=1e-30)


def test_the_mean_leaves_the_logits_alone_and_its_graph_may_be_used_twice(way: str) -> None:
    logits, target = torch.randn(9, 3).requires_grad_(), torch.arange(9) % 3
    before = logits.detach().clone()
    mean = focal_mean(logits, target, 2.0)
    (first,) = torch.autograd.grad(mean, logits, retain_graph=True)
    kept = first.clone()
    first.zero_()  # whoever was given the gradient may do with it as he likes
    (second,) = torch.autograd.grad(mean, logits, retain_graph=True)
    assert torch.equal(second, kept)
    torch.testing.assert_close(torch.autograd.grad(1024 * mean, logits)[0], 1024 * kept)  # as AMP scales a loss
    assert torch.equal(logits.detach(), before)
    for _ in range(2):
        focal_mean(logits, target, 2.0).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, 2 * kept)
    again = checkpoint(lambda z: focal_mean(z, target, 2.0), logits, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(again, logits)[0], kept)


@pytest.mark.parametrize("changed", range(4), ids=["logits", "target", "gamma", "weight"])
def test_what_was_changed_meanwhile_is_no_longer_gone_back_to(way: str, changed: int) -> None:
    logits, target = torch.randn(9, 3).requires_grad_(), torch.arange(9) % 3
    given = (logits * 1, target, torch.full((3,), 2.0), torch.ones(3))
    mean = focal_mean(*given)
    torch.autograd.grad(mean, logits, retain_graph=True)
    with torch.no_grad():
        given[changed].mul_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(mean, logits)


@pytest.mark.parametrize("loss", [lambda *given: focal(*given).mean(), focal_mean], ids=["one loss per row", "mean"])
def test_torchs_defaults_and_an_earlier_prediction_change_nothing(way: str, loss: Callable[..., Tensor]) -> None:
    """What is kept from call to call is float32, whatever was the default, and may be gone back through."""
    logits, target = torch.randn(9, 3), torch.arange(9) % 3
    for gamma in (1.25, 1.375):  # which no other test has asked for before
        torch.set_default_dtype(torch.float64)
        try:
            with torch.inference_mode():
                first = loss(logits, target, gamma)
        finally:
            torch.set_default_dtype(torch.float32)
        value, gradient = value_and_gradient(lambda z, g=gamma: loss(z, target, g), logits)  # type: ignore[misc]
        expected, slope = exact(logits, target, gamma)
        torch.testing.assert_close(value.double(), expected.mean(), rtol=1e-6, atol=0)
        torch.testing.assert_close(first, value)
        torch.testing.assert_close(gradient.double() * 9, slope, rtol=1e-5, atol=1e-7)


def test_a_view_that_negates_is_read_as_it_shows(way: str) -> None:
    logits, target = torch.randn(9, 3), torch.arange(9) % 3
    view = torch._neg_view(logits)
    assert torch.equal(focal_mean(view, target, 2.0), focal_mean(-logits, target, 2.0))
    assert torch.equal(focal(view, target, 2.0), focal(-logits, target, 2.0))


def test_the_means_second_derivative_and_transforms_are_the_formulas(way: str) -> None:
    target = torch.arange(6) % 3

    def curvature(mean: Callable[[Tensor, Tensor, float], Tensor]) -> Tensor:
        logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
        (gradient,) = torch.autograd.grad(mean(logits, target, 2.0), logits, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), logits)[0]

    torch.testing.assert_close(curvature(focal_mean), curvature(lambda *a: reference(*a).mean()), rtol=1e-4, atol=1e-6)
    logits = torch.randn(6, 3)
    slope = torch.func.grad(lambda z: focal_mean(z, target, 2.0))(logits)
    torch.testing.assert_close(slope, value_and_gradient(lambda z: focal_mean(z, target, 2.0), logits)[1], rtol=1e-5, atol=1e-6)


def test_a_mean_without_a_gradient_and_one_of_nothing(way: str) -> None:
    logits, target = torch.randn(9, 3), torch.arange(9) % 3
    torch.testing.assert_close(focal_mean(logits, target, 2.0), focal(logits, target, 2.0).mean())
    assert not focal_mean(logits, target, 2.0).requires_grad
    with torch.no_grad():
        assert not focal_mean(logits.requires_grad_(), target, 2.0).requires_grad
    value, gradient = value_and_gradient(lambda z: focal_mean(z, target[:0], 2.0), logits.detach()[:0])
    assert value.isnan()
    assert gradient.shape == (0, 3)


def test_threads_share_the_rows_of_a_mean(fused: kernels.Kernel) -> None:
    logits, target = torch.randn(20_011, 3, generator=torch.Generator().manual_seed(2)), torch.arange(20_011) % 3
    expected, slope = exact(logits, target, 2.0)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 1000):
            torch.set_num_threads(threads)
            found.append([value_and_gradient(lambda z: focal_mean(z, target, 2.0), logits) for _ in range(3)])
    finally:
        torch.set_num_threads(before)
    for again in found:
        for value, gradient in again:
            assert torch.equal(value, again[0][0])  # the same call, the same bits
            assert torch.equal(gradient, found[0][0][1])
            torch.testing.assert_close(value.double(), expected.mean(), rtol=1e-7, atol=0)
            torch.testing.assert_close(gradient.double(), slope / len(target), rtol=1e-5, atol=1e-12)
