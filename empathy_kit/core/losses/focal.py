"""Focal loss, of which cross-entropy and its weighted kind are cases: the formula, its closed form, and the fused kernel."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from empathy_kit.core.kernels import cpu


def focal(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) int64, int32 or int8
    gamma: float | Tensor = 2.0,  # one number, or (C,) float32: one a class
    weight: Tensor | None = None,  # (C,) float32
) -> Tensor:  # (N,)
    """Softmax focal loss ``w_y (1 - p)^gamma * -log p`` of the target's probability p, an item (Lin et al., arXiv 1708.02002).

    The weight stands outside the power, and p is the unweighted probability. Gamma 0 is cross-entropy. On a CPU in float32 a C
    kernel reads the logits once; elsewhere torch computes the closed form; both have the formula's numbers.

    Raises:
        ValueError: shapes or types that do not fit, or a target that is no class.
    """
    _check(logits, target, gamma, weight)
    if _is_transformed(logits):  # functorch, or a second derivative of one: torch's own rules go through the formula
        return reference(logits, target, gamma, weight)
    classes = logits.shape[1]
    if isinstance(gamma, Tensor):
        powers, mode = gamma.detach().float(), cpu.ANY
    else:
        powers, mode = _same(float(gamma), classes, logits.device), cpu.MODES.get(gamma, cpu.ANY)
    weights = _same(1.0, classes, logits.device) if weight is None else weight.detach().float()
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        if torch.compiler.is_compiling():
            if _kernel_in_graphs():
                return torch.ops.empathy_kit.focal(logits, target.long(), powers, weights, mode)  # type: ignore[no-any-return]
            return reference(logits, target, gamma, weight)
        kernel = cpu.load()
        if isinstance(kernel, cpu.Kernel):
            return _Fused.apply(logits.contiguous(), target.long().contiguous(), powers, weights.contiguous(), mode)  # type: ignore[no-any-return,no-untyped-call]
    if torch.compiler.is_compiling():
        return reference(logits, target, gamma, weight)
    return _Closed.apply(logits, target.long(), powers, weights)  # type: ignore[no-any-return,no-untyped-call]


def reference(logits: Tensor, target: Tensor, gamma: float | Tensor = 2.0, weight: Tensor | None = None) -> Tensor:
    """The formula, slow and obvious, in torch's own operations: what the others are held to. Arguments as `focal`.

    Written through the margin ``m = z_y - logsumexp(z_j, j != y)``: p = sigmoid(m), so ``1 - p = sigmoid(-m)`` is never taken
    as a difference, and its logarithm stays finite where 1 - p underflows. Hence no NaN for 0 < gamma < 1 on saturated
    items, and no lost tail on confident ones, both of which the composition through softmax has.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    index = target.long()
    others = wide.scatter(1, index[:, None], -torch.inf)
    margin = wide.gather(-1, index[:, None])[:, 0] - others.logsumexp(-1)  # (N,)
    power = gamma[index] if isinstance(gamma, Tensor) else gamma
    # Bounded, or gamma 0 times the logarithm of a 1 - p that is 0 would be no number.
    loss = torch.exp(power * F.logsigmoid(-margin).clamp(min=-1e30)) * -F.logsigmoid(margin)
    return (loss if weight is None else weight.detach()[index] * loss).to(logits.dtype)


def _check(logits: Tensor, target: Tensor, gamma: float | Tensor, weight: Tensor | None) -> None:
    if logits.dim() != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ValueError(f"logits are {tuple(logits.shape)} {logits.dtype}, expected (N, C) of a float type with C of 2 or more")
    if target.shape != logits.shape[:1] or target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"targets are {tuple(target.shape)} {target.dtype}, expected ({logits.shape[0]},) of an integer type")
    for name, value in (("weight", weight), ("gamma", gamma)):
        if isinstance(value, Tensor) and value.shape != logits.shape[1:]:
            raise ValueError(f"{name} is {tuple(value.shape)}, expected ({logits.shape[1]},): one a class")
    if not isinstance(gamma, Tensor) and not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma is {gamma}, expected 0 or more")


@functools.lru_cache(maxsize=64)
def _kept(value: float, classes: int, device: torch.device) -> Tensor:
    return torch.full((classes,), value, device=device)


def _same(value: float, classes: int, device: torch.device) -> Tensor:
    """One number for all classes; made once, for a small batch takes less time than this. A graph holds its own."""
    return torch.full((classes,), value, device=device) if torch.compiler.is_compiling() else _kept(value, classes, device)


def _is_transformed(logits: Tensor) -> bool:
    return not torch.compiler.is_compiling() and bool(torch._C._functorch.is_functorch_wrapped_tensor(logits))


def _parts(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What value and gradient are made of: e (N, C), and a row: e of the target, the others' sum, s, q = 1 - p, and -log p."""
    top = logits.amax(1, keepdim=True)
    e = (logits - top).exp()
    index = target[:, None]
    ey = e.gather(1, index)
    others = e.scatter(1, index, 0.0).sum(1, keepdim=True)
    s = ey + others
    # Each branch where it is exact; the other's values are finite, so where() lets no NaN through.
    sure = others < ey
    small = (others / ey.where(sure, torch.ones_like(ey))).where(sure, torch.zeros_like(ey)).log1p()
    nlp = small.where(sure, s.log() + (top - logits.gather(1, index)))
    return e, ey, others, s, others / s, nlp


class _Closed(torch.autograd.Function):
    """The closed form in torch, for any type and device. The logits are read again in the backward pass, and never written."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor) -> Tensor:
        if len(target) and not bool(((target >= 0) & (target < logits.shape[1])).all()):
            raise ValueError(cpu.out_of_range(target, logits.shape[1]))
        ctx.save_for_backward(logits, target, gamma, weight)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        _, _, _, _, q, nlp = _parts(wide, target)
        power, scale = gamma[target][:, None].to(wide.dtype), weight[target][:, None].to(wide.dtype)
        return (scale * q**power * nlp)[:, 0].to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None, None]:
        logits, target, gamma, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(up, logits, target, gamma, weight), None, None, None
        wide = logits if logits.dtype == torch.float64 else logits.float()
        e, ey, others, s, q, nlp = _parts(wide, target)
        power, scale = gamma[target][:, None].to(wide.dtype), weight[target][:, None].to(wide.dtype)
        qg = q**power
        ratio = (nlp / q.where(q > 0, torch.ones_like(q))).where(q > 0, torch.ones_like(q))
        p = ey / s
        k = qg + power * qg * (p * ratio).where(p > 0, torch.zeros_like(p))
        outer = scale * k * up[:, None].to(wide.dtype) / s
        return (e * outer).scatter(1, target[:, None], -(outer * others)).to(logits.dtype), None, None, None


class _Fused(torch.autograd.Function):
    """The C kernel, called directly: a registered operation takes longer to be found than a small batch to be computed."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> Tensor:
        ctx.save_for_backward(logits, target, gamma, weight)
        ctx.mode = mode
        return cpu.run_forward(_kernel(), logits, target, gamma, weight, mode)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, target, gamma, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(up, logits, target, gamma, weight), None, None, None, None
        return cpu.run_backward(_kernel(), up, logits, target, gamma, weight, ctx.mode), None, None, None, None


def _differentiable(up: Tensor, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor) -> Tensor:
    """The gradient as a function of the logits that can be differentiated again."""
    (gradient,) = torch.autograd.grad(reference(logits, target, gamma, weight), logits, up, create_graph=True)
    return gradient


def _kernel() -> cpu.Kernel:
    found = cpu.load()
    if not isinstance(found, cpu.Kernel):
        raise RuntimeError(f"the fused kernel was called and is not there: {found}")  # noqa: TRY004 - no fault of a type
    return found


def _has_kernel() -> bool:
    return isinstance(cpu.load(), cpu.Kernel)


_kernel_in_graphs = torch.compiler.assume_constant_result(_has_kernel)  # type: ignore[no-untyped-call]


@torch.library.custom_op("empathy_kit::focal", mutates_args=())
def _focal_op(logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> Tensor:
    return cpu.run_forward(_kernel(), logits.contiguous(), target.contiguous(), gamma, weight.contiguous(), mode)


@torch.library.custom_op("empathy_kit::focal_backward", mutates_args=())
def _focal_backward_op(up: Tensor, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> Tensor:
    return cpu.run_backward(_kernel(), up, logits.contiguous(), target.contiguous(), gamma, weight.contiguous(), mode)


@_focal_op.register_fake
def _(logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> Tensor:
    return logits.new_empty(logits.shape[0])


@_focal_backward_op.register_fake
def _(up: Tensor, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.mode = inputs
    ctx.save_for_backward(*tensors)


def _op_backward(ctx: Any, up: Tensor) -> tuple[Tensor, None, None, None, None]:
    return torch.ops.empathy_kit.focal_backward(up, *ctx.saved_tensors, ctx.mode), None, None, None, None


_focal_op.register_autograd(_op_backward, setup_context=_remember)
