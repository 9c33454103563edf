"""What computes a run, as its record has it, and how that of two runs differs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from empathy_kit.errors import visible
from empathy_kit.processor import maker, rounding

THEN = ", then "  # between the values of a run that was continued with others
PARTS = {
    "system": "operating system",
    "processor": "processor",
    "maker": "maker of the processor",
    "cpu_capability": "CPU capability",
    "device": "device",
    "losses": "way to compute the losses",
    "threads": "number of threads",
    "processes": "number of processes",
    "variables": "environment variables",
}
"""The parts of a record's machine, all of which the numbers of a run depend on, to what people call them."""


def machine_of(device: object, losses: str, processes: int, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What this process computes with; the number of processes only where the run ever had more than one.

    Args:
        device: of the model.
        losses: how the kit's own losses are computed.
        processes: that train together.
        before: the machine of the run that is continued, if any.
    """
    import torch

    then = str((before or {}).get("processes", processes if before is None else 1))
    counts = then if then.rpartition(THEN)[2] == str(processes) else f"{then}{THEN}{processes}"
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "maker": maker(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "losses": losses,
        "threads": torch.get_num_threads(),
        "variables": rounding(),
        **({} if counts == "1" else {"processes": int(counts) if counts.isdecimal() else counts}),
    }


def described(machine: Mapping[str, Any]) -> dict[str, str]:
    """The known parts of a record's machine as text; earlier versions recorded fewer."""
    found = {"processes": 1, **machine} if machine else {}
    return {part: _text(found[part]) for part in PARTS if part in found}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{name}={setting}" for name, setting in value.items()) or "none"
    return visible(str(value))


def compare_machines(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings for each known part of a recorded run's machine that differs from that of now."""
    found = described(now)
    return tuple(
        f"{PARTS[part]}: {then} in the recorded run, {found[part]} now; the numbers may differ"
        for part, then in described(recorded).items()
        if part in found and found[part] != then
    )
