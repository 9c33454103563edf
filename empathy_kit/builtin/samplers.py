"""The built-in samplers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from empathy_kit import Sampler, Task, hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor


def everything(tasks: Sequence[Task], labels: Tensor) -> Callable[[Generator], Tensor]:
    """Every training pair once per epoch."""
    import torch

    return lambda generator: torch.arange(len(labels))


@hookimpl
def empathy_kit_samplers() -> Iterator[Sampler]:
    """The samplers."""
    yield Sampler("all", everything)
