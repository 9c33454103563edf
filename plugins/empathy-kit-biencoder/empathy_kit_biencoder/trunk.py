"""Two encoders, and attention of the response over the seeker post."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from empathy_kit import Encoded, Texts


class Attention(nn.Module):
    """Single-head scaled dot-product attention: each response token looks for what concerns it in the seeker post."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # a bias would add the same to every score of a softmax
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.normal_(layer.weight, std=0.02)  # theirs, which is BERT's
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        response: Tensor,  # (B, L, D)
        seeker: Tensor,  # (B, Ls, D)
        mask: Tensor,  # (B, Ls) bool
    ) -> Tensor:  # (B, L, D)
        scores = self.query(response) @ self.key(seeker).transpose(1, 2) / response.shape[-1] ** 0.5  # (B, L, Ls)
        weights = self.dropout(scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1))
        attended: Tensor = self.out(weights.to(seeker.dtype) @ self.value(seeker))
        return attended


class BiEncoder(nn.Module):
    """Texts -> the response's states in the light of the seeker post; the pair's state is the first one's."""

    def __init__(self, encoder: Any, injector: nn.Module, dropout: float, *, attention: bool = True) -> None:
        super().__init__()
        self.width: int = encoder.width
        self.response_encoder = encoder
        self.seeker_encoder: Any = encoder.copy(frozen=True) if attention else None
        self.injector = injector
        self.attention = Attention(self.width, dropout) if attention else None
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        texts: Texts,
        gold: Tensor | None = None,  # (B, T, L) bool
    ) -> tuple[Encoded, Tensor | None]:  # and the injector's span logits (B, T, L)
        states = self.response_encoder.response(texts)  # (B, L, D)
        if self.attention is not None:
            states = states + self.dropout(self.attention(states, self.seeker_encoder.seeker(texts), texts.seeker_mask))
        states = self.dropout(states.float())
        injection = self.injector(states, texts.response_mask, gold)
        sequence = torch.cat([states, injection.states.float()], dim=1)  # (B, L + K, D)
        mask = torch.cat([texts.response_mask, injection.mask], dim=1)
        # The first token has read the whole response, and all that it found in the seeker post.
        return Encoded(states[:, 0], sequence.masked_fill(~mask[..., None], 0), mask), injection.span_logits
