"""Two questions, each with weights of its own: whether a level is above the lowest, and which of the others it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empathy_kit import Encoded
from empathy_kit.losses import balanced_weights


class HurdleHead(nn.Module):
    """C logits: the log-odds of a level above the lowest, then one logit for each of the levels above it."""

    first: Tensor  # (2,) weights of "no" and "yes"
    second: Tensor  # (C - 1,) weights of the levels above the lowest

    def __init__(self, width: int, counts: Sequence[int], power: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(counts))
        lowest, *others = counts
        # Not saved: they follow from the training part, and only the criterion needs them.
        self.register_buffer("first", torch.tensor(balanced_weights((lowest, sum(others)), power)), persistent=False)
        self.register_buffer("second", torch.tensor(balanced_weights(others, power)), persistent=False)

    def forward(self, encoded: Encoded) -> Tensor:  # -> (B, C)
        logits: Tensor = self.linear(encoded.pooled)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:  # (B, C) -> (B, C)
        """The lowest level's, and for each other one that of being above the lowest times its share among the others."""
        above, others = logits[:, :1], logits[:, 1:]
        return torch.cat([(-above).sigmoid(), above.sigmoid() * others.softmax(1)], dim=1)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
        """The weighted loss of the first question, and of the second where it is asked."""
        above = target > 0
        first = F.binary_cross_entropy_with_logits(logits[:, 0], above.to(logits.dtype), reduction="none")
        level = (target - 1).clamp(min=0)  # where the second question is not asked, any class: its loss is left out
        second = F.cross_entropy(logits[:, 1:], level, reduction="none")
        weights, others = self.first.to(logits.dtype), self.second.to(logits.dtype)
        return weights[above.long()] * first + above * others[level] * second
