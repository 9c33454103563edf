"""The model: one trunk, one head per task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from empathy_kit.contracts import Texts
from empathy_kit.errors import KitError


@dataclass(frozen=True)
class Output:
    """What the model returns for a batch."""

    logits: dict[str, Tensor]  # task to (B, K) float32
    span_logits: Tensor | None  # (B, T, L) where the injector has a span head


class Model(nn.Module):
    """Texts -> logits per task. Labels never come here; annotated spans only as ``gold``, which the caller may withhold."""

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = named(heads)

    def forward(
        self,
        texts: Texts,
        gold: Tensor | None = None,  # (B, T, L) bool
    ) -> Output:
        encoded, span_logits = self.trunk(texts, gold)
        return Output({name: head(encoded).float() for name, head in self.heads.items()}, span_logits)


def named(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Modules by their task's name, which becomes part of the weights' names.

    Raises:
        KitError: a name that torch's own modules have for something else.
    """
    taken = next((name for name in modules if hasattr(nn.ModuleDict(), name)), None)
    if taken is not None:
        raise KitError(f"task {taken}: the model's parts cannot be called that; expected another name in the schema")
    return nn.ModuleDict(modules)
