"""The built-in losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from empathy_kit import KitError, Loss, Task, hookimpl
from empathy_kit.options import in_range

if TYPE_CHECKING:
    from torch.nn import Module


def ce(task: Task) -> Module:
    """Cross-entropy: the paper's T1 and T2."""
    from empathy_kit.core.losses.focal import FocalLoss

    return FocalLoss(gamma=0.0)


def focal(task: Task, *, gamma: float = 2.0, power: float = 0.0) -> Module:
    """Focal loss: easy pairs count less, the more so the larger gamma; the paper's T3 and T4.

    Lin et al., arXiv 1708.02002. Gamma 0 is cross-entropy. With a power above 0 also weighted by class, as `weighted` is.

    Raises:
        KitError: a negative gamma or power, or a power and a class that the training part does not have.
    """
    from empathy_kit.core.losses.focal import FocalLoss

    if gamma < 0:
        raise KitError(f"loss focal of {task.name}: option 'gamma' is {gamma}; expected 0 or more")
    if power != 0:
        return _weighted("focal", task, power, gamma)
    return FocalLoss(gamma)


def weighted(task: Task, *, power: float = 1.0) -> Module:
    """Class-weighted cross-entropy: weights (1 / class frequency)^power, mean 1 over the training part.

    Power 1 is scikit-learn's "balanced"; 0.5 is its square root; 0 is plain cross-entropy.

    Raises:
        KitError: a class that the training part does not have, or a power out of range.
    """
    return _weighted("weighted", task, power, 0.0)


def _weighted(name: str, task: Task, power: float, gamma: float) -> Module:
    from empathy_kit.core.losses.cross_entropy import balanced_weights
    from empathy_kit.core.losses.focal import FocalLoss

    in_range(f"loss {name} of {task.name}", "power", power, 0, 10)
    try:
        return FocalLoss(gamma, balanced_weights(task.class_counts, power))
    except KitError as error:
        raise KitError(f"loss {name} of {task.name}: {error}") from None


@hookimpl
def empathy_kit_losses() -> Iterator[Loss]:
    """The three losses."""
    yield Loss("ce", ce)
    yield Loss("focal", focal)
    yield Loss("weighted", weighted)
