"""Fixtures of the losses: the kernel, and both ways to its numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from empathy_kit.core import kernels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def fused() -> kernels.Kernel:
    """The kernel; a machine without a compiler has none."""
    found = kernels.find(CPU)
    if isinstance(found, str):
        pytest.skip(kernels.status(CPU))
    return found


@pytest.fixture(params=["fused", "closed"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways to the same numbers."""
    if request.param == "fused":
        request.getfixturevalue("fused")
    with kernels.fused("auto" if request.param == "fused" else "off"):
        yield str(request.param)
