"""Cross-entropy, and the weights that make rare classes count more."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from empathy_kit.core.losses.focal import focal
from empathy_kit.errors import KitError


def cross_entropy(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) integers
    weight: Tensor | None = None,  # (C,) float32
) -> Tensor:  # (N,)
    """The negative log-likelihood of the target per item, ``w_y * -log softmax(logits)_y``: `focal` with gamma 0.

    Raises:
        ValueError: as `focal`.
    """
    return focal(logits, target, 0.0, weight)


def balanced_weights(counts: Sequence[int], power: float = 1.0) -> list[float]:
    """Class weights ``(n / (C * count)) ** power``, scaled so that their mean over the counted items is 1.

    At power 1 these are scikit-learn's "balanced" weights (King and Zeng, 2001).

    Raises:
        KitError: a class that no item has; its weight would be infinite.
    """
    if not all(counts):
        raise KitError(f"class counts {tuple(counts)}: expected every class in the training part, or no weighting")
    raw = [(sum(counts) / (len(counts) * count)) ** power for count in counts]
    mean = sum(weight * count for weight, count in zip(raw, counts, strict=True)) / sum(counts)
    return [weight / mean for weight in raw]
