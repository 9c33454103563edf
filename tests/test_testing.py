"""The conformance kit: the kit's own plugins keep every promise, and each broken promise is caught by the check that names it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empathy_kit import Encoded, Head, Injection, KitError, Loss, Rationale
from empathy_kit.plugins import Provided, load_registry
from empathy_kit.testing import checks, head_checks, loss_checks, rationale_checks


def broken(found: list[Any]) -> set[str]:
    """The names of the checks that fail."""

    def fails(check: Callable[[], None]) -> bool:
        try:
            check()
        except Exception:
            return True
        return False

    return {str(check) for check in found if fails(check)}


def own() -> Iterator[Any]:
    for entry in load_registry().provided:
        for check in checks(entry.spec):
            yield pytest.param(entry, check, id=f"{entry.kind}-{entry.spec.name}-{check}")


@pytest.mark.parametrize(("entry", "check"), list(own()))
def test_the_kits_own_plugins_keep_every_promise(entry: Provided, check: Callable[[], None]) -> None:
    check()


def ce(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="none")


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 1.5 * gradient


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


def numpy_ce(logits: Tensor, target: Tensor) -> Tensor:
    if float(logits.detach().sum()) > 1e9:  # a decision on a value breaks the graph
        return ce(logits, target) + 0
    return ce(logits, target)


def in_place(logits: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        logits.sub_(logits.amax(1, keepdim=True))
    return ce(logits, target)


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


def three_levels(logits: Tensor, target: Tensor) -> Tensor:
    return ce(logits, target) * torch.tensor([0.5, 1.0, 2.0])[target]


def of_the_batch(logits: Tensor, target: Tensor) -> Tensor:
    return ce(logits, target) * (1 + target.float().mean()) if len(target) else ce(logits, target)


def in_reduced_precision(logits: Tensor, target: Tensor) -> Tensor:
    return ce(torch.clamp(logits, -100, 100) @ torch.eye(logits.shape[1], dtype=logits.dtype), target)


BAD_LOSSES: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "mean": (lambda task: lambda x, y: F.cross_entropy(x, y), {"one-value-an-item"}),
    "column": (lambda task: lambda x, y: ce(x, y)[:, None], {"one-value-an-item"}),
    "float64": (lambda task: lambda x, y: ce(x, y).double(), {"one-value-an-item"}),
    "detached": (lambda task: lambda x, y: ce(x.detach(), y), {"one-value-an-item"}),
    "not-for-none": (lambda task: never_empty, {"one-value-an-item"}),
    "three-levels-only": (
        lambda task: three_levels,
        {"one-value-an-item", "finite-at-the-extremes", "gradient-is-right", "better-logits-cost-less"},
    ),
    "of-the-batch": (lambda task: of_the_batch, {"items-are-independent"}),
    "log-of-softmax": (lambda task: logarithm, {"finite-at-the-extremes"}),
    "exp-overflows": (lambda task: exponential, {"finite-at-the-extremes"}),
    "wrong-gradient": (lambda task: lambda x, y: WrongGradient.apply(ce(x, y)), {"gradient-is-right"}),
    "detached-weight": (lambda task: detached_focal, {"gradient-is-right"}),
    "upside-down": (lambda task: lambda x, y: -ce(x, y), {"better-logits-cost-less"}),
    # Recomputed, it finds its own traces.
    "writes-into-logits": (lambda task: in_place, {"leaves-the-world-alone", "works-under-checkpointing"}),
    "throws-torchs-dice": (lambda task: noisy, {"the-same-call-gives-the-same-loss", "leaves-the-world-alone"}),
    # What Python does between two operations of torch cannot be part of a graph.
    "throws-pythons-dice": (lambda task: pythons_dice, {"leaves-the-world-alone", "compiles-whole"}),
    "turns-gradients-off": (lambda task: gradients_on, {"leaves-the-world-alone"}),
    "default-dtype": (lambda task: doubles, {"leaves-the-world-alone"}),
    "running-mean": (lambda task: Running(), {"the-same-call-gives-the-same-loss"}),
    "breaks-the-graph": (lambda task: numpy_ce, {"compiles-whole"}),
    "hidden-parameter": (lambda task: lambda x, y: ce(x * HIDDEN, y), {"state-survives-safetensors"}),
    "empty-state": (lambda task: Forgetful(), {"state-survives-safetensors"}),
    "divides-by-the-count": (
        lambda task: lambda x, y: ce(x, y) / torch.tensor(task.class_counts, dtype=x.dtype)[y],
        {"absent-classes-are-refused-or-survived"},
    ),
    "cast-down-by-autocast": (lambda task: in_reduced_precision, {"works-under-autocast"}),
}


@pytest.mark.parametrize("name", BAD_LOSSES)
def test_a_bad_loss_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    build, expected = BAD_LOSSES[name]
    found = broken(loss_checks(Loss(name, build)))
    assert found == expected


class Trained(nn.Module):
    """A linear head on the last state."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded.pooled)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


class MeanOfAll(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded.sequence.mean(1))  # the padding counts


class BatchNormed(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        pooled = encoded.pooled
        if self.training:
            pooled = pooled - pooled.mean(0)
        return self.linear(pooled)


class Column(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return super().forward(encoded)[..., None]


class OneTooMany(Trained):
    def probabilities(self, logits: Tensor) -> Tensor:
        return F.pad(logits, (0, 1), value=-1e9).softmax(-1)


class Unnormalised(Trained):
    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class Overflowing(Trained):
    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.exp() / logits.exp().sum(-1, keepdim=True)


class OverTheBatch(Trained):
    def probabilities(self, logits: Tensor) -> Tensor:
        return (logits - logits.mean(0)).softmax(-1)


class CutOff(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded.pooled.detach())


class Idle(Trained):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.spare = nn.Linear(width, 1)


class OwnSource(Trained):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.linear.weight, generator=generator)


class AlwaysDropping(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        torch.rand(1)
        return super().forward(encoded)


class Rounded(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        logits: Tensor = super().forward(encoded)
        return logits if logits.dtype == torch.float32 else logits.round()


class Beside(Trained):
    """Learns a tensor that is no parameter."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.scale = torch.ones(1, requires_grad=True)

    def forward(self, encoded: Encoded) -> Tensor:
        return super().forward(encoded) * self.scale


class WithCriterion(Trained):
    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target)


class MeanCriterion(WithCriterion):
    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target).mean()


class OverflowingCriterion(WithCriterion):
    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return exponential(logits, target)


class OtherWayRound(WithCriterion):
    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, 2 - target)


BAD_HEADS: dict[str, tuple[type[Trained], set[str]]] = {
    "a-column": (Column, {"one-row-of-logits-a-pair"}),
    "a-level-too-many": (OneTooMany, {"one-row-of-logits-a-pair"}),
    "mean-over-padding": (MeanOfAll, {"padding-and-neighbours-are-irrelevant"}),
    "centred-over-the-batch": (BatchNormed, {"padding-and-neighbours-are-irrelevant"}),
    "unnormalised": (Unnormalised, {"probabilities-sum-to-one"}),
    "exp-overflows": (Overflowing, {"probabilities-sum-to-one"}),
    "probabilities-of-the-batch": (OverTheBatch, {"probabilities-stay-with-their-pair"}),
    "cut-off-from-the-trunk": (CutOff, {"gradient-reaches-the-trunk"}),
    "idle-parameter": (Idle, {"every-parameter-learns"}),
    "draws-its-own-seed": (OwnSource, {"same-seed-same-weights"}),
    "throws-dice-at-inference": (AlwaysDropping, {"leaves-the-world-alone"}),
    "rounds-under-autocast": (Rounded, {"works-under-autocast"}),
    "learns-beside-its-state": (Beside, {"state-survives-safetensors"}),
    "criterion-is-a-mean": (MeanCriterion, {"criterion-gives-one-value-an-item"}),
    "criterion-overflows": (OverflowingCriterion, {"criterion-is-finite-at-the-extremes"}),
    "criterion-teaches-another-level": (OtherWayRound, {"criterion-leads-to-the-right-level"}),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_bad_head_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    made, expected = BAD_HEADS[name]
    found = broken(head_checks(Head(name, lambda task, width: made(width, task.num_classes))))
    assert found == expected


class Twice(nn.Module):
    """Injects the response's own states, through a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.spans = nn.Linear(width, 3)

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return Injection(self.linear(response), mask, self.spans(response).transpose(1, 2))


class NeedsGold(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        assert gold is not None
        return super().forward(response, mask, gold)


class Peeks(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        return injection if gold is None else Injection(injection.states, mask & gold.any(1), injection.span_logits)


class Remembers(Twice):
    """Keeps the last batch's gold and uses it where it is given none."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.last: Tensor | None = None

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        self.last = gold if gold is not None else self.last
        if self.last is None or self.last.shape[::2] != mask.shape:
            return injection
        return Injection(injection.states, mask & self.last.any(1), injection.span_logits)


class ReadsPadding(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        return Injection(injection.states, torch.ones_like(mask), injection.span_logits)


class MeanOfTheBatch(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        return Injection(injection.states + response.mean(0), mask, injection.span_logits)


class TurnedSpans(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return Injection(self.linear(response), mask, self.spans(response))


class FloatMask(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        return Injection(injection.states, mask.float(), injection.span_logits)


class CutOffInjector(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return super().forward(response.detach(), mask, gold)


class IdleInjector(Twice):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.spare = nn.Parameter(torch.zeros(width))


class OwnSourceInjector(Twice):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.linear.weight, generator=generator)


class ThrowsDice(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        torch.rand(1)
        return super().forward(response, mask, gold)


class RoundedInjector(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        states = injection.states
        return Injection(states if states.dtype == torch.float32 else states.round(), mask, injection.span_logits)


class BesideInjector(Twice):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.scale = torch.ones(1, requires_grad=True)

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        return Injection(injection.states * self.scale, mask, injection.span_logits)


BAD_RATIONALES: dict[str, tuple[type[Twice], set[str]]] = {
    "spans-turned": (TurnedSpans, {"an-injection-has-its-shapes"}),
    "mask-of-floats": (FloatMask, {"an-injection-has-its-shapes"}),
    "needs-gold": (NeedsGold, {"works-without-gold"}),
    "peeks-at-gold": (Peeks, {"never-leaks-gold"}),
    # What it remembers is state, and no checkpoint holds it.
    "remembers-gold": (Remembers, {"never-leaks-gold", "state-survives-safetensors"}),
    "reads-padding": (ReadsPadding, {"padding-and-neighbours-are-irrelevant"}),
    "mean-of-the-batch": (MeanOfTheBatch, {"padding-and-neighbours-are-irrelevant"}),
    "cut-off-from-the-trunk": (CutOffInjector, {"gradient-reaches-the-trunk"}),
    "idle-parameter": (IdleInjector, {"gradient-reaches-the-trunk"}),
    "draws-its-own-seed": (OwnSourceInjector, {"same-seed-same-weights"}),
    "throws-dice-at-inference": (ThrowsDice, {"leaves-the-world-alone"}),
    "rounds-under-autocast": (RoundedInjector, {"works-under-autocast"}),
    "learns-beside-its-state": (BesideInjector, {"state-survives-safetensors"}),
}


@pytest.mark.parametrize("name", BAD_RATIONALES)
def test_a_bad_injector_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    made, expected = BAD_RATIONALES[name]
    gold: Any = "train" if name == "remembers-gold" else "never"
    found = broken(rationale_checks(Rationale(name, lambda tasks, width: made(width), gold=gold)))
    assert found == expected


def test_every_check_catches_something() -> None:
    for bad, found in (
        (BAD_LOSSES, loss_checks(Loss("any", lambda task: ce))),
        (BAD_HEADS, head_checks(Head("any", lambda task, width: Trained(width, task.num_classes)))),
        (BAD_RATIONALES, rationale_checks(Rationale("any", lambda tasks, width: Twice(width), gold="never"))),
    ):
        caught = set().union(*(expected for _, expected in bad.values()))
        assert caught == {str(check) for check in found}


def test_each_check_says_its_promise_in_a_sentence() -> None:
    for entry in load_registry().provided:
        for check in checks(entry.spec):
            assert check.promise.endswith((".", ": 1e-5."))
            assert "\n" not in check.promise


def with_known_failure(build: Any, **known: str) -> dict[str, Callable[[], None]]:
    named = {name.replace("_", "-"): reason for name, reason in known.items()}
    return {str(check): check for check in loss_checks(Loss("any", build), known_failures=named)}


def test_a_known_failure_is_expected_to_fail() -> None:
    check = with_known_failure(lambda task: logarithm, finite_at_the_extremes="logarithm of 0")["finite-at-the-extremes"]
    with pytest.raises(pytest.xfail.Exception, match="logarithm of 0"):
        check()


def test_a_known_failure_that_holds_is_an_error() -> None:
    check = with_known_failure(lambda task: ce, finite_at_the_extremes="logarithm of 0")["finite-at-the-extremes"]
    with pytest.raises(AssertionError) as error:
        check()
    assert str(error.value) == ("finite-at-the-extremes holds, but is declared as a known failure (logarithm of 0); delete that")


def test_a_known_failure_of_no_check_lists_the_checks() -> None:
    with pytest.raises(ValueError, match=r"known failure 'finite': no such check; there are one-value-an-item, .*-survived$"):
        with_known_failure(lambda task: ce, finite="?")


def test_options_reach_the_builder_and_unknown_ones_are_refused() -> None:
    focal = next(entry.spec for entry in load_registry().of("loss") if entry.spec.name == "focal")
    assert isinstance(focal, Loss)
    assert not broken(loss_checks(focal, options={"gamma": 0.5}))
    with pytest.raises(KitError) as error:
        loss_checks(focal, options={"gama": 1})
    assert str(error.value) == "loss focal: unknown option 'gama'; its options: gamma: float = 2.0, power: float = 0.0"


def test_a_check_leaves_the_world_as_it_was_whatever_the_plugin_does() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name in ("default-dtype", "turns-gradients-off", "throws-torchs-dice"):
        broken(loss_checks(Loss(name, BAD_LOSSES[name][0])))
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
