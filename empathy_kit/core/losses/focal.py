"""Focal loss: cross-entropy that counts an item less, the surer and righter the model is of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal(
    logits: Tensor,  # (N, C) float32
    target: Tensor,  # (N,) int64
    gamma: float,
) -> Tensor:  # (N,) float32
    """Softmax focal loss ``(1 - p)^gamma * -log p`` of the target's probability p, an item (Lin et al., arXiv 1708.02002).

    Written through the margin ``m = z_y - logsumexp(z_j, j != y)``: p = sigmoid(m), so ``1 - p = sigmoid(-m)`` is never taken
    as a difference, and its logarithm stays finite where 1 - p underflows. Hence no NaN for 0 < gamma < 1 on saturated
    items, and no lost tail on confident ones, both of which the composition through softmax has.
    """
    others = logits.masked_fill(F.one_hot(target, logits.shape[-1]).bool(), -torch.inf)
    margin = logits.gather(-1, target[:, None])[:, 0] - others.logsumexp(-1)  # (N,)
    return torch.exp(gamma * F.logsigmoid(-margin)) * -F.logsigmoid(margin)
