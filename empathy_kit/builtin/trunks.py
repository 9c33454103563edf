"""The built-in trunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from empathy_kit import Trunk, hookimpl

if TYPE_CHECKING:
    from torch.nn import Module


def gru(encoder: Any, injector: Module, *, hidden: int = 256, layers: int = 2, dropout: float = 0.3) -> Module:
    """A GRU over the seeker post, the response and the rationale, end to end: the paper's."""
    from empathy_kit.core.trunk import GRUTrunk

    return GRUTrunk(encoder, injector, hidden=hidden, layers=layers, dropout=dropout)


@hookimpl
def empathy_kit_trunks() -> Iterator[Trunk]:
    """The trunks."""
    yield Trunk("gru", gru)
