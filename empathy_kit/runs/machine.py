"""What computes a run, as its record has it, and how that of two runs differs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from empathy_kit.errors import visible
from empathy_kit.processor import maker, rounding

THEN = ", then "  # between the values of a run that was continued with others
CLOSED, OWN = "closed form in torch", " by their own code"  # begins, and ends, how losses are computed
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

    known = before or {}
    then = str(known.get("processes", processes if before is None else 1))
    counts = then if then.rpartition(THEN)[2] == str(processes) else f"{then}{THEN}{processes}"
    was = str(known.get("losses", losses))
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "maker": maker(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "losses": was if way(was).rpartition(THEN)[2] == way(losses) else f"{was}{THEN}{losses}",
        "threads": torch.get_num_threads(),
        "variables": rounding(),
        **({} if counts == "1" else {"processes": int(counts) if counts.isdecimal() else counts}),
    }


def described(machine: Mapping[str, Any]) -> dict[str, str]:
    """The known parts of a record's machine as text; earlier versions recorded fewer."""
    found = {"processes": 1, **machine} if machine else {}
    return {part: visible(_text(part, found[part])) for part in PARTS if part in found}


def _text(part: str, value: Any) -> str:
    if part == "losses":
        return way(str(value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={setting}" for name, setting in value.items()) or "none"
    return str(value)


def way(losses: str) -> str:
    """How a record's losses were computed, without why no kernel was used: a reason may name a batch job's own cache folder."""
    return THEN.join(map(_without_reason, losses.split(THEN)))


def _without_reason(losses: str) -> str:
    computed, between, others = losses.rpartition("; ") if losses.endswith(OWN) else (losses, "", "")
    return f"{CLOSED if computed.startswith(CLOSED) else computed}{between}{others}"


def compare_machines(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings for each known part of a recorded run's machine that differs from that of now."""
    found = described(now)
    return tuple(
        f"{PARTS[part]}: {then} in the recorded run, {found[part]} now; the numbers may differ"
        for part, then in described(recorded).items()
        if part in found and found[part] != then
    )
