"""Cues: learnt vectors that a token of evidence is close to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from empathy_kit import Injection


class CueInjector(nn.Module):
    """P cues per mechanism; a token near one of them is likely evidence, and the mean of the likely tokens is injected."""

    def __init__(self, mechanisms: int, width: int, cues: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cues = nn.Parameter(torch.randn(mechanisms, cues, width) / width**0.5)  # (T, P, D)
        self.bias = nn.Parameter(torch.full((mechanisms, 1, 1), -1.0))  # (T, 1, 1): most tokens are no evidence
        self.mechanism = nn.Parameter(torch.randn(mechanisms, width) * 0.02)  # (T, D)

    def forward(
        self,
        response: Tensor,  # (B, L, D)
        mask: Tensor,  # (B, L) bool
        gold: Tensor | None,  # noqa: ARG002 - the kit never hands it over: gold="never"
    ) -> Injection:
        tokens = self.norm(response)[:, None, None]  # (B, 1, 1, L, D)
        near = (tokens @ self.cues[..., None])[..., 0]  # (B, T, P, L)
        # A soft maximum over the cues, so that each of them learns.
        spans = near.logsumexp(2) + self.bias[..., 0]  # (B, T, L)
        attention = spans.masked_fill(~mask[:, None], -torch.inf).softmax(-1).to(response.dtype)
        evidence = attention @ response.masked_fill(~mask[..., None], 0) + self.mechanism.to(response.dtype)  # (B, T, D)
        return Injection(evidence, mask[:, :1].expand(-1, evidence.shape[1]), spans)
