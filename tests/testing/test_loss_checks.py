"""The promises of losses: each broken promise is caught by the check that names it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from judging import broken, messages
from torch import Tensor, nn

from empathy_kit import Loss
from empathy_kit.testing import Check, loss_checks


def ce(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="none")


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 1.5 * gradient


class TurnedInFloat32(WrongGradient):
    """As of a fused loss, which has code of its own for float32 alone."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def soft_targets(logits: Tensor, target: Tensor) -> Tensor:
    """Soft ordinal labels (Diaz and Marathe, CVPR 2019): the least cost is at a small margin."""
    places = torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device)
    soft = (-(places - target[:, None]).abs()).softmax(-1)
    return -(soft * logits.log_softmax(-1)).sum(-1)


def setting(change: Callable[[], object]) -> Callable[[Any], Callable[[Tensor, Tensor], Tensor]]:
    def build(task: Any) -> Callable[[Tensor, Tensor], Tensor]:
        change()
        return ce

    return build


def leaves_the_world_alone(build: Callable[..., Any]) -> Check:
    (check,) = (each for each in loss_checks(Loss("any", build)) if str(each) == "leaves-the-world-alone")
    return check


SETTINGS: dict[str, Callable[[], object]] = {
    "torch's default device": lambda: torch.set_default_device("meta"),
    "the precision of float32 products": lambda: torch.set_float32_matmul_precision("medium"),
    "whether the smallest numbers are taken for 0": lambda: torch.set_flush_denormal(True),
    "cuDNN's settings": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "the environment": lambda: os.environ.update(EMPATHY_KIT_TEST=str(random.SystemRandom().random())),
    "the working folder": lambda: os.chdir("/"),
    "whether oneDNN computes": lambda: setattr(torch.backends.mkldnn, "enabled", False),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_loss_that_changes_what_all_code_shares_is_caught_and_its_change_undone(name: str) -> None:
    change = SETTINGS[name]
    check = leaves_the_world_alone(setting(change))
    before = (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, Path.cwd(), dict(os.environ))
    with pytest.raises(AssertionError, match=f"^it changes {name}"):
        check()
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, Path.cwd(), dict(os.environ)) == before


@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])  # there may be no CUDA, and no number is to be had on meta
def test_where_no_default_device_was_set_none_is_afterwards(device: str) -> None:
    """One that is set slows every call of torch, be it the CPU."""
    with pytest.raises(AssertionError, match=r"^it changes torch's default device"):
        leaves_the_world_alone(setting(lambda: torch.set_default_device(device)))()
    assert getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None) is None
    assert torch.overrides._len_torch_function_stack() == 0


def test_a_default_device_that_was_set_stays_set() -> None:
    torch.set_default_device("cpu")
    try:
        assert leaves_the_world_alone(lambda task: ce).judge() is None
        assert torch._GLOBAL_DEVICE_CONTEXT.device_context.device == torch.device("cpu")
    finally:
        torch.set_default_device(None)


class Running(nn.Module):
    """Divides by a mean of all losses so far, which is kept beside the state."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = 1.0

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        values = ce(logits, target)
        self.mean = 0.9 * self.mean + 0.1 * float(values.detach().sum())
        return values / self.mean


class Forgetful(nn.Module):
    """Learns a temperature, and hides it from the state."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits * self.temperature, target)

    def state_dict(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        return {}

    def load_state_dict(self, *arguments: Any, **named: Any) -> Any:
        return None


HIDDEN = torch.ones(1, requires_grad=True)


class Module(nn.Module):
    """A loss with a temperature that it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits * self.temperature, target)


class Drawn(nn.Module):
    """Starts from random weights, as every layer of torch does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits * (2 + self.layer.weight[0]), target)


class OwnSource(Drawn):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator()
        generator.seed()
        nn.init.uniform_(self.layer.weight, generator=generator)


def of_one_seed(task: Any) -> Drawn:
    torch.manual_seed(42)
    return Drawn()


class Idle(Module):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.ones(1))


class NoisyInTraining(Module):
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().forward(F.dropout(logits, 0.1, self.training), target)


class CountsInEvaluation(Module):
    """Divides by the number of its calls outside of training."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.ones(1))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if not self.training:
            self.calls += 1
        return super().forward(logits, target) / self.calls


SHARED = Module()


def numpy_ce(logits: Tensor, target: Tensor) -> Tensor:
    if float(logits.detach().sum()) > 1e9:  # a decision on a value breaks the graph
        return ce(logits, target) + 0
    return ce(logits, target)


def in_place(logits: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        logits.sub_(logits.amax(1, keepdim=True))
    return ce(logits, target)


def clamped(logits: Tensor, target: Tensor) -> Tensor:
    return ce(logits.data.clamp_(-20, 20) + logits - logits.detach(), target)


def noisy(logits: Tensor, target: Tensor) -> Tensor:
    return ce(logits + 0.01 * torch.randn_like(logits), target)


def pythons_dice(logits: Tensor, target: Tensor) -> Tensor:
    random.random()
    return ce(logits, target)


def gradients_on(logits: Tensor, target: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    with torch.enable_grad():
        return ce(logits, target)


def doubles(logits: Tensor, target: Tensor) -> Tensor:
    torch.set_default_dtype(torch.float64)
    return ce(logits, target)


def logarithm(logits: Tensor, target: Tensor) -> Tensor:
    return -logits.softmax(-1).log().gather(1, target[:, None])[:, 0]


def exponential(logits: Tensor, target: Tensor) -> Tensor:
    return (logits.exp().sum(1) + 1e-9).log() - logits.gather(1, target[:, None])[:, 0]


def detached_focal(logits: Tensor, target: Tensor) -> Tensor:
    values = ce(logits, target)
    return (1 - (-values).exp()).detach() ** 2 * values


def never_empty(logits: Tensor, target: Tensor) -> Tensor:
    return ce(logits, target) + 0 * target[0]


def three_labels(logits: Tensor, target: Tensor) -> Tensor:
    return ce(logits, target) * torch.tensor([0.5, 1.0, 2.0])[target]


def of_the_batch(logits: Tensor, target: Tensor) -> Tensor:
    return ce(logits, target) * (1 + target.float().mean()) if len(target) else ce(logits, target)


def in_reduced_precision(logits: Tensor, target: Tensor) -> Tensor:
    return ce(torch.clamp(logits, -100, 100) @ torch.eye(logits.shape[1], dtype=logits.dtype), target)


BAD_LOSSES: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "returns-nothing": (lambda task: None, {"can-be-built"}),
    "raises": (lambda task: {}["nothing"], {"can-be-built"}),
    "mean": (lambda task: lambda x, y: F.cross_entropy(x, y), {"one-value-per-item"}),
    "column": (lambda task: lambda x, y: ce(x, y)[:, None], {"one-value-per-item"}),
    "float64": (lambda task: lambda x, y: ce(x, y).double(), {"one-value-per-item"}),
    "detached": (lambda task: lambda x, y: ce(x.detach(), y), {"one-value-per-item"}),
    "not-for-none": (lambda task: never_empty, {"one-value-per-item"}),
    "three-labels-only": (
        lambda task: three_labels,
        {"one-value-per-item", "finite-at-the-extremes", "gradient-is-right", "better-logits-cost-less"},
    ),
    "of-the-batch": (lambda task: of_the_batch, {"items-are-independent"}),
    "log-of-softmax": (lambda task: logarithm, {"finite-at-the-extremes"}),
    "exp-overflows": (lambda task: exponential, {"finite-at-the-extremes"}),
    "wrong-gradient": (lambda task: lambda x, y: WrongGradient.apply(ce(x, y)), {"gradient-is-right"}),
    "detached-weight": (lambda task: detached_focal, {"gradient-is-right"}),
    "upside-down": (lambda task: lambda x, y: -ce(x, y), {"better-logits-cost-less"}),
    # Recomputed, it finds its own traces.
    "writes-into-logits": (lambda task: in_place, {"leaves-the-world-alone", "works-under-checkpointing"}),
    # Where autograd notices nothing, and only logits that a long training gives show it.
    "clamps-its-logits": (lambda task: clamped, {"leaves-the-world-alone"}),
    "throws-torchs-dice": (lambda task: noisy, {"the-same-call-gives-the-same-loss", "leaves-the-world-alone"}),
    # What Python does between two operations of torch cannot be part of a graph.
    "throws-pythons-dice": (lambda task: pythons_dice, {"leaves-the-world-alone", "compiles-whole"}),
    "turns-gradients-off": (lambda task: gradients_on, {"leaves-the-world-alone"}),
    "default-dtype": (lambda task: doubles, {"leaves-the-world-alone"}),
    "draws-its-own-seed": (lambda task: OwnSource(), {"leaves-the-world-alone"}),
    "sets-the-seed": (of_one_seed, {"leaves-the-world-alone"}),
    "noisy-in-training": (lambda task: NoisyInTraining(), {"the-same-call-gives-the-same-loss", "leaves-the-world-alone"}),
    # Its state differs from call to call, and so does what a saved one gives.
    "counts-in-evaluation": (lambda task: CountsInEvaluation(), {"the-same-call-gives-the-same-loss"}),
    "turned-in-float32": (
        lambda task: lambda x, y: TurnedInFloat32.apply(ce(x, y)) if x.dtype == torch.float32 else ce(x, y),
        {"gradient-is-right"},
    ),
    "idle-parameter": (lambda task: Idle(), {"every-parameter-learns"}),
    "shared-by-all-tasks": (lambda task: SHARED, {"every-parameter-learns"}),
    "running-mean": (lambda task: Running(), {"the-same-call-gives-the-same-loss"}),
    "breaks-the-graph": (lambda task: numpy_ce, {"compiles-whole"}),
    "hidden-parameter": (lambda task: lambda x, y: ce(x * HIDDEN, y), {"state-survives-safetensors"}),
    "empty-state": (lambda task: Forgetful(), {"state-survives-safetensors"}),
    "divides-by-the-count": (
        lambda task: lambda x, y: ce(x, y) / torch.tensor(task.class_counts, dtype=x.dtype)[y],
        {"absent-labels-are-refused-or-survived"},
    ),
    "cast-down-by-autocast": (lambda task: in_reduced_precision, {"works-under-autocast"}),
}


@pytest.mark.parametrize("name", BAD_LOSSES)
def test_a_bad_loss_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    build, expected = BAD_LOSSES[name]
    found = broken(loss_checks(Loss(name, build)))
    assert found == expected


def test_every_check_of_a_loss_catches_something() -> None:
    caught = set().union(*(expected for _, expected in BAD_LOSSES.values()))
    assert caught == {str(check) for check in loss_checks(Loss("any", lambda task: ce))}


@pytest.mark.parametrize("made", [Module, Drawn, lambda: soft_targets])
def test_a_good_loss_is_not_caught(made: Callable[[], Any]) -> None:
    """Two that learn, and one whose least cost is not at the surest answer."""
    assert messages(loss_checks(Loss("good", lambda task: made()))) == {}


def test_a_value_that_is_not_finite_is_named_with_its_logits_and_its_target() -> None:
    found = messages(loss_checks(Loss("logarithm", lambda task: logarithm)))
    assert found == {
        "finite-at-the-extremes": "a gradient is not finite: one logit 100, the others 0, target 1 of 2 labels, torch.float32"
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("draws-its-own-seed", "layer.weight differs: it is drawn from another source than torch's seed"),
        (
            "sets-the-seed",
            "it sets torch's random numbers while it is built, so that runs of several seeds draw the same",
        ),
    ],
)
def test_what_is_wrong_with_how_a_loss_draws_its_weights_is_said(name: str, message: str) -> None:
    assert messages(loss_checks(Loss(name, BAD_LOSSES[name][0]))) == {"leaves-the-world-alone": message}
