"""This machine's processor: its cores, its maker, and the variables that change how libraries round on it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
GROUPS, CGROUP = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")

ARITHMETIC = (
    "DNNL_DEFAULT_FPMATH_MODE",  # oneDNN's earlier prefix, which it still reads
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Variables that change how libraries round. `OMP_NUM_THREADS` and `ATEN_CPU_CAPABILITY` only change what is recorded anyway."""


def cores() -> int:
    """How many cores this process may use; a scheduler, `taskset` or a container's quota may have limited them."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([there, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """The cores' worth of time that this process's control groups allow, those of the groups above included."""
    lines: list[str] = []
    with suppress(OSError):  # not Linux
        lines = GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = CGROUP / "cpu" if controllers else CGROUP  # version 1 or 2
        group = top / path.lstrip("/")
        for each in (group, *group.parents[: len(group.parts) - len(top.parts)]):
            with suppress(OSError, ValueError):  # no such group in a container's own tree, or no limit: "max"
                if controllers:
                    quota, period = (int((each / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
                else:
                    quota, period = map(int, (each / "cpu.max").read_text().split())
                if quota > 0:  # -1 is no limit
                    yield quota / period


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
