"""The built-in trunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from empathy_kit import Trunk, hookimpl
from empathy_kit.options import in_range

if TYPE_CHECKING:
    from torch.nn import Module

WIDEST, DEEPEST, DROPPED = 65536, 64, 0.99


def gru(encoder: Any, injector: Module, *, hidden: int = 256, layers: int = 2, dropout: float = 0.3) -> Module:
    """A GRU over the seeker post, the response and the rationale, end to end: the paper's.

    ``dropout`` applies between the layers and to what the heads are given.

    Raises:
        KitError: an option out of range.
    """
    from empathy_kit.core.trunk import GRUTrunk

    in_range("trunk gru", "hidden", hidden, 1, WIDEST)
    in_range("trunk gru", "layers", layers, 1, DEEPEST)
    in_range("trunk gru", "dropout", dropout, 0, DROPPED)
    return GRUTrunk(encoder, injector, hidden=hidden, layers=layers, dropout=dropout)


def mean(encoder: Any, injector: Module, *, hidden: int = 256, dropout: float = 0.3) -> Module:
    """Without recurrence: a linear layer and tanh at every token, and the sum of both posts' means. What does the GRU add?

    Each post has a linear layer of its own; the rationale is read with the response.

    Raises:
        KitError: an option out of range.
    """
    from empathy_kit.core.trunk import MeanTrunk

    in_range("trunk mean", "hidden", hidden, 1, WIDEST)
    in_range("trunk mean", "dropout", dropout, 0, DROPPED)
    return MeanTrunk(encoder, injector, hidden=hidden, dropout=dropout)


@hookimpl
def empathy_kit_trunks() -> Iterator[Trunk]:
    """The two trunks."""
    yield Trunk("gru", gru)
    yield Trunk("mean", mean)
