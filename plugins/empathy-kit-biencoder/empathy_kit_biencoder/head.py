"""The head that they put on the response's first token."""

from __future__ import annotations

from torch import Tensor, nn

from empathy_kit import Encoded


class DenseHead(nn.Module):
    """Linear, rectifier, dropout, linear. What comes before the first layer is the trunk's dropout."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, encoded: Encoded) -> Tensor:  # -> (B, C)
        logits: Tensor = self.layers(encoded.pooled)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:  # (B, C) -> (B, C)
        """Softmax."""
        return logits.softmax(-1)
