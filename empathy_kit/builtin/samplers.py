"""The built-in samplers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from empathy_kit import Sampler, Task, hookimpl
from empathy_kit.options import in_range

if TYPE_CHECKING:
    from torch import Generator, Tensor


def everything(tasks: Sequence[Task], labels: Tensor) -> Callable[[Generator], Tensor]:
    """Every training pair once per epoch."""
    import torch

    # Draws nothing: the kit then orders the pairs with this generator, and released runs keep their order.
    return lambda generator: torch.arange(len(labels))  # noqa: ARG005 - every sampler is given one


def over(tasks: Sequence[Task], labels: Tensor, *, power: float = 1.0, most: float = 10.0) -> Callable[[Generator], Tensor]:
    """Oversampling: every pair at least once, pairs with rare labels up to ``most`` times, to balance all tasks at once.

    A task is balanced where its labels have equal shares of its labelled pairs in an epoch. With ``power`` below 1 the target
    share of a label is proportional to count^(1 - power); 0 leaves everything as it is. A pair counts for all of its tasks, so
    all are balanced together: of all frequencies between 1 and ``most``, each pair gets the one that brings the shares nearest
    to the targets (the least sum over tasks of KL(target || share)). A pair's frequency is exact on average over epochs.
    With one task and no bound, every label's pairs are repeated up to the commonest label's number.

    With the label counts of EPITOME's Reddit part an epoch is 2.3 times as long, and the shares of the rare levels rise from
    .049 to .19 (ER), from .034 to .15 (EX) and from .037 to .16 (IP). Equal shares would take an epoch 4.4 times as long, in
    which some pairs are shown 500 times.

    He and Garcia, Learning from imbalanced data, IEEE TKDE 21 (2009), doi 10.1109/TKDE.2008.239, review over- and
    undersampling for one task.

    Raises:
        KitError: an option out of range.
    """
    from empathy_kit.core.samplers import resample

    in_range("sampler over", "power", power, 0, 1)
    in_range("sampler over", "most", most, 1, 1000)
    return resample(labels, power=power, fewest=1.0, most=most)


def under(tasks: Sequence[Task], labels: Tensor, *, power: float = 1.0, least: float = 0.1) -> Callable[[Generator], Tensor]:
    """Undersampling: no pair twice, pairs with common labels left out at random, to balance all tasks at once.

    Balances what ``over`` balances, by leaving pairs out. Each epoch draws anew which ones, and shows every pair with a
    probability of at least ``least``; the rarest are always shown. With one task and no bound, every label's pairs are cut down
    to the rarest label's number.

    With the label counts of EPITOME's Reddit part an epoch has .23 of the pairs. Its shares are those of ``over``, because the
    largest ratio between two pairs' frequencies is the same: 1 / ``least`` here, ``most`` there.

    He and Garcia, Learning from imbalanced data, IEEE TKDE 21 (2009), doi 10.1109/TKDE.2008.239.

    Raises:
        KitError: an option out of range.
    """
    from empathy_kit.core.samplers import resample

    in_range("sampler under", "power", power, 0, 1)
    in_range("sampler under", "least", least, 0.001, 1)
    return resample(labels, power=power, fewest=least, most=1.0)


@hookimpl
def empathy_kit_samplers() -> Iterator[Sampler]:
    """The three samplers."""
    yield Sampler("all", everything)
    yield Sampler("over", over)
    yield Sampler("under", under)
