"""The promises of rationale injectors: each broken promise is caught by the check that names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from good_parts import Twice
from judging import broken, messages
from torch import Tensor, nn

from empathy_kit import Injection, Rationale
from empathy_kit.testing import rationale_checks


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

    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
        self.last: Tensor | None = None

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        self.last = gold if gold is not None else self.last
        if self.last is None or self.last.shape[::2] != mask.shape:
            return injection
        return Injection(injection.states, mask & self.last.any(1), injection.span_logits)


class KeepsAMean(Twice):
    """Takes off a mean of the states that were annotated in training, which its state_dict holds."""

    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        if self.training and gold is not None:
            self.mean = self.mean + 0.1 * response.detach()[gold.any(1)].mean(0)
        return Injection(injection.states - self.mean.to(response.dtype), mask, injection.span_logits)


class KeepsAMeanBeside(KeepsAMean):
    """The same, outside of its state_dict."""

    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
        del self.mean
        self.mean = torch.zeros(width)


class Gated(Twice):
    """What is injected, and what is predicted, passes a gate that starts at 0."""

    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection, gate = super().forward(response, mask, gold), self.gate.to(response.dtype)
        return Injection(gate * injection.states, mask, gate * injection.span_logits)


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
    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
        self.spare = nn.Parameter(torch.zeros(width))


class OwnSourceInjector(Twice):
    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
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


class ScaledInFloat32(Twice):
    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        return Injection(self.scale * injection.states, mask, injection.span_logits)


class BesideInjector(Twice):
    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
        self.scale = torch.ones(1, requires_grad=True)

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        return Injection(injection.states * self.scale.to(injection.states.dtype), mask, injection.span_logits)


class Dropping(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return super().forward(F.dropout(response), mask, gold)


class DroppingInTraining(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return super().forward(F.dropout(response, 0.2, self.training), mask, gold)


class Idler(Twice):
    """Has parameters, and uses none."""

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return Injection(response[:, :0], mask[:, :0])


class NoisyInTraining(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        noise = 0.1 * torch.randn_like(response) if self.training else 0.0
        return super().forward(response + noise, mask, gold)


class SeedsItsDropout(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        if self.training:
            torch.manual_seed(0)
        return super().forward(F.dropout(response, 0.2, self.training), mask, gold)


class RemembersBehindDropout(Remembers):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return super().forward(F.dropout(response, 0.2, self.training), mask, gold)


class EndlessAtPadding(Twice):
    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        found = super().forward(response, mask, gold)
        return Injection(found.states, mask, found.span_logits.masked_fill(~mask[:, None], -torch.inf))


SHARED = {1: Twice(16, 1), 3: Twice(16, 3)}

BAD_RATIONALES: dict[str, tuple[Any, set[str]]] = {
    "returns-nothing": (lambda width, tasks: None, {"can-be-built"}),
    "a-function": (lambda width, tasks: Injection, {"can-be-built"}),
    "three-tasks-only": (lambda width, tasks: Twice(width, 3), {"an-injection-has-its-shapes"}),
    "spans-turned": (TurnedSpans, {"an-injection-has-its-shapes"}),
    "mask-of-floats": (FloatMask, {"an-injection-has-its-shapes"}),
    "needs-gold": (NeedsGold, {"works-without-gold"}),
    "peeks-at-gold": (Peeks, {"never-leaks-gold"}),
    # What it remembers is state, and no checkpoint holds it.
    "remembers-gold": (Remembers, {"never-leaks-gold", "state-survives-safetensors"}),
    "remembers-gold-behind-dropout": (RemembersBehindDropout, {"never-leaks-gold", "state-survives-safetensors"}),
    "remembers-gold-in-a-mean": (KeepsAMeanBeside, {"never-leaks-gold", "state-survives-safetensors"}),
    "averages-gold-that-it-may-not-see": (KeepsAMean, {"never-leaks-gold"}),
    "noise-in-training": (NoisyInTraining, {"only-dropout-is-random"}),
    "sets-the-seed-of-dropout": (SeedsItsDropout, {"leaves-the-world-alone"}),
    "reads-padding": (ReadsPadding, {"padding-and-neighbours-are-irrelevant"}),
    "mean-of-the-batch": (MeanOfTheBatch, {"padding-and-neighbours-are-irrelevant"}),
    "cut-off-from-the-encoder": (CutOffInjector, {"gradient-reaches-the-encoder"}),
    "idle-parameter": (IdleInjector, {"every-parameter-learns"}),
    "idle-altogether": (Idler, {"every-parameter-learns"}),
    "shared-by-all-runs": (lambda width, tasks: SHARED[tasks], {"every-parameter-learns"}),
    "draws-its-own-seed": (OwnSourceInjector, {"same-seed-same-weights"}),
    "throws-dice-at-inference": (ThrowsDice, {"leaves-the-world-alone"}),
    "drops-at-inference": (Dropping, {"leaves-the-world-alone"}),
    "rounds-under-autocast": (RoundedInjector, {"works-under-autocast"}),
    "float32-under-autocast": (ScaledInFloat32, {"works-under-autocast"}),
    "learns-beside-its-state": (BesideInjector, {"state-survives-safetensors"}),
}


@pytest.mark.parametrize("name", BAD_RATIONALES)
def test_a_bad_injector_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    made, expected = BAD_RATIONALES[name]
    gold: Any = "train" if name.startswith("remembers-gold") else "never"
    found = broken(rationale_checks(Rationale(name, lambda tasks, width: made(width, len(tasks)), gold=gold)))
    assert found == expected


def test_every_check_of_an_injector_catches_something() -> None:
    caught = set().union(*(expected for _, expected in BAD_RATIONALES.values()))
    assert caught == {str(check) for check in rationale_checks(Rationale("any", lambda tasks, width: Twice(width)))}


@pytest.mark.parametrize("made", [Twice, DroppingInTraining, EndlessAtPadding, Gated, KeepsAMean])
def test_a_good_injector_is_not_caught(made: type[Twice]) -> None:
    gold: Any = "train" if made is KeepsAMean else "never"
    assert messages(rationale_checks(Rationale("good", lambda tasks, width: made(width, len(tasks)), gold=gold))) == {}


def test_what_an_injector_keeps_beside_its_state_is_named_for_what_it_is() -> None:
    spec = Rationale("mean", lambda tasks, width: KeepsAMeanBeside(width, len(tasks)), gold="train")
    assert messages(rationale_checks(spec)) == {
        "never-leaks-gold": "it remembers the gold of response 0 from training",
        "state-survives-safetensors": "response 0 is read differently from the saved state",
    }


def test_states_of_another_dtype_are_named_with_the_responses() -> None:
    spec = Rationale("scaled", lambda tasks, width: ScaledInFloat32(width, len(tasks)), gold="never")
    assert messages(rationale_checks(spec)) == {
        "works-under-autocast": "under autocast states are torch.float32, expected torch.bfloat16"
    }
