"""The built-in heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from empathy_kit import Head, Task, hookimpl

if TYPE_CHECKING:
    from torch.nn import Module


def linear(task: Task, width: int) -> Module:
    """One linear layer on the GRU's last state: the paper's."""
    from empathy_kit.core.heads import LinearHead

    return LinearHead(width, task.num_classes)


def attention(task: Task, width: int) -> Module:
    """One linear layer on an attention-weighted mean of all the GRU's states, learnt for each mechanism."""
    from empathy_kit.core.heads import AttentionHead

    return AttentionHead(width, task.num_classes)


@hookimpl
def empathy_kit_heads() -> Iterator[Head]:
    """The two heads."""
    yield Head("linear", linear)
    yield Head("attention", attention)
