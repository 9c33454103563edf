"""This machine's processor: its cores, its maker, and the variables that change how libraries round on it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

ARITHMETIC = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Variables that change how libraries round. `OMP_NUM_THREADS` and `ATEN_CPU_CAPABILITY` only change what is recorded anyway."""


def cores() -> int:
    """How many cores this process may use; a scheduler or `taskset` may have limited them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def maker() -> str:
    """Who made the processor, as it says itself, such as ``GenuineIntel``; "unknown" where the system does not tell.

    Libraries choose their code by it: of two processors with the same instructions, each may round in its own way.
    """
    with suppress(OSError), CPUINFO.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _, value = line.partition(":")
            if name.strip() in ("vendor_id", "CPU implementer"):
                return value.strip()
    return os.environ.get("PROCESSOR_IDENTIFIER", "").rpartition(", ")[2] or "unknown"  # Windows sets it


def rounding() -> dict[str, str]:
    """The environment's variables that change how libraries round."""
    return {name: os.environ[name] for name in ARITHMETIC if name in os.environ}
