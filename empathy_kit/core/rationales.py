"""Rationale injectors: what of the response is shown to the GRU a second time, as evidence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from empathy_kit.contracts import Injection


def nothing(response: Tensor) -> Injection:
    """An injection of no states."""
    batch, _, width = response.shape
    return Injection(response.new_zeros(batch, 0, width), response.new_zeros(batch, 0, dtype=torch.bool))


class NoRationale(nn.Module):
    """Injects nothing."""

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:  # noqa: ARG002
        return nothing(response)


class GoldRationale(nn.Module):
    """Injects the states of the tokens inside annotated spans, each marked with the mechanisms that it is evidence for."""

    def __init__(self, mechanisms: int, width: int) -> None:
        super().__init__()
        self.mechanism = nn.Parameter(torch.randn(mechanisms, width) * 0.02)  # (T, D), BERT's initial spread

    def forward(
        self,
        response: Tensor,  # (B, L, D)
        mask: Tensor,  # (B, L) bool
        gold: Tensor | None,  # (B, T, L) bool
    ) -> Injection:
        if gold is None:
            return nothing(response)
        marks = gold.transpose(1, 2).to(response.dtype) @ self.mechanism.to(response.dtype)  # (B, L, D)
        return Injection(response + marks, gold.any(1) & mask)


class SpanHead(nn.Module):
    """One linear probe per mechanism on every response token."""

    def __init__(self, mechanisms: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, mechanisms)

    def forward(self, response: Tensor) -> Tensor:  # (B, L, D) -> (B, T, L)
        logits: Tensor = self.linear(response)
        return logits.transpose(1, 2)


class PredictedRationale(nn.Module):
    """Injects every response state, weighted by the span head's own probabilities, in training as at test.

    Gold spans only supervise the span head, so what the GRU reads is made the same way everywhere.
    """

    def __init__(self, mechanisms: int, width: int) -> None:
        super().__init__()
        self.spans = SpanHead(mechanisms, width)
        self.mechanism = nn.Parameter(torch.randn(mechanisms, width) * 0.02)  # (T, D)

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:  # noqa: ARG002
        logits = self.spans(response)  # (B, T, L)
        soft = logits.sigmoid().to(response.dtype)
        marks = soft.transpose(1, 2) @ self.mechanism.to(response.dtype)  # (B, L, D)
        strongest = soft.amax(1)[..., None]  # (B, L, 1)
        return Injection(strongest * response + marks, mask, logits)


class TaggedRationale(nn.Module):
    """Injects nothing, but predicts the spans: the trunk learns from them as an auxiliary task."""

    def __init__(self, mechanisms: int, width: int) -> None:
        super().__init__()
        self.spans = SpanHead(mechanisms, width)

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:  # noqa: ARG002
        none = nothing(response)
        return Injection(none.states, none.mask, self.spans(response))
