"""The Triton kernels on a GPU, NVIDIA's or AMD's. Imported where one is used alone: triton is an extra.

There are three layouts, by the number of classes:

- few: one thread per row, its classes unrolled; the rows of several heads, each with its own gamma and weights, are one launch;
- some: one program per row, held in registers, one read and one write;
- many: two passes over blocks, the softmax's sum kept up on the way; the forward pass leaves each row's maximum and sum for the
  backward pass, which so reads the logits once.

No pass waits for the device: to raise at a target that is no class, the host would have to.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from empathy_kit.core.kernels import WIDE
from empathy_kit.core.kernels.focal_triton import few, many, some

FEW = 16  # classes
ROWS = 128  # of a program with few classes: four warps, one row per thread
BLOCK = 8192  # columns of a program with many classes
FORWARD, EACH, SHARED, BOTH = 0, 1, 2, 3  # losses; gradients, from one per loss or one for all; losses and their own gradients
TYPES = (torch.float32, torch.bfloat16, torch.float16)
# Multiplications and additions may become one rounding. Said, for triton 3.10 changes what is meant where nothing is.
FUSION = {"enable_fp_fusion": True}


@dataclass(frozen=True)
class Triton:
    """The kernels on one GPU or another."""

    early: bool = False  # the gradient is made in the forward pass, and only multiplied in the backward pass
    heads: bool = True
    name: str = f"fused GPU kernels, triton {triton.__version__}"

    def takes(self, logits: Tensor) -> bool:
        """Float32, bfloat16 and float16; fewer than 2^31 rows."""
        return logits.dtype in TYPES and len(logits) < 2**31 - ROWS

    def ahead(self) -> Triton:
        """The same, making the gradient in the forward pass."""
        return replace(self, early=True)

    def forward(self, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> tuple[Tensor, Tensor]:
        """Losses (N,), NaN where a target is not a class; for the backward pass the gradients, or maxima and sums, or nothing."""
        loss = logits.new_empty(len(logits))
        parts = logits.new_empty((len(logits), 2), dtype=torch.float32) if layout(logits) is many else loss
        gradient = torch.empty_like(logits) if self.early else loss
        self._launch(logits, target, gamma, weight, loss, loss, gradient, parts, BOTH if self.early else FORWARD, mode)
        return loss, gradient if self.early else parts if parts is not loss else logits.new_empty(0)

    def backward(
        self, up: Tensor, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, kept: Tensor, mode: int
    ) -> Tensor:
        """The logits' gradient (N, C)."""
        if self.early:
            return kept * up[:, None]
        shared = len(up) > 0 and up.stride(0) == 0  # as a mean's is
        gradient = torch.empty_like(logits)
        up = up if shared else up.contiguous()
        self._launch(logits, target, gamma, weight, up, up, gradient, kept, SHARED if shared else EACH, mode)
        return gradient

    def _launch(
        self,
        logits: Tensor,
        target: Tensor,
        gamma: Tensor,
        weight: Tensor,
        up: Tensor,
        loss: Tensor,
        gradient: Tensor,
        parts: Tensor,
        way: int,
        mode: int,
    ) -> None:
        n, classes = logits.shape
        if not n:
            return
        kernel = layout(logits)
        options: dict[str, Any] = {"WAY": way, "MODE": mode, **FUSION}
        # Triton launches on the device that is current, whatever the tensors' is.
        with torch.cuda.device(logits.device) if logits.is_cuda else nullcontext():
            if kernel is few:
                grid = (triton.cdiv(n, ROWS),)
                few[grid](
                    logits,
                    target,
                    gamma,
                    weight,
                    up,
                    loss,
                    gradient,
                    n,
                    C=classes,
                    HEADS=gamma.numel() // classes,
                    ROWS=ROWS,
                    num_warps=4,
                    **options,
                )
            elif kernel is some:
                columns = triton.next_power_of_2(classes)
                some[(n,)](
                    logits,
                    target,
                    gamma,
                    weight,
                    up,
                    loss,
                    gradient,
                    classes,
                    COLUMNS=columns,
                    num_warps=warps(columns),
                    **options,
                )
            else:
                many[(n,)](
                    logits, target, gamma, weight, up, loss, gradient, parts, classes, COLUMNS=BLOCK, num_warps=8, **options
                )


def layout(logits: Tensor) -> Any:
    """The kernel for (N, C) logits."""
    classes = logits.shape[1]
    if classes <= FEW:
        return few
    return some if classes <= WIDE else many


def warps(columns: int) -> int:
    """Of a program per row: 32 columns per thread, while there are that many."""
    return min(max(columns // 1024, 1), 16)
