"""Over- and undersampling for several tasks at once: how often an epoch shows each pair, and the draw."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDS = 1000  # most end long before, at a change below TOLERANCE
TOLERANCE = 1e-7


def resample(
    labels: Tensor,  # (N, T) int64, -1 where missing
    *,
    power: float,
    fewest: float,
    most: float,
) -> Callable[[torch.Generator], Tensor]:  # generator -> (M,) int64
    """A sampler that shows every pair as often as `frequencies` gives, on average over epochs."""
    kind, _, _ = _combinations(labels)
    often = frequencies(labels, power=power, fewest=fewest, most=most)
    return lambda generator: draw(often, kind, generator)


def frequencies(
    labels: Tensor,  # (N, T) int64, -1 where missing
    *,
    power: float,
    fewest: float,
    most: float,
) -> Tensor:  # (N,) float64
    """How often an epoch shows each pair on average, ``fewest`` to ``most`` times, so that every task is balanced.

    The target share of a task's label is proportional to its count to the power of 1 - ``power``: equal shares for 1, the data's
    own for 0. Of all frequencies within the bounds, these bring the shares nearest to the targets: they minimise the sum over
    tasks of the Kullback-Leibler divergence KL(target || share). Shares are of a task's labelled pairs. One of the bounds is 1,
    and pairs stay at 1 where nothing is gained by moving them: for one task and without the other bound, ``fewest=1`` repeats
    every label's pairs up to the commonest label's number, and ``most=1`` cuts them down to the rarest label's.

    Pairs with the same labels are shown equally often. A missing label moves its pair in no direction, and a task's divergence
    counts by how many of the epoch's pairs have its label. A pair without any label is shown once, or as often as the average
    pair if that is less.
    """
    kind, pairs, rows = _combinations(labels)
    labelled = (rows >= 0).any(1)
    if not labelled.any():
        return torch.ones(len(labels), dtype=torch.float64)
    tasks = [_targets(level, pairs, power) for level in rows.T if (level >= 0).any()]
    often = torch.ones_like(pairs)
    for _ in range(ROUNDS):
        # Multiplied by the mean over tasks of target / share, of the pair's own labels: the step of the EM algorithm for mixture
        # weights, which only ever comes nearer, here on frequencies within bounds. At its end a pair strictly between the bounds
        # has a mean of 1, one at the upper bound of 1 or more, one at the lower bound of 1 or less: the condition of the minimum.
        step = torch.zeros_like(often)
        for level, target, has in tasks:
            share = torch.bincount(level, (pairs * often)[has], minlength=len(target))
            share /= share.sum()
            step[has] += ((target / share)[level] - 1) / len(tasks)
        moved = (often * (1 + step)).clamp(fewest, most)
        change = (moved / often).log().abs().max()
        often = moved
        if change < TOLERANCE:
            break
    # The shares do not depend on the scale: where all have left the bound of 1, the nearest comes back to it.
    often = (often / (often[labelled].min() if fewest == 1 else often[labelled].max())).clamp(fewest, most)
    mean = (pairs * often)[labelled].sum() / pairs[labelled].sum()
    often = torch.where(labelled, often, mean.clamp(max=1))
    return often.round(decimals=9)[kind]  # whole numbers that rounding missed are whole again


def draw(
    often: Tensor,  # (N,) float64
    kind: Tensor,  # (N,) int64
    generator: torch.Generator,
) -> Tensor:  # (M,) int64
    """Every pair its whole number of times, and once more with the probability that is left: the mean is exact.

    Systematic sampling within each kind, in random order: an epoch's number of pairs of a kind is the expected one, rounded up
    or down, so that its length and shares hardly vary.
    """
    shuffled = torch.randperm(len(often), generator=generator)
    order = shuffled[kind[shuffled].argsort(stable=True)]  # (N,): kind by kind, in random order within each
    whole = often.floor()
    start = torch.rand((), generator=generator, dtype=torch.float64)
    ends = (start + (often - whole)[order].cumsum(0)).floor()  # (N,)
    extra = ends.diff(prepend=ends.new_zeros(1)).clamp(max=1)  # (N,) 0 or 1; rounding could make a 2 of a fraction next to 1
    return order.repeat_interleave((whole[order] + extra).long())


def _combinations(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which combination of labels each pair has (N,), how many pairs have each (K,) float64, and its labels (K, T)."""
    kind = torch.zeros(len(labels), dtype=torch.int64)
    for level in labels.T:  # one task after the other, so that the numbers never outgrow int64
        kind = torch.unique(kind * (level.max() + 2) + level + 1, return_inverse=True)[1]
    pairs = torch.bincount(kind)
    first = torch.empty_like(pairs)
    first[kind] = torch.arange(len(labels))
    return kind, pairs.double(), labels[first]


def _targets(level: Tensor, pairs: Tensor, power: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of one task: its labels (K',) without gaps, their target shares (C',), and which combinations have a label (K,) bool."""
    has = level >= 0
    present, level = torch.unique(level[has], return_inverse=True)
    target = torch.bincount(level, pairs[has], minlength=len(present)) ** (1 - power)
    return level, target / target.sum(), has
