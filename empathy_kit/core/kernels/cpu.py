"""The C kernel of focal loss, as it is called."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from empathy_kit.core.kernels.build import UnavailableError, built

NOTHING = torch.empty(0)  # is kept for the backward pass


@dataclass(frozen=True)
class Library:
    """The compiled kernel. It takes contiguous float32 logits, and shares out many rows among torch's threads."""

    run_forward: Any
    run_backward: Any
    run_mean: Any
    name: str
    heads: bool = False

    def takes(self, logits: Tensor) -> bool:
        """Float32 alone: the other types are computed by torch, in float32."""
        return logits.dtype == torch.float32

    def forward(self, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> tuple[Tensor, Tensor]:
        """Losses (N,). One head: gamma and weight are (C,).

        Raises:
            ValueError: a target that is not a class, a negative gamma or weight.
        """
        n, classes = logits.shape
        loss = logits.new_empty(n)
        bad = self.run_forward(
            logits.data_ptr(),
            target.data_ptr(),
            n,
            classes,
            gamma.data_ptr(),
            weight.data_ptr(),
            loss.data_ptr(),
            mode,
            torch.get_num_threads(),
        )
        _refuse(bad, target, classes, gamma, weight)
        return loss, NOTHING

    def ahead(self) -> Library:
        """Itself: here the gradient is made in the backward pass."""
        return self

    def backward(
        self,
        up: Tensor,
        logits: Tensor,
        target: Tensor,
        gamma: Tensor,
        weight: Tensor,
        kept: Tensor,  # noqa: ARG002 - nothing
        mode: int,
    ) -> Tensor:
        """The logits' gradient (N, C)."""
        n, classes = logits.shape
        shared = n > 0 and up.stride(0) == 0  # as a mean's is
        up = up if shared else up.contiguous()
        gradient = torch.empty_like(logits)
        self.run_backward(
            logits.data_ptr(),
            target.data_ptr(),
            n,
            classes,
            gamma.data_ptr(),
            weight.data_ptr(),
            up.data_ptr(),
            shared,
            gradient.data_ptr(),
            mode,
            torch.get_num_threads(),
        )
        return gradient

    def mean(
        self, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int, *, gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The mean of the losses, and its gradient (N, C) in the same reading of the logits where it is wanted.

        Raises:
            ValueError: as `forward`.
        """
        if not gradient:
            return self.forward(logits, target, gamma, weight, mode)[0].mean(), None
        n, classes = logits.shape
        mean, slope = logits.new_empty(()), torch.empty_like(logits)
        bad = self.run_mean(
            logits.data_ptr(),
            target.data_ptr(),
            n,
            classes,
            gamma.data_ptr(),
            weight.data_ptr(),
            mean.data_ptr(),
            slope.data_ptr(),
            mode,
            torch.get_num_threads(),
        )
        _refuse(bad, target, classes, gamma, weight)
        return mean, slope


def load() -> Library | str:
    """The kernel, or why it is missing."""
    try:
        library = ctypes.CDLL(str(built()))
        functions = (
            library.empathy_kit_focal_forward,
            library.empathy_kit_focal_backward,
            library.empathy_kit_focal_mean,
            library.empathy_kit_focal_path,
        )
    except (UnavailableError, OSError, AttributeError) as error:
        return str(error).splitlines()[0]
    forward, backward, mean, path = functions
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    forward.argtypes = [pointer, pointer, number, number, pointer, pointer, pointer, ctypes.c_int, ctypes.c_int]
    backward.argtypes = [pointer, pointer, number, number, *[pointer] * 3, ctypes.c_int, pointer, ctypes.c_int, ctypes.c_int]
    mean.argtypes = [pointer, pointer, number, number, *[pointer] * 4, ctypes.c_int, ctypes.c_int]
    forward.restype = backward.restype = mean.restype = number
    path.restype = ctypes.c_char_p
    return Library(forward, backward, mean, f"fused CPU kernel, {path().decode()}")


def _refuse(bad: int, target: Tensor, classes: int, gamma: Tensor, weight: Tensor) -> None:
    if bad == 1:
        raise ValueError(out_of_range(target, classes))
    if bad:
        raise ValueError(negative("weight", weight) if bool((gamma >= 0).all()) else negative("gamma", gamma))


def out_of_range(target: Tensor, classes: int) -> str:
    """What is wrong with targets that are no class."""
    row = int(((target < 0) | (target >= classes)).nonzero()[0])
    return f"target {int(target[row])} in row {row}: expected 0 to {classes - 1}"


def negative(name: str, values: Tensor) -> str:
    """What is wrong with a gamma or weight that is below 0, or no number."""
    return f"{name} is {values.tolist()}, expected 0 or more for every class"
