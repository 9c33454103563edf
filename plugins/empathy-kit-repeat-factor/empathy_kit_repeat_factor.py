"""Repeat-factor sampling: a pair is shown as often as the largest factor of its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from empathy_kit import KitError, Sampler, Task, hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor


def repeat_factor(
    tasks: Sequence[Task],
    labels: Tensor,  # (N, T) int64, -1 where a label is missing
    *,
    threshold: float = 0.3,
) -> Callable[[Generator], Tensor]:
    """A pair whose label has a share f below ``threshold`` is shown sqrt(threshold / f) times; its rarest label decides.

    Gupta, Dollár and Girshick, LVIS, CVPR 2019, arXiv 1908.03195, where images have several categories as pairs have several
    labels here. The share is of the task's labelled pairs; the fraction of a number of times is drawn anew in every epoch.

    Raises:
        KitError: an option out of range.
    """
    import torch

    if not 0 <= threshold <= 1:
        raise KitError(f"sampler repeat-factor: option 'threshold' is {threshold}; expected 0 to 1")
    factor = torch.ones(len(labels))
    for task, level in zip(tasks, labels.T, strict=True):
        has = level >= 0
        share = torch.tensor(task.class_counts) / max(1, sum(task.class_counts))  # (C,)
        factor[has] = factor[has].maximum((threshold / share).sqrt()[level[has]])

    def epoch(generator: Generator) -> Tensor:  # (M,) int64
        once_more = torch.rand(len(factor), generator=generator) < factor.frac()
        return torch.arange(len(factor)).repeat_interleave(factor.long() + once_more)

    return epoch


REPEAT_FACTOR = Sampler("repeat-factor", repeat_factor)


@hookimpl
def empathy_kit_samplers() -> Iterator[Sampler]:
    """The one sampler."""
    yield REPEAT_FACTOR
