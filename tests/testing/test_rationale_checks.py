"""The promises of rationale injectors: each broken promise is caught by the check that names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from judging import broken, messages
from torch import Tensor, nn

from empathy_kit import Injection, Rationale
from empathy_kit.testing import rationale_checks


class Twice(nn.Module):
    """Injects the response's own states, through a linear layer."""

    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.spans = nn.Linear(width, tasks)

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

    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
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


class BesideInjector(Twice):
    def __init__(self, width: int, tasks: int = 3) -> None:
        super().__init__(width, tasks)
        self.scale = torch.ones(1, requires_grad=True)

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().forward(response, mask, gold)
        return Injection(injection.states * self.scale, mask, injection.span_logits)


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


@pytest.mark.parametrize("made", [Twice, DroppingInTraining, EndlessAtPadding])
def test_a_good_injector_is_not_caught(made: type[Twice]) -> None:
    assert messages(rationale_checks(Rationale("good", lambda tasks, width: made(width, len(tasks)), gold="never"))) == {}
