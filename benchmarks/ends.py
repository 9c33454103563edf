"""Numerical limits: the kit's focal loss and its peers' on rows where exp, log or 1 - p run out of digits.

    pip install 'empathy-kit[peers]'
    python benchmarks/ends.py > benchmarks/results/ends.md

Each cell compares one batch, in float32 unless noted, with the formula in float64: right (value and gradient within 1e-3 of the
row's largest), the worst row's error, or the failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import torch
from peers import Implementation, balanced_loss, closed, eager, fused, installed
from torch import Tensor

from empathy_kit.core.losses.formula import reference

EXACT = 1e-3


@dataclass(frozen=True)
class End:
    """A batch at one of the limits."""

    name: str
    logits: Tensor
    target: Tensor
    gamma: float


def ends() -> list[End]:
    """Logits of margins and sizes that a trained model reaches, and those that only an overflow reaches."""
    third = torch.tensor([0, 1, 2])
    sure = torch.eye(3) * 15
    return [
        End("ordinary, gamma 2", torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), third, 2.0),
        End("sure by 15, gamma 2", sure, third, 2.0),
        End("sure by 15, gamma 0.5", sure, third, 0.5),
        End("sure by 40, gamma 0.5", torch.eye(3) * 40, third, 0.5),
        End("sure by 100, gamma 2", torch.eye(3) * 100, third, 2.0),
        End("wrong by 100, gamma 2", torch.eye(3) * -100, third, 2.0),
        End("logits of 1e4, gamma 0.5", torch.eye(3) * 1e4, third, 0.5),
        End("logits of 1e30, gamma 2", torch.eye(3) * 2e30 - 1e30, third, 2.0),
        End("a class at -inf, gamma 2", torch.tensor([[1.0, -torch.inf, 0.5]]), torch.tensor([0]), 2.0),
        End("sure by 8, gamma 2, bfloat16", (torch.eye(3) * 8).bfloat16(), third, 2.0),
    ]


def verdict(implementation: Implementation, end: End) -> str:
    """One cell."""
    logits = end.logits.clone().requires_grad_()
    exact = end.logits.double().requires_grad_()
    expected = reference(exact, end.target, end.gamma)
    (slope,) = torch.autograd.grad(expected.mean(), exact)
    try:
        value = implementation(logits, end.target, end.gamma, None)
        (gradient,) = torch.autograd.grad(value, logits)
    except Exception as error:
        return f"{type(error).__name__}"
    value = value.detach()
    if not value.isfinite():
        return f"value {float(value)}"
    bad = int((~gradient.isfinite()).any(1).sum())
    if bad:
        return f"gradient NaN in {bad} of {len(gradient)} rows"
    if implementation is balanced_loss:
        return "another function"
    off = max(apart(value.double(), expected.detach().mean()), apart(gradient.double(), slope))
    limit = EXACT if end.logits.dtype == torch.float32 else 2**-8
    return "right" if off <= limit else f"off by {off:.0%}"


def apart(found: Tensor, expected: Tensor) -> float:
    """The worst row's error, of its largest part; what float32 cannot hold is 0."""
    columns = found.shape[-1] if found.dim() else 1
    rows, wanted = found.reshape(-1, columns), expected.reshape(-1, columns)
    size = wanted.abs().amax(1)
    error = (rows - wanted).abs().amax(1)
    return float(torch.where(size > 1e-35, error / size.clamp(min=1e-300), torch.where(error > 1e-35, torch.inf, 0.0)).max())


def main() -> None:
    """Print the table as Markdown."""
    columns: dict[str, Implementation] = {"fused": fused, "closed form": closed, "eager": eager, **installed()}
    if find_spec("balanced_loss"):
        columns["balanced-loss"] = balanced_loss
    print("| | " + " | ".join(columns) + " |")
    print("| --- " * (len(columns) + 1) + "|")
    for end in ends():
        print(f"| {end.name} | " + " | ".join(verdict(function, end) for function in columns.values()) + " |")
    packages = {
        "torch": "torch",
        "kornia": "kornia",
        "monai": "monai",
        "focal_loss": "focal_loss_torch",
        "balanced_loss": "balanced-loss",
    }
    here = [f"{package} {version(package)}" for module, package in packages.items() if find_spec(module)]
    print("\n" + ", ".join(here) + ".")


if __name__ == "__main__":
    main()
