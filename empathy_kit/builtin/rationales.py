"""The built-in rationale injectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from empathy_kit import Rationale, Task, hookimpl

if TYPE_CHECKING:
    from torch.nn import Module


def none(tasks: Sequence[Task], width: int) -> Module:
    """Nothing is injected: the paper's T1 and T3."""
    from empathy_kit.core.rationales import NoRationale

    return NoRationale()


def gold(tasks: Sequence[Task], width: int) -> Module:
    """The annotated spans, at test time too: an ORACLE, because a pair without a span has level 0."""
    from empathy_kit.core.rationales import GoldRationale

    return GoldRationale(len(tasks), width)


def train_only(tasks: Sequence[Task], width: int) -> Module:
    """The annotated spans in training, nothing at test time."""
    from empathy_kit.core.rationales import GoldRationale

    return GoldRationale(len(tasks), width)


def predicted(tasks: Sequence[Task], width: int) -> Module:
    """Response tokens weighted by a span head's own prediction, in training as at test; gold spans supervise the head."""
    from empathy_kit.core.rationales import PredictedRationale

    return PredictedRationale(len(tasks), width)


def tag(tasks: Sequence[Task], width: int) -> Module:
    """Nothing is injected, but the spans are predicted as an auxiliary task."""
    from empathy_kit.core.rationales import TaggedRationale

    return TaggedRationale(len(tasks), width)


@hookimpl
def empathy_kit_rationales() -> Iterator[Rationale]:
    """The five injectors."""
    yield Rationale("none", none, gold="never")
    yield Rationale("gold", gold, gold="always")
    yield Rationale("train-only", train_only, gold="train")
    # These two learn from gold spans through the span loss alone; their forward never sees them.
    yield Rationale("predicted", predicted, gold="never")
    yield Rationale("tag", tag, gold="never")
