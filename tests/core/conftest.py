"""Fixtures of the losses: the kernel, and both ways to its numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from empathy_kit.core import kernels

CPU = torch.device("cpu")
MISSING = ("no C compiler (cc, gcc or clang)", "Windows is not supported", "this machine is not little-endian")


@pytest.fixture(scope="module")
def fused() -> kernels.Kernel:
    """The kernel; a machine without a compiler has none, and one with a compiler has to have it."""
    found = kernels.find(CPU)
    if isinstance(found, str):
        missing = found in MISSING or found.endswith(": TimeoutExpired")
        (pytest.skip if missing else pytest.fail)(kernels.status(CPU))
    return found


@pytest.fixture(params=["fused", "closed"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways to the same numbers."""
    if request.param == "fused":
        request.getfixturevalue("fused")
    with kernels.fused("auto" if request.param == "fused" else "off"):
        yield str(request.param)
