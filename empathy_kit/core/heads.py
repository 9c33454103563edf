"""Task heads: the trunk's output -> one mechanism's logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from empathy_kit.contracts import Encoded


class LinearHead(nn.Module):
    """One linear layer on the GRU's last state (the paper's)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, encoded: Encoded) -> Tensor:  # (B, C)
        logits: Tensor = self.linear(encoded.pooled)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:  # (B, C) -> (B, C)
        """Softmax."""
        return logits.softmax(-1)


class AttentionHead(nn.Module):
    """One linear layer on an attention-weighted mean of all the GRU's states, with attention of the mechanism's own.

    Additive attention with one learnt query (Yang et al., NAACL 2016, hierarchical attention networks).
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, 1, bias=False)
        self.linear = nn.Linear(width, classes)

    def forward(self, encoded: Encoded) -> Tensor:  # (B, C)
        scores = self.query(torch.tanh(self.key(encoded.sequence)))[..., 0]  # (B, S)
        attention = scores.masked_fill(~encoded.mask, -torch.inf).softmax(-1)
        pooled = (attention[:, None] @ encoded.sequence)[:, 0]  # (B, H)
        logits: Tensor = self.linear(pooled)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:  # (B, C) -> (B, C)
        """Softmax."""
        return logits.softmax(-1)
