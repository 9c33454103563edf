"""CORN: conditional probabilities of being above each level but the last."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empathy_kit import Encoded


class OrdinalHead(nn.Module):
    """C - 1 logits; logit k is the log-odds of a level above k, given one above k - 1."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes - 1)

    def forward(self, encoded: Encoded) -> Tensor:  # -> (B, C - 1)
        logits: Tensor = self.linear(encoded.pooled)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:  # (B, C - 1) -> (B, C)
        """Level k: above all levels below k, and not above k."""
        certain = torch.ones_like(logits[:, :1])
        above = [certain]  # P(level >= k), (B, 1) each; no cumprod and no len(logits), which ONNX export cannot follow
        for question in torch.split(logits.sigmoid(), 1, dim=1):
            above.append(above[-1] * question)
        # (-logits).sigmoid(), not 1 - logits.sigmoid(): in float32 that is 0 for a logit of 20, and -log p would be infinite.
        return torch.cat(above, dim=1) * torch.cat([(-logits).sigmoid(), certain], dim=1)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:  # (N, C - 1), (N,) -> (N,)
        """The sum of the losses of the questions that apply to the item: question k applies above level k - 1.

        The paper divides by the questions' count over the whole batch. Here an item's loss is its own, and the kit takes the
        mean over items.
        """
        question = torch.arange(logits.shape[1], device=logits.device)  # (C - 1,)
        asked = target[:, None] >= question
        answer = (target[:, None] > question).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, answer, reduction="none")
        return (losses * asked).sum(1)
