"""Implementations of the same focal loss: the mean of ``w_y (1 - p)^gamma * -log p`` over N items, whatever their reduction."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from empathy_kit.core import kernels
from empathy_kit.core.losses.focal import focal, focal_mean

Implementation = Callable[[Tensor, Tensor, float, Tensor | None], Tensor]  # logits, target, gamma, weight -> ()


def eager(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """The straightforward implementation in torch."""
    log_p = F.log_softmax(logits, 1).gather(1, target[:, None])[:, 0]
    loss = (1 - log_p.exp()) ** gamma * -log_p
    return (loss if weight is None else weight[target] * loss).mean()


def fused(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """The kit's loss, as a training step calls it."""
    return focal_mean(logits, target, gamma, weight)


def fused_each(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """The kit's kernel that returns one loss per row, and torch's mean of them."""
    return focal(logits, target, gamma, weight).mean()


def closed(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """The kit's loss without a kernel."""
    with kernels.fused("off"):
        return focal(logits, target, gamma, weight).mean()


def cross_entropy(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """Torch's cross-entropy; no focal loss, so only timed. It divides by the sum of the weights, in the logits' dtype."""
    return F.cross_entropy(logits, target, None if weight is None else weight.to(logits.dtype))


def fused_ahead(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """The kit's loss on a GPU, where the gradient may be computed in the forward pass."""
    return focal(logits, target, gamma, weight, ahead=True).mean()


def liger(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """Liger's cross-entropy, only on a GPU. It overwrites the logits with the gradient."""
    from liger_kernel.transformers.functional import liger_cross_entropy

    mean: Tensor = liger_cross_entropy(logits, target, weight)
    return mean


def kornia(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """Its mean is over N x C."""
    from kornia.losses import focal_loss

    mean: Tensor = focal_loss(logits, target, alpha=None, gamma=gamma, reduction="mean", weight=weight)
    return mean * logits.shape[1]


def monai(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """Its mean is over N x C."""
    from monai.losses import FocalLoss

    loss: Any = FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True, weight=weight)
    mean: Tensor = loss(logits, target[:, None])
    return mean * logits.shape[1]


def focal_loss_torch(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """Takes probabilities, and divides by the sum of the weights."""
    from focal_loss.focal_loss import FocalLoss

    total: Tensor = FocalLoss(gamma=gamma, weights=weight, reduction="sum")(logits.softmax(1), target)
    return total / len(target)


def balanced_loss(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None) -> Tensor:
    """Another function: one sigmoid per class. It has no custom class weights, so it is never timed here."""
    from balanced_loss import Loss

    found: Tensor = Loss(loss_type="focal_loss", fl_gamma=gamma)(logits, target)
    return found


OURS: dict[str, Implementation] = {"fused": fused, "fused, one loss per row": fused_each, "closed form": closed, "eager": eager}
ON_CUDA: dict[str, Implementation] = {"fused, gradient ahead": fused_ahead}
LIGER = "Liger's cross-entropy"
NO_FOCAL = ("F.cross_entropy", LIGER)  # timed next to the others, but not checked
OVERWRITING = (LIGER,)  # gets logits of its own
SAME: dict[str, tuple[str, Implementation]] = {  # module, function: focal loss, softmax
    "kornia": ("kornia", kornia),
    "MONAI": ("monai", monai),
    "focal_loss_torch": ("focal_loss", focal_loss_torch),
}


def installed(device: str = "cpu") -> dict[str, Implementation]:
    """The peers that are installed and run on this device."""
    there = {**SAME, **({LIGER: ("liger_kernel", liger)} if device == "cuda" else {})}
    return {name: function for name, (module, function) in there.items() if importlib.util.find_spec(module)}
