"""Poly-1: cross-entropy, and one term more of its series in the probability of the wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from empathy_kit import KitError, Loss, Task, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def poly1(task: Task, *, epsilon: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy plus epsilon times the probability that the target was not given.

    Leng et al., PolyLoss, ICLR 2022, arXiv 2204.12511, equation 6. Epsilon 0 is cross-entropy.

    Raises:
        KitError: an epsilon below -1, with which the loss is least at a probability below 1.
    """
    from torch.nn.functional import cross_entropy

    if not epsilon >= -1:  # and not `<`, which NaN would pass
        raise KitError(f"loss poly1 of {task.name}: option 'epsilon' is {epsilon}; expected -1 or more")

    def loss(logits: Tensor, target: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
        ce = cross_entropy(logits, target, reduction="none")
        return ce + epsilon * (1 - (-ce).exp())  # exp(-ce) is the target's probability

    return loss


POLY1 = Loss("poly1", poly1)


@hookimpl
def empathy_kit_losses() -> Iterator[Loss]:
    """The one loss."""
    yield POLY1
