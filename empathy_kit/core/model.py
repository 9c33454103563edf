"""The model: one trunk, a head a mechanism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from empathy_kit.core.batch import Texts
from empathy_kit.core.trunk import Trunk


@dataclass(frozen=True)
class Output:
    """What the model says of a batch."""

    logits: dict[str, Tensor]  # mechanism to (B, K) float32
    span_logits: Tensor | None  # (B, T, L) where the injector has a span head


class Model(nn.Module):
    """Texts -> logits a mechanism. Labels never come here; annotated spans only as ``gold``, which the caller may withhold."""

    def __init__(self, trunk: Trunk, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(heads)

    def forward(
        self,
        texts: Texts,
        gold: Tensor | None = None,  # (B, T, L) bool
    ) -> Output:
        encoded, span_logits = self.trunk(texts, gold)
        return Output({name: head(encoded).float() for name, head in self.heads.items()}, span_logits)
