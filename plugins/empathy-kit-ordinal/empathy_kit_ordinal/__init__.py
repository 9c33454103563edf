"""An ordinal head: the levels are ordered, 0 < 1 < 2, and each is predicted given the one below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from empathy_kit import Head, Task, hookimpl

if TYPE_CHECKING:
    from torch.nn import Module


def ordinal(task: Task, width: int) -> Module:
    """Is it above level 0? If so, above level 1? One binary question per step, each with a loss of its own (CORN).

    Shi, Cao and Raschka, Deep neural networks for rank-consistent ordinal regression based on conditional probabilities,
    arXiv 2111.08851. Trains with its own criterion; the run's loss is not used.
    """
    from empathy_kit_ordinal.head import OrdinalHead

    return OrdinalHead(width, task.num_classes)


ORDINAL = Head("ordinal", ordinal)


@hookimpl
def empathy_kit_heads() -> Iterator[Head]:
    """The one head."""
    yield ORDINAL
