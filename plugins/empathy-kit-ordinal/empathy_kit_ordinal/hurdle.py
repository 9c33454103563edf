"""A hurdle head: is it above the lowest level at all, and if so, which of the others?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from empathy_kit import Head, KitError, Task, hookimpl

if TYPE_CHECKING:
    from torch.nn import Module


def hurdle(task: Task, width: int, *, power: float = 0.5) -> Module:
    """Two questions with weights of their own: above the lowest level? And, for those that are: which of the others?

    The hurdle model of counts (Mullahy, Journal of Econometrics, 1986), for levels. Where most pairs are at the lowest level,
    the others are a larger share of the second question's pairs than of all. In each question, an item's loss is weighted by
    (1 / its class's share)^power, scaled to a mean of 1. Trains with its own criterion; the run's loss is not used.

    Raises:
        KitError: a level without a pair in the training part, or a power out of range.
    """
    from empathy_kit_ordinal.hurdle_head import HurdleHead

    if not 0 <= power <= 10:
        raise KitError(f"head hurdle of {task.name}: option 'power' is {power}; expected 0 to 10")
    if not all(task.class_counts):
        raise KitError(f"head hurdle of {task.name}: class counts {task.class_counts}; expected every label in the training part")
    return HurdleHead(width, task.class_counts, power)


HURDLE = Head("hurdle", hurdle)


@hookimpl
def empathy_kit_heads() -> Iterator[Head]:
    """The one head."""
    yield HURDLE
