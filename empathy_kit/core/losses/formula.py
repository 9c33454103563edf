"""The formula of focal loss in torch's own operations, and what it refuses: what the kernels and the closed form are held to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from empathy_kit.core.kernels.cpu import negative, out_of_range

_INTEGERS = frozenset({torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8})


def reference(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) integers
    gamma: float | Tensor = 2.0,  # one number, or (C,): one per class
    weight: Tensor | None = None,  # (C,)
) -> Tensor:  # (N,)
    """The formula, slow and obvious. The result has the logits' type, and half precision is computed in float32.

    Raises:
        ValueError: as `focal`, on every device.
    """
    check(logits, target, gamma, weight)
    check_values(target, logits.shape[1], gamma, weight)
    return by_class(logits, target, gamma, weight)


def by_class(logits: Tensor, target: Tensor, gamma: float | Tensor, weight: Tensor | None) -> Tensor:
    """`reference` of arguments that were checked before, or cannot be: a transform or a graph holds no values yet."""
    index = target.long()
    power = gamma[index] if isinstance(gamma, Tensor) else gamma
    return by_row(logits, index, power, None if weight is None else weight.detach()[index])


def by_row(
    logits: Tensor,  # (N, C)
    index: Tensor,  # (N,) int64
    power: float | Tensor,  # (N,): gamma
    scale: Tensor | None,  # (N,): the weight
) -> Tensor:  # (N,)
    """The formula with a gamma and a weight per row.

    Written through the margin ``m = z_y - logsumexp(z_j, j != y)``: p = sigmoid(m), so ``1 - p = sigmoid(-m)`` is never taken
    as a difference, and its logarithm stays finite where 1 - p underflows. Hence no NaN for 0 < gamma < 1 on saturated
    rows, and no lost tail on confident ones, both of which the composition through softmax has.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    others = wide.scatter(1, index[:, None], -torch.inf)
    margin = wide.gather(-1, index[:, None])[:, 0] - others.logsumexp(-1)  # (N,)
    # Bounded, or gamma 0 times the logarithm of a 1 - p that is 0 would be NaN.
    loss = torch.exp(power * F.logsigmoid(-margin).clamp(min=-1e30)) * -F.logsigmoid(margin)
    return (loss if scale is None else scale * loss).to(logits.dtype)


def check(logits: Tensor, target: Tensor, gamma: float | Tensor, weight: Tensor | None) -> None:
    """Shapes, types and single numbers, none of which takes a look into a tensor.

    Raises:
        ValueError: what does not fit, and what was expected.
    """
    shape = logits.shape
    if len(shape) != 2 or shape[1] < 2 or not logits.is_floating_point():
        raise ValueError(f"logits are {tuple(shape)} {logits.dtype}, expected (N, C) of a float type with C of 2 or more")
    if target.dim() != 1 or len(target) != shape[0] or target.dtype not in _INTEGERS:
        raise ValueError(f"targets are {tuple(target.shape)} {target.dtype}, expected ({shape[0]},) of an integer type")
    if weight is not None:
        _check_per_class("weight", weight, shape)
    if isinstance(gamma, Tensor):
        _check_per_class("gamma", gamma, shape)
    elif not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma is {gamma}, expected 0 or more")


def _check_per_class(name: str, values: Tensor, shape: torch.Size) -> None:
    if values.shape != shape[1:]:
        raise ValueError(f"{name} is {tuple(values.shape)}, expected ({shape[1]},): one per class")
    # It would get none, and a parameter that never learns looks like one that has converged.
    if values.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient, which focal loss has for the logits alone: expected {name}.detach()")


def check_values(target: Tensor, classes: int, gamma: float | Tensor, weight: Tensor | None) -> None:
    """What tensors hold; on a GPU that waits for the device.

    Raises:
        ValueError: a target that is not a class, a negative gamma or weight.
    """
    if len(target) and not bool(((target >= 0) & (target < classes)).all()):
        raise ValueError(out_of_range(target, classes))
    for name, values in (("gamma", gamma), ("weight", weight)):
        if isinstance(values, Tensor) and not bool((values >= 0).all()):
            raise ValueError(negative(name, values))
