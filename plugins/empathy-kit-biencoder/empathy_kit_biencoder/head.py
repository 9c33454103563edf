"""The head that they put on the response's first token."""

from __future__ import annotations

from torch import Tensor, nn

from empathy_kit import Encoded


class DenseHead(nn.Module):
    """Linear, rectifier, dropout, linear. What comes before the first layer is the trunk's dropout."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        first, last = nn.Linear(width, width), nn.Linear(width, classes)
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), last)
        for layer in (first, last):
            nn.init.normal_(layer.weight, std=0.02)  # theirs, which is BERT's
            nn.init.zeros_(layer.bias)

    def forward(self, encoded: Encoded) -> Tensor:  # -> (B, C)
        logits: Tensor = self.layers(encoded.pooled)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:  # (B, C) -> (B, C)
        """Softmax."""
        return logits.softmax(-1)
