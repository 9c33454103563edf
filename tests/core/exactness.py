"""What the kernels are held to: the formula in float64, the rows that are hard, and the error that is allowed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GAMMAS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 8.0)
CLASSES = (2, 3, 7, 100)
FLOAT64 = torch.float64


def exact(logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Value and gradient in float64, term by term as focal.c's comment has them; q is never 1 - p."""
    z, rows = logits.double(), torch.arange(len(target))
    e = (z - z.amax(1, keepdim=True)).exp()
    ey, others = e[rows, target], e.scatter(1, target[:, None], 0).sum(1)
    s = ey + others
    q, p = others / s, ey / s
    nlp = torch.where(others < ey, torch.log1p(others / ey), s.log() + z.amax(1) - z[rows, target])
    power = torch.where(q > 0, q**gamma, torch.tensor(float(gamma == 0), dtype=FLOAT64))
    k = power + gamma * power * torch.where(p > 0, p * torch.where(q > 0, nlp / q, 1.0), 0.0)
    scale = torch.ones_like(q) if weight is None else weight.double()[target]
    gradient = (scale * k / s)[:, None] * e
    gradient[rows, target] = -scale * q * k
    return scale * power * nlp, gradient


def value_and_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    values = loss(logits)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    return values.detach(), gradient


def hard_rows(classes: int) -> Tensor:
    """Random rows of every spread, every margin from 0 to 80 both ways, ties, and the ends."""
    generator = torch.Generator().manual_seed(classes)
    rows = [torch.randn(60, classes, generator=generator) * spread for spread in (0.1, 1, 5, 20, 40)]
    margins = torch.zeros(81, classes)
    margins[:, 0] = torch.arange(81.0)
    rows += [margins, -margins, margins.flip(1), torch.zeros(3, classes)]
    for size in (1e4, 1e30):
        rows += [size * torch.eye(classes), -size * torch.eye(classes), size * (2 * torch.eye(classes) - 1)]
    return torch.cat(rows)


def allowed_error(logits: Tensor, gamma: float) -> Tensor:
    """(4 + gamma (4 + |z|)) 2^-24 of a row's value, and of its gradient's largest part: (N,)."""
    size = logits.abs().amax(1).double().clamp(max=100)  # the ends have no tail to be judged by their size
    return (4 + gamma * (4 + size)) * 2**-24
