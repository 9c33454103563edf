"""The kernels as operations of torch's own: a graph that `torch.compile` makes calls them through these."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from empathy_kit.core import kernels


def _has_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    return kernels.current(torch.empty(0, 3, device=device, dtype=dtype)) is not None


kernel_in_graphs = torch.compiler.assume_constant_result(_has_kernel)  # type: ignore[no-untyped-call]


def focal_in_graph(logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> Tensor:
    """Losses (N,) by a kernel; the arguments as it reads them."""
    return torch.ops.empathy_kit.focal(logits, target, gamma, weight, mode)[0]  # type: ignore[no-any-return]


def _kernel(logits: Tensor) -> kernels.Kernel:
    found = kernels.find(logits.device)
    if isinstance(found, str):
        raise RuntimeError(f"the fused kernel was called and is missing: {found}")  # noqa: TRY004 - no fault of a type
    return found


@torch.library.custom_op("empathy_kit::focal", mutates_args=())
def _focal(logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    kernels.count(fused=True)
    loss, kept = _kernel(logits).forward(logits.contiguous(), target.contiguous(), gamma, weight.contiguous(), mode)
    return loss, kept if len(kept) else logits.new_empty(0)  # an operation gives out nothing that lives on


@torch.library.custom_op("empathy_kit::focal_backward", mutates_args=())
def _focal_backward(up: Tensor, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, kept: Tensor, mode: int) -> Tensor:
    kernel = _kernel(logits)
    return kernel.backward(up, logits.contiguous(), target.contiguous(), gamma, weight.contiguous(), kept, mode)


@_focal.register_fake
def _(logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    rows, classes = logits.shape
    wide = logits.is_cuda and classes > kernels.WIDE
    return logits.new_empty(rows), logits.new_empty((rows, 2), dtype=torch.float32) if wide else logits.new_empty(0)


@_focal_backward.register_fake
def _(up: Tensor, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, kept: Tensor, mode: int) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.mode = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, up: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
    return torch.ops.empathy_kit.focal_backward(up, *ctx.saved_tensors, ctx.mode), None, None, None, None


_focal.register_autograd(_backward, setup_context=_remember)
