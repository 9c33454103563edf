"""A head, a rationale injector and a trunk that keep every promise, for bad ones to be made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from empathy_kit import Encoded, Injection, Texts


class Trained(nn.Module):
    """A linear head on the last state."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded.pooled)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


class Twice(nn.Module):
    """Injects the response's own states, through a linear layer."""

    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.spans = nn.Linear(width, tasks)

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return Injection(self.linear(response), mask, self.spans(response).transpose(1, 2))


class Mean(nn.Module):
    """A trunk: the mean of everything that is read, through one layer."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.injector, self.width = encoder, injector, 8
        self.linear = nn.Linear(encoder.width, 8)

    def forward(self, texts: Texts, gold: Tensor | None) -> tuple[Encoded, Tensor | None]:
        seeker, response = self.encoder(texts)
        injection = self.inject(response, texts.response_mask, gold)
        states = torch.cat([seeker, response, injection.states], 1)
        mask = torch.cat([texts.seeker_mask, texts.response_mask, injection.mask], 1)
        return self.read(states, mask), injection.span_logits

    def inject(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        found: Injection = self.injector(response, mask, gold)
        return found

    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        sequence = torch.tanh(self.linear(states)).float() * mask[..., None]
        return Encoded(sequence.sum(1) / mask.sum(1, keepdim=True), sequence, mask)
