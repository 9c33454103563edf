"""Losses for rare classes: class-balanced, LDAM, logit-adjusted and asymmetric."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from empathy_kit import KitError, Loss, Task, hookimpl

if TYPE_CHECKING:
    from torch.nn import Module


def class_balanced(task: Task, *, beta: float = 0.999, gamma: float = 0.0) -> Module:
    """Cross-entropy (or focal loss) weighted by each level's effective number of pairs.

    Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019, arXiv 1901.05555: weights
    (1 - beta) / (1 - beta^n), scaled to a sum of C. Beta 0 is unweighted; towards 1 it comes to 1 / n.

    Raises:
        KitError: a level without a pair in the training part, or an option out of range.
    """
    from empathy_kit_longtail.losses import ClassBalanced

    _in_range("class-balanced", task, "beta", beta, 0, 0.999999)
    _in_range("class-balanced", task, "gamma", gamma, 0, 100)
    return ClassBalanced(_present("class-balanced", task), beta, gamma)


def ldam(task: Task, *, max_margin: float = 0.5, scale: float = 1.0) -> Module:
    """Cross-entropy with a margin around each level, the wider the rarer it is.

    Cao et al., Learning imbalanced datasets with label-distribution-aware margin loss, NeurIPS 2019, arXiv 1906.07413:
    margins proportional to n^(-1/4), the largest ``max_margin``. The paper's logits are cosines, scaled by 30; the kit's are
    not bounded, so the scale here is 1.

    Raises:
        KitError: a level without a pair in the training part, or an option out of range.
    """
    from empathy_kit_longtail.losses import LDAM

    _in_range("ldam", task, "max_margin", max_margin, 0, 1000)
    _in_range("ldam", task, "scale", scale, 1e-6, 1000)
    return LDAM(_present("ldam", task), max_margin, scale)


def logit_adjusted(task: Task, *, tau: float = 1.0) -> Module:
    """Cross-entropy of the logits plus tau times the logarithm of each level's share: rare levels must win by more.

    Menon et al., Long-tail learning via logit adjustment, ICLR 2021, arXiv 2007.07314, equation 10. Tau 0 is cross-entropy.

    Raises:
        KitError: a level without a pair in the training part, or an option out of range.
    """
    from empathy_kit_longtail.losses import LogitAdjusted

    _in_range("logit-adjusted", task, "tau", tau, 0, 100)
    return LogitAdjusted(_present("logit-adjusted", task), tau)


def asymmetric(task: Task, *, gamma_positive: float = 0.0, gamma_negative: float = 4.0, shift: float = 0.05) -> Module:
    """One yes-or-no question per level, with a sigmoid each; an easy "no" counts next to nothing.

    Ridnik et al., Asymmetric loss for multi-label classification, ICCV 2021, arXiv 2009.14119, equations 5 to 7, on the
    one-hot target: -(1 - p)^gamma_positive log p of the target's level, and -q^gamma_negative log(1 - q) of the others, with
    q = max(p - shift, 0). The head's probabilities are still a softmax: their order is right, their values are not calibrated.

    Raises:
        KitError: an option out of range.
    """
    from empathy_kit_longtail.losses import Asymmetric

    _in_range("asymmetric", task, "gamma_positive", gamma_positive, 0, 100)
    _in_range("asymmetric", task, "gamma_negative", gamma_negative, 1, 100)
    _in_range("asymmetric", task, "shift", shift, 0, 0.5)
    return Asymmetric(gamma_positive, gamma_negative, shift)


def _present(loss: str, task: Task) -> tuple[int, ...]:
    for label, count in zip(task.labels, task.class_counts, strict=True):
        if count == 0:
            raise KitError(f"loss {loss} of {task.name}: the training part has no pair of level {label}; expected at least one")
    return task.class_counts


def _in_range(loss: str, task: Task, option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise KitError(f"loss {loss} of {task.name}: option {option!r} is {value}; expected {low} to {high}")


CLASS_BALANCED = Loss("class-balanced", class_balanced)
LDAM = Loss("ldam", ldam)
LOGIT_ADJUSTED = Loss("logit-adjusted", logit_adjusted)
ASYMMETRIC = Loss("asymmetric", asymmetric)


@hookimpl
def empathy_kit_losses() -> Iterator[Loss]:
    """The four losses."""
    yield from (CLASS_BALANCED, LDAM, LOGIT_ADJUSTED, ASYMMETRIC)
