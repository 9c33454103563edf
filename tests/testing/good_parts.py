"""A head, a rationale injector and trunks that keep every promise, for bad ones to be made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from empathy_kit import Encoded, Injection, Texts

Output = tuple[Encoded, Tensor | None]


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

    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
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


class TwoEncoders(Mean):
    """A frozen encoder for the seeker post, a trained copy for the response, and attention of the response over the seeker."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder.copy(), injector)
        self.frozen = encoder.copy(frozen=True)
        self.drop = nn.Dropout(0.3)

    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        seeker, response = self.frozen.seeker(texts), self.encoder.response(texts)
        injection = self.inject(response, texts.response_mask, gold)
        scores = (response @ seeker.transpose(1, 2)).masked_fill(~texts.seeker_mask[:, None], -torch.inf)
        read = self.drop(response + scores.softmax(-1).to(seeker.dtype) @ seeker)
        states = torch.cat([read, injection.states], 1)
        return self.read(states, torch.cat([texts.response_mask, injection.mask], 1)), injection.span_logits


class Gated(Mean):
    """What is injected passes a gate that starts at 0, as in ReZero."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.gate = nn.Parameter(torch.zeros(1))

    def inject(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().inject(response, mask, gold)
        return replace(injection, states=self.gate * injection.states)


class WithGRU(Mean):
    """torch's own packed GRU, which drops inside one operation."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.gru = nn.GRU(encoder.width, encoder.width, num_layers=2, dropout=0.5, batch_first=True)

    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        order = (~mask).byte().argsort(dim=1, stable=True)
        states = states.float().gather(1, order[..., None].expand_as(states))
        packed = nn.utils.rnn.pack_padded_sequence(states, mask.sum(1), batch_first=True, enforce_sorted=False)
        with torch.autocast("cpu", enabled=False):
            states, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=mask.shape[1])
        return super().read(states, mask.gather(1, order))
