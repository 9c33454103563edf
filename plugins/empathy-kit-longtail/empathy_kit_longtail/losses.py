"""The formulas. Each takes logits (N, C) and targets (N,), and gives (N,)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassBalanced(nn.Module):
    """Focal loss (gamma 0: cross-entropy) times the target level's weight (1 - beta) / (1 - beta^n), scaled to a sum of C."""

    weights: Tensor  # (C,)

    def __init__(self, counts: Sequence[int], beta: float, gamma: float) -> None:
        super().__init__()
        # In float64: beta^n is next to 1 for a large beta and a small n.
        effective = 1 - torch.tensor(beta, dtype=torch.float64) ** torch.tensor(counts)
        weights = (1 - beta) / effective
        self.gamma = gamma
        self.register_buffer("weights", (weights * len(counts) / weights.sum()).float(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        ce = F.cross_entropy(logits, target, reduction="none")
        if self.gamma:
            # log(1 - p) of the target from the other logits: 1 - exp(-ce) would lose all digits of a sure answer.
            others = logits.masked_fill(F.one_hot(target, logits.shape[1]).bool(), -torch.inf).logsumexp(1)
            ce = ce * torch.exp(self.gamma * (others - logits.logsumexp(1)))
        return self.weights.to(logits.dtype)[target] * ce


class LDAM(nn.Module):
    """Cross-entropy after taking a margin off the target's logit; margins go with n^(-1/4)."""

    margins: Tensor  # (C,)

    def __init__(self, counts: Sequence[int], max_margin: float, scale: float) -> None:
        super().__init__()
        margins = torch.tensor(counts, dtype=torch.float64) ** -0.25
        self.scale = scale
        self.register_buffer("margins", (margins * max_margin / margins.max()).float(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        margin = self.margins.to(logits.dtype)[target][:, None] * F.one_hot(target, logits.shape[1])
        return F.cross_entropy(self.scale * (logits - margin), target, reduction="none")


class LogitAdjusted(nn.Module):
    """Cross-entropy of logits + tau log(n / N)."""

    adjustment: Tensor  # (C,)

    def __init__(self, counts: Sequence[int], tau: float) -> None:
        super().__init__()
        shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
        self.register_buffer("adjustment", (tau * shares.log()).float(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits + self.adjustment.to(logits.dtype), target, reduction="none")


class Asymmetric(nn.Module):
    """A binary question per level: focused by gamma_positive at the target, by gamma_negative and the shift elsewhere."""

    def __init__(self, gamma_positive: float, gamma_negative: float, shift: float) -> None:
        super().__init__()
        self.gamma_positive, self.gamma_negative, self.shift = gamma_positive, gamma_negative, shift

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)  # log p, log(1 - p): (N, C)
        positive = -torch.exp(self.gamma_positive * no) * yes
        shifted = (yes.exp() - self.shift).clamp(min=0)
        rest = no if self.shift == 0 else (no.exp() + self.shift).clamp(max=1).log()  # log(1 - shifted)
        negative = -(shifted**self.gamma_negative) * rest
        right = F.one_hot(target, logits.shape[1]).bool()
        return torch.where(right, positive, negative).sum(1)
