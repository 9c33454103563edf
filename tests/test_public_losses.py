"""The losses that the kit gives to everybody: what is built on them gets the kernels, and is reported to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import empathy_kit.losses
from empathy_kit.core import kernels
from empathy_kit.core.batch import Targets
from empathy_kit.core.losses.focal import is_focal
from empathy_kit.core.losses.formula import reference
from empathy_kit.core.losses.probe import probe
from empathy_kit.core.model import Output
from empathy_kit.core.objective import Objective
from empathy_kit.losses import FocalLoss, balanced_weights, cross_entropy, focal

CPU = torch.device("cpu")
LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(12) % 3
WEIGHT = torch.tensor([0.5, 1.0, 4.0])


class Rare(FocalLoss):
    """Chooses weights, and nothing else."""

    def __init__(self, counts: tuple[int, ...]) -> None:
        super().__init__(1.5, balanced_weights(counts))


class Half(FocalLoss):
    """Computes something of its own."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().forward(logits, target) / 2


class Adjusted(nn.Module):
    """Holds one, and gives it other logits."""

    def __init__(self) -> None:
        super().__init__()
        self.focal = FocalLoss(2.0, WEIGHT)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.scale * self.focal(logits + WEIGHT.log(), target)


def hooked() -> FocalLoss:
    loss = FocalLoss(2.0)
    loss.register_forward_hook(lambda module, given, found: found / 2)
    return loss


def patched() -> FocalLoss:
    loss = FocalLoss(2.0)
    loss.forward = lambda logits, target: focal(logits, target) / 2  # type: ignore[method-assign]
    return loss


def added(logits: Tensor, target: Tensor) -> Tensor:
    return focal(logits, target, 2.0, WEIGHT) + 0.1 * cross_entropy(logits, target)


# A builder's result: whether it is focal loss itself, what it should give, and how many of the kit's losses it calls.
BUILT: dict[str, tuple[Callable[[], Any], bool, Callable[[Tensor], Tensor], int]] = {
    "the kit's": (lambda: FocalLoss(2.0, WEIGHT), True, lambda z: reference(z, TARGET, 2.0, WEIGHT), 1),
    "a subclass that chooses weights": (
        lambda: Rare((6, 3, 3)),
        True,
        lambda z: reference(z, TARGET, 1.5, torch.tensor(balanced_weights((6, 3, 3)))),
        1,
    ),
    "a subclass that computes": (lambda: Half(2.0), False, lambda z: reference(z, TARGET) / 2, 1),
    "with a hook": (hooked, False, lambda z: reference(z, TARGET) / 2, 1),
    "with a forward of its own": (patched, False, lambda z: reference(z, TARGET) / 2, 1),
    "a module that holds one": (Adjusted, False, lambda z: reference(z + WEIGHT.log(), TARGET, 2.0, WEIGHT), 1),
    "a function": (
        lambda: added,
        False,
        lambda z: reference(z, TARGET, 2.0, WEIGHT) + 0.1 * reference(z, TARGET, 0.0),
        2,
    ),
}


def trained(criterion: Any) -> tuple[Tensor, Tensor]:
    """The objective of one task, and its gradient, as a training step takes them."""
    logits = LOGITS.clone().requires_grad_()
    targets = Targets(TARGET[:, None], torch.zeros(12, 1, 1, dtype=torch.bool), torch.zeros(12, 1, dtype=torch.bool))
    total = Objective({"ER": criterion})(Output({"ER": logits}, None), targets, torch.ones(12, 1, dtype=torch.bool))
    return total, torch.autograd.grad(total, logits)[0]


def test_the_public_names() -> None:
    assert empathy_kit.losses.__all__ == ["focal", "FocalLoss", "cross_entropy", "balanced_weights"]


@pytest.mark.parametrize("name", BUILT)
def test_what_is_built_on_the_kits_losses_has_the_formulas_numbers_by_the_kernel(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, plain, expected, calls = BUILT[name]
    loss = build()
    assert is_focal(loss) == plain
    kernel = kernels.find(CPU)
    read: list[tuple[str, int]] = []
    if not isinstance(kernel, str):
        monkeypatch.setattr(kernels, "find", lambda device: Spy(kernel, read))
    logits = LOGITS.clone().requires_grad_()
    value = expected(logits).mean()
    (slope,) = torch.autograd.grad(value, logits)
    found, gradient = trained(loss)
    torch.testing.assert_close(found, value)
    torch.testing.assert_close(gradient, slope)
    if not isinstance(kernel, str):
        assert [what for what, _ in read] == ["forward"] * calls + ["backward"] * calls  # each once, whatever is done with it
        assert len({place for _, place in read}) == 1  # where the logits lie: none was copied
        monkeypatch.setattr(kernels, "find", lambda device: kernel)
        assert probe(loss, 3, CPU) == kernels.Use("auto", calls=calls, fused=calls)
    with kernels.fused("off"):
        assert probe(loss, 3, CPU) == kernels.Use("off", calls=calls, fused=0)


class Spy:
    """The kernel as one of another device would be, which makes no mean by itself; notes which logits it reads."""

    heads = False

    def __init__(self, kernel: kernels.Kernel, read: list[tuple[str, int]]) -> None:
        self.kernel, self.read, self.name = kernel, read, kernel.name

    def takes(self, logits: Tensor) -> bool:
        return self.kernel.takes(logits)

    def ahead(self) -> Spy:
        return self

    def forward(self, logits: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
        self.read.append(("forward", logits.data_ptr()))
        return self.kernel.forward(logits, *arguments)

    def backward(self, up: Tensor, logits: Tensor, *arguments: Any) -> Tensor:
        self.read.append(("backward", logits.data_ptr()))
        return self.kernel.backward(up, logits, *arguments)


def test_the_mean_is_taken_at_once_where_a_loss_is_focal_loss_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    mean = FocalLoss.mean
    monkeypatch.setattr(FocalLoss, "mean", lambda self, *given: asked.append(self) or mean(self, *given))
    losses = {name: build() for name, (build, *_) in BUILT.items()}
    for loss in losses.values():
        trained(loss)
    assert asked == [losses["the kit's"], losses["a subclass that chooses weights"]]


def test_a_loss_is_probed_without_a_trace() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            return cross_entropy(logits + torch.randn(()), target)

    loss, before = Counting(), torch.random.get_rng_state()
    assert probe(loss, 3, CPU).calls == 1
    assert loss.calls == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    assert probe(lambda logits, target: logits[:, 7], 3, CPU).calls == 0  # it fails where it is used, by its name
    assert probe(lambda logits, target: cross_entropy(logits.double(), target), 3, CPU).fused == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((-1.0, None), r"^gamma is -1.0, expected 0 or more$"),
        ((float("inf"), None), r"^gamma is inf, expected 0 or more$"),
        ((2.0, [1.0, -0.5]), r"^weight is \[1.0, -0.5\], expected 0 or more for every class$"),
        ((2.0, [1.0, float("nan")]), r"^weight is \[1.0, nan\], expected 0 or more for every class$"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_when_it_is_built(options: tuple[float, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FocalLoss(*options)


def test_weights_may_be_a_tensor_which_the_loss_does_not_share() -> None:
    weight = WEIGHT.clone()
    loss = FocalLoss(2.0, weight)
    weight.zero_()
    torch.testing.assert_close(loss(LOGITS, TARGET), reference(LOGITS, TARGET, 2.0, WEIGHT))
    torch.testing.assert_close(cross_entropy(LOGITS, TARGET, WEIGHT), reference(LOGITS, TARGET, 0.0, WEIGHT))
