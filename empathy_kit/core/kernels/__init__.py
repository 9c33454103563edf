"""Fused kernels of focal loss and its kin: which there are here, whether they are wanted, and whether they were used."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from empathy_kit.core.kernels.cpu import Library, load

MODES = {0.0: 0, 1.0: 1, 2.0: 2}  # gamma to its own way through a kernel
ANY = 3  # other gammas, or one per class
WIDE = 16_384  # classes: beyond, a GPU holds no whole row in registers, and reads it in blocks

Choice = Literal["auto", "on", "off"]


@dataclass
class Use:
    """What a stretch of code may use of the kernels, and what it has used."""

    choice: Choice
    calls: int = 0  # of the kit's losses
    fused: int = 0  # of these calls, by a kernel


# Per thread and task, or what one chooses another would lose. A device's own backward threads see the default: nothing is chosen
# in a backward pass.
_use: ContextVar[Use] = ContextVar("fused")


class Kernel(Protocol):
    """A fused kernel on one kind of device."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    @property
    def heads(self) -> bool:
        """Whether one call computes the rows of several heads."""

    def takes(self, logits: Tensor) -> bool:
        """Whether logits (N, C) are of a type and size that it computes."""

    def ahead(self) -> Kernel:
        """The same, making the gradient in the forward pass, where it can."""

    def forward(
        self,
        logits: Tensor,  # (N, C)
        target: Tensor,  # (N,) integers
        gamma: Tensor,  # (C,), or (H, C): row n belongs to head n % H; float32
        weight: Tensor,  # the same
        mode: int,
    ) -> tuple[Tensor, Tensor]:  # (N,), and what `backward` wants to be given
        """The losses."""

    def backward(
        self,
        up: Tensor,  # (N,)
        logits: Tensor,
        target: Tensor,
        gamma: Tensor,
        weight: Tensor,
        kept: Tensor,
        mode: int,
    ) -> Tensor:  # (N, C)
        """The logits' gradient, from that of the losses, which may be one number for all."""


@contextmanager
def fused(choice: Choice) -> Iterator[Use]:
    """In this thread, for a while: kernels where there are any, or torch alone (off); gives what was used meanwhile."""
    use = Use(choice)
    token = _use.set(use)
    try:
        yield use
    finally:
        _use.reset(token)


def choice() -> Choice:
    """What holds here."""
    use = _use.get(None)
    return "auto" if use is None else use.choice


def count(*, fused: bool) -> None:
    """One call of a loss, by a kernel or by torch."""
    use = _use.get(None)
    if use is not None:
        use.calls += 1
        use.fused += fused


def current(logits: Tensor) -> Kernel | None:
    """The kernel that is to compute these logits' losses, if any."""
    if choice() == "off":
        return None
    found = find(logits.device)
    return None if isinstance(found, str) or not found.takes(logits) else found


def status(device: torch.device) -> str:
    """Which way focal loss and cross-entropy take on a device, and why."""
    if choice() == "off":
        return "closed form in torch: fused kernels are off"
    found = find(device)
    return f"closed form in torch, no fused kernel: {found}" if isinstance(found, str) else found.name


@functools.cache
def find(device: torch.device) -> Kernel | str:
    """A device's kernel, or why it is missing; checked against the formula before it is first used."""
    if device.type == "cpu":
        found: Kernel | str = load()
    elif device.type == "cuda":  # ROCm's too
        found = _load_triton()
    else:
        return f"none is written for {device.type}"
    if isinstance(found, str):
        return found
    try:
        right = is_right(found, device)
    except Exception as error:  # another triton, driver or compiler fails as it likes; it is reported, and torch continues
        return f"{found.name}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return found if right else f"{found.name}: it gives other numbers than the formula"


def _load_triton() -> Kernel | str:
    try:
        from empathy_kit.core.kernels import gpu
    except ImportError as error:
        return f"{error}; pip install 'empathy-kit[gpu]'"
    return gpu.Triton()


@torch.inference_mode(mode=False)  # it may be asked first by an evaluation, whose tensors have no gradient
def is_right(kernel: Kernel, device: torch.device) -> bool:
    """Whether it agrees with the formula on a few rows, the ends among them: a compiler may be wrong too."""
    from empathy_kit.core.losses.formula import by_class

    for classes in (3, 20):
        logits = torch.linspace(-9, 9, 40 * classes).mul(1.7).sin().mul(12).reshape(40, classes)
        logits[0, 0], logits[1, 1] = 1e4, -1e4
        target = torch.arange(40) % classes
        for power in (0.0, 0.5, 1.0, 2.0):
            gamma, weight = torch.full((classes,), power), torch.linspace(0.5, 2, classes)
            formula = functools.partial(by_class, target=target, gamma=gamma.double(), weight=weight.double())
            expected, pulled, *_ = torch.func.vjp(formula, logits.double())
            (slope,) = pulled(torch.ones_like(expected))
            z, y, g, w = (tensor.to(device) for tensor in (logits, target, gamma, weight))
            mode = MODES.get(power, ANY)
            found, kept = kernel.forward(z, y, g, w, mode)
            if not torch.allclose(found.double().cpu(), expected, rtol=1e-5, atol=1e-30):
                return False
            gradient = kernel.backward(torch.ones(40, device=device), z, y, g, w, kept, mode)
            if not torch.allclose(gradient.double().cpu(), slope, rtol=1e-4, atol=1e-7):
                return False
            if isinstance(kernel, Library):
                mean, ahead = kernel.mean(z, y, g, w, mode, gradient=True)
                if ahead is None or not torch.allclose(mean.double(), expected.mean(), rtol=1e-5, atol=0):
                    return False
                if not torch.allclose(ahead * 40, gradient, rtol=1e-5, atol=1e-30):
                    return False
    return True
