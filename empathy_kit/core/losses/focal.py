"""Focal loss, of which cross-entropy and its weighted kind are cases, in the fastest exact way that there is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from empathy_kit.core import kernels
from empathy_kit.core.kernels.cpu import Library
from empathy_kit.core.losses.autograd import Closed, Fused, FusedMean
from empathy_kit.core.losses.formula import by_class, check
from empathy_kit.core.losses.graphs import focal_in_graph, kernel_in_graphs


def focal(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) int64, int32 or int8
    gamma: float | Tensor = 2.0,  # one number, or (C,) float32: one per class
    weight: Tensor | None = None,  # (C,) float32
    *,
    ahead: bool = False,
) -> Tensor:  # (N,)
    """Softmax focal loss ``w_y (1 - p)^gamma * -log p`` of the target's probability p, per item (Lin et al., arXiv 1708.02002).

    The weight is outside the power, and p is the unweighted probability. Gamma 0 is cross-entropy. A fused kernel reads the
    logits once, where there is one: in C for float32 on a CPU, in Triton for float32 and half precision on a GPU. Elsewhere torch
    computes the closed form. All have the formula's numbers, and compute half precision in float32. Only the logits get a
    gradient, which can be differentiated again.

    The logits are read again in the backward pass; ``ahead`` has a GPU make the gradient in the forward pass instead, which saves
    that reading and keeps a tensor of the logits' size until then.

    Raises:
        ValueError: shapes or types that do not fit, a gamma or weight that requires a gradient, a target that is not a class, a
            negative gamma or weight; of what it finds in a tensor a GPU's kernel cannot raise without waiting for the device: it
            gives such a row NaN, loss and gradient.
    """
    check(logits, target, gamma, weight)
    if _is_transformed(logits):  # functorch, or a second derivative of one: torch's own rules go through the formula
        return by_class(logits, target, gamma, weight)
    powers, weights, mode = _numbers(logits, gamma, weight)
    return _focal(logits, target, powers, weights, mode, ahead)


def focal_mean(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) integers
    gamma: float | Tensor = 2.0,
    weight: Tensor | None = None,
) -> Tensor:  # ()
    """The mean of `focal`. The CPU's kernel makes it and its gradient in one reading of the logits.

    The gradient is kept from the forward to the backward pass, also where a checkpoint keeps nothing else, and given away then; a
    graph that is gone back through again makes it anew.

    Raises:
        ValueError: as `focal`.
    """
    if torch.compiler.is_compiling() or _is_transformed(logits) or not isinstance(kernel := kernels.current(logits), Library):
        return focal(logits, target, gamma, weight).mean()
    check(logits, target, gamma, weight)
    powers, weights, mode = _numbers(logits, gamma, weight)
    how = mode, kernel, torch.is_grad_enabled() and logits.requires_grad
    return FusedMean.apply(_plain_rows(logits), _whole(target), powers, weights, how)  # type: ignore[no-any-return,no-untyped-call]


def focal_heads(
    logits: Tensor,  # (N, T, C)
    target: Tensor,  # (N, T) integers
    gamma: Sequence[float],  # T
    weight: Sequence[Tensor | None],  # T of (C,) float32
) -> Tensor:  # (N, T)
    """`focal` of T heads with as many classes each, in one launch where a GPU's kernel computes it.

    Raises:
        ValueError: as `focal`; on a GPU's kernel a target that is not a class gives NaN instead.
    """
    if not in_one_call(logits) or _is_transformed(logits):
        heads = (focal(logits[:, head], target[:, head], gamma[head], weight[head]) for head in range(len(gamma)))
        return torch.stack(list(heads), 1)
    classes = logits.shape[2]
    for head in range(len(gamma)):
        check(logits[:, head], target[:, head], gamma[head], weight[head])
    powers = _rows(tuple(gamma), classes, logits.device)
    ones = _same(1.0, classes, logits.device)
    weights = torch.stack([ones if given is None else _plain(given) for given in weight])
    mode = kernels.MODES.get(gamma[0], kernels.ANY) if len(set(gamma)) == 1 else kernels.ANY
    return _focal(logits.flatten(0, 1), target.flatten(), powers, weights, mode).reshape(target.shape)


def in_one_call(logits: Tensor) -> bool:
    """Whether a kernel computes several heads' rows at once."""
    kernel = None if torch.compiler.is_compiling() else kernels.current(logits)
    return kernel is not None and kernel.heads


class FocalLoss(nn.Module):
    """`focal` with its options: (N, C), (N,) -> (N,). The weights are not normalised.

    Raises:
        ValueError: a gamma or weight that is negative, infinite or no number.
    """

    weight: Tensor | None  # (C,) float32

    def __init__(self, gamma: float = 2.0, weight: Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma is {gamma}, expected 0 or more")
        self.gamma = gamma
        weights = None if weight is None else torch.as_tensor(weight, dtype=torch.float32).detach().clone()
        if weights is not None and not bool(((weights >= 0) & weights.isfinite()).all()):
            raise ValueError(f"weight is {weights.tolist()}, expected 0 or more for every class")
        self.register_buffer("weight", weights)

    def forward(
        self,
        logits: Tensor,  # (N, C)
        target: Tensor,  # (N,) integers
    ) -> Tensor:  # (N,)
        return focal(logits, target, self.gamma, self.weight)

    def mean(
        self,
        logits: Tensor,  # (N, C)
        target: Tensor,  # (N,) integers
    ) -> Tensor:  # ()
        """The mean of what it gives, in one pass where a kernel can."""
        return focal_mean(logits, target, self.gamma, self.weight)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_focal(criterion: object) -> TypeGuard[FocalLoss]:
    """Whether a criterion's values are `FocalLoss`'s own: then its mean can be taken at once, and several be one launch.

    A subclass that only chooses gamma and weight is one. A subclass that computes anything itself is called as it is.
    """
    if not isinstance(criterion, FocalLoss) or {"forward", "mean"} & vars(criterion).keys():
        return False
    kind = type(criterion)
    computed = (kind.forward, kind.mean, kind.__call__) == (FocalLoss.forward, FocalLoss.mean, FocalLoss.__call__)
    return computed and isinstance(criterion.gamma, int | float) and not any(getattr(criterion, hooks) for hooks in _HOOKS)


def _focal(logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int, ahead: bool = False) -> Tensor:
    """Logits (N, C), targets (N,), gamma and weight (C,) or (H, C) -> (N,), in the fastest way that there is."""
    if torch.compiler.is_compiling():
        if kernel_in_graphs(logits.device, logits.dtype):
            return focal_in_graph(logits, _whole(target), gamma, weight, mode)
        return by_class(logits, target, gamma, weight)
    kernel = kernels.current(logits)
    if kernel is None:
        return Closed.apply(logits, target.long(), gamma, weight)  # type: ignore[no-any-return,no-untyped-call]
    kernel = kernel.ahead() if ahead else kernel
    return Fused.apply(_plain_rows(logits), _whole(target), gamma.contiguous(), weight.contiguous(), mode, kernel)  # type: ignore[no-any-return,no-untyped-call]


def _numbers(logits: Tensor, gamma: float | Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, int]:
    """Gamma and weight as the kernels read them, (C,) float32 each, and the way through a kernel."""
    classes = logits.shape[1]
    weights = _same(1.0, classes, logits.device) if weight is None else _plain(weight)
    if isinstance(gamma, Tensor):
        return _plain(gamma), weights, kernels.ANY
    return _same(float(gamma), classes, logits.device), weights, kernels.MODES.get(gamma, kernels.ANY)


def _plain_rows(logits: Tensor) -> Tensor:
    """As they lie in memory: end to end, and no view that negates what it shows."""
    return logits.contiguous().resolve_neg()


def _whole(target: Tensor) -> Tensor:
    """Targets as the kernels read them: a CPU's are int64, a GPU's of any width."""
    return (target.long() if target.is_cpu else target).contiguous()


def _plain(values: Tensor) -> Tensor:
    """Float32 without a gradient, end to end; mostly it is that already, and asking is quicker than making it so."""
    plain = values.detach().float() if values.requires_grad or values.dtype != torch.float32 else values
    return plain if plain.is_contiguous() else plain.contiguous()


def _same(value: float, classes: int, device: torch.device) -> Tensor:
    """One number for all classes, (C,); made once, for a small batch takes less time than this. A graph holds its own."""
    if torch.compiler.is_compiling():
        return torch.full((classes,), value, device=device, dtype=torch.float32)
    return _kept(value, classes, device)


@functools.lru_cache(maxsize=64)
def _kept(value: float, classes: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a tensor of inference could not be saved for a backward pass later
        return torch.full((classes,), value, device=device, dtype=torch.float32)


@functools.lru_cache(maxsize=64)
def _rows(values: tuple[float, ...], classes: int, device: torch.device) -> Tensor:
    """One number per head -> (H, C)."""
    with torch.inference_mode(False):  # as above
        return torch.tensor(values, device=device, dtype=torch.float32)[:, None].repeat(1, classes)


def _is_transformed(logits: Tensor) -> bool:
    return not torch.compiler.is_compiling() and bool(torch._C._functorch.is_functorch_wrapped_tensor(logits))
