"""On which device, and with how many bits."""

from __future__ import annotations

from typing import Literal

import torch

from empathy_kit.errors import KitError

Precision = Literal["no", "bf16", "fp16"]
_TYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(choice: Literal["auto", "cpu"]) -> torch.device:
    """The machine's accelerator where there is one and it is wanted, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True) if choice == "auto" else None
    return found or torch.device("cpu")


def check_precision(device: torch.device, precision: Precision) -> None:
    """Find out whether a device computes in a precision.

    Raises:
        KitError: it does not.
    """
    if precision == "fp16" and device.type == "cpu":
        raise KitError("precision fp16: needs an accelerator, and this run is on the CPU; expected no or bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise KitError("precision bf16: this GPU does not have it; expected no or fp16")


def is_emulated(device: torch.device, precision: Precision) -> bool:
    """Whether a device has no instructions for a precision that it computes in: it takes several times as long as float32."""
    if precision != "bf16" or device.type != "cpu":
        return False
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return not (there and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def predicting_precision(device: torch.device, trained: Precision) -> tuple[Precision, tuple[str, ...]]:
    """The precision in which a trained model predicts on a device: that of its training, or float32, with a warning.

    Its weights are float32 whatever it was trained in, so every device can use it.
    """
    try:
        check_precision(device, trained)
    except KitError:
        return "no", (
            f"precision {trained}: not available on {device}; the model predicts in float32, with slightly other numbers",
        )
    if is_emulated(device, trained):
        return "no", (
            f"precision {trained}: not available on this processor; the model predicts in float32, with slightly other numbers",
        )
    return trained, ()


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a model computes; a new one for each use, so that threads do not share it."""
    dtype = _TYPES[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
