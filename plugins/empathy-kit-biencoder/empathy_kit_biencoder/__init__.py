"""The model of Sharma et al. (EMNLP 2020): a trunk that reads the response with attention to the seeker post, and its head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from empathy_kit import Head, KitError, Task, Trunk, hookimpl

if TYPE_CHECKING:
    from torch.nn import Module


def bi_encoder(encoder: Any, injector: Module, *, dropout: float = 0.1, attention: bool = True) -> Module:
    """A trained response encoder attends to a frozen seeker encoder; heads read the response's first token.

    Sharma et al., A computational approach to understanding empathy expressed in text-based mental health support, EMNLP 2020,
    arXiv 2009.08441. Both encoders start from the same weights. With ``--rationale tag`` spans are predicted from the
    response's tokens, as theirs are. Without ``attention`` the response is read alone, and what the seeker post adds can be
    measured.

    Raises:
        KitError: an option out of range.
    """
    from empathy_kit_biencoder.trunk import BiEncoder

    _in_range("trunk bi-encoder", "dropout", dropout)
    return BiEncoder(encoder, injector, dropout, attention=attention)


def dense(task: Task, width: int, *, dropout: float = 0.1) -> Module:
    """One hidden layer with a rectifier, as wide as the trunk, and a linear layer: the head of Sharma et al.

    EMNLP 2020, arXiv 2009.08441.

    Raises:
        KitError: an option out of range.
    """
    from empathy_kit_biencoder.head import DenseHead

    _in_range(f"head dense of {task.name}", "dropout", dropout)
    return DenseHead(width, task.num_classes, dropout)


def _in_range(owner: str, option: str, value: float) -> None:
    if not 0 <= value <= 0.99:
        raise KitError(f"{owner}: option {option!r} is {value}; expected 0 to 0.99")


BI_ENCODER = Trunk("bi-encoder", bi_encoder)
DENSE = Head("dense", dense)


@hookimpl
def empathy_kit_trunks() -> Iterator[Trunk]:
    """The one trunk."""
    yield BI_ENCODER


@hookimpl
def empathy_kit_heads() -> Iterator[Head]:
    """The one head."""
    yield DENSE
