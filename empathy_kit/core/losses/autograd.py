"""The ways to value and gradient in torch's autograd: the closed form, a kernel, and a kernel that makes the mean of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from empathy_kit.core import kernels
from empathy_kit.core.kernels.cpu import Library
from empathy_kit.core.losses.formula import by_row, check_values


class Closed(torch.autograd.Function):
    """The closed form in torch, for any type and device. The logits are read again in the backward pass, and never written."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor) -> Tensor:
        """Losses (N,) of logits (N, C) and targets (N,) int64; gamma and weight (C,)."""
        kernels.count(fused=False)
        check_values(target, logits.shape[1], *(() if logits.is_cuda else (gamma, weight)))
        ctx.save_for_backward(logits, target, gamma, weight)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        _, _, others, s, nlp = _parts(wide, target)
        power, scale = gamma[target].to(wide.dtype), weight[target].to(wide.dtype)
        return (scale * (others / s) ** power * nlp).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None, None]:
        """The logits' gradient."""
        logits, target, gamma, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(up, logits, target, gamma, weight), None, None, None
        wide = logits if logits.dtype == torch.float64 else logits.float()
        e, ey, others, s, nlp = _parts(wide, target)
        power, scale = gamma[target].to(wide.dtype), weight[target].to(wide.dtype)
        qg = (others / s) ** power
        # p nlp / q = e_y nlp / so: 1 where so is 0; 0 where e_y is, though nlp may be infinite.
        ratio = torch.where(others > 0, ey * nlp.clamp(max=torch.finfo(wide.dtype).max) / others, 1.0)
        outer = scale * (qg + power * qg * ratio) / s * up.to(wide.dtype)
        gradient = e.mul_(outer[:, None]).scatter_(1, target[:, None], -(outer * others)[:, None])
        return gradient.to(logits.dtype), None, None, None


def _parts(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What focal.c's comment makes value and gradient of: e (N, C), 0 at the target; per row: e_y, the others' sum, s, -log p."""
    top = logits.amax(1)
    e = (logits - top[:, None]).exp_()
    index = target[:, None]
    ey = e.gather(1, index)[:, 0]
    others = e.scatter_(1, index, 0.0).sum(1)
    s = ey + others
    # Where the target is the likeliest, e_y is 1, and what 1 + so has lost is put back: exact in the small.
    rest = torch.where(others < ey, (others - (s - 1)) / s, top - logits.gather(1, index)[:, 0])
    return e, ey, others, s, s.log() + rest


class Fused(torch.autograd.Function):
    """A kernel, called directly: looking up a registered operation takes longer than computing a small batch."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int, kernel: kernels.Kernel
    ) -> Tensor:
        """Losses (N,); the arguments as the kernel reads them."""
        kernels.count(fused=True)
        loss, kept = kernel.forward(logits, target, gamma, weight, mode)
        ctx.save_for_backward(logits, target, gamma, weight, kept)
        ctx.mode, ctx.kernel = mode, kernel
        return loss

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """The logits' gradient."""
        logits, target, gamma, weight, kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(up, logits, target, gamma, weight), None, None, None, None, None
        return ctx.kernel.backward(up, logits, target, gamma, weight, kept, ctx.mode), None, None, None, None, None


class FusedMean(torch.autograd.Function):
    """The mean by a kernel that makes the gradient with it."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, how: tuple[int, Library, bool]
    ) -> Tensor:
        """The mean (); how: the mode, the kernel, and whether a gradient is wanted."""
        kernels.count(fused=True)
        mode, kernel, wanted = ctx.how = how
        mean, ctx.gradient = kernel.mean(logits, target, gamma, weight, mode, gradient=wanted)
        ctx.save_for_backward(logits, target, gamma, weight)
        return mean

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The logits' gradient."""
        logits, target, gamma, weight = ctx.saved_tensors
        # Handed over: the receiver may add to it. Were it kept as well, it would be copied first.
        gradient, ctx.gradient = ctx.gradient, None
        if torch.is_grad_enabled():
            each = (up / len(target)).expand(len(target))
            return _differentiable(each, logits, target, gamma, weight), None, None, None, None
        if gradient is None:
            mode, kernel, _ = ctx.how
            gradient = kernel.mean(logits, target, gamma, weight, mode, gradient=True)[1]
        if up.item() != 1:
            gradient.mul_(up)
        return gradient, None, None, None, None


def _differentiable(up: Tensor, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor) -> Tensor:
    """The gradient as a function of the logits that can be differentiated again. Gamma and weight (H, C), or (C,)."""
    classes = logits.shape[1]
    index = target.long()
    heads = gamma.numel() // classes
    place = index if heads == 1 else torch.arange(len(index), device=index.device) % heads * classes + index
    loss = by_row(logits, index, gamma.flatten()[place], weight.flatten()[place])
    (gradient,) = torch.autograd.grad(loss, logits, up, create_graph=True)
    return gradient
