"""The promises of trunks: each broken promise is caught by the check that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from good_parts import Gated, Mean, Output, TwoEncoders, WithGRU
from judging import broken, messages
from torch import Tensor, nn

from empathy_kit import Encoded, Injection, Texts, Trunk
from empathy_kit.testing import trunk_checks


def changed(change: Callable[[Encoded], Encoded]) -> Callable[..., Any]:
    """A builder of a trunk whose encoded output is changed at the end."""

    class Changed(Mean):
        def read(self, states: Tensor, mask: Tensor) -> Encoded:
            return change(super().read(states, mask))

    return Changed


class WrongWidth(Mean):
    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.width = encoder.width


class NoWidth(Mean):
    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.width = None


class OneOutput(Mean):
    def forward(self, texts: Texts, gold: Tensor | None) -> Any:
        return super().forward(texts, gold)[0]


class ShortTable(Mean):
    """Has learnt 20 positions of the response, where a run's posts have up to 64 tokens."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.positions = nn.Embedding(20, 8)

    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        encoded, spans = super().forward(texts, gold)
        places = self.positions(texts.response_mask.sum(1))
        return replace(encoded, pooled=encoded.pooled + places), spans


class WithoutSpans(Mean):
    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        return super().forward(texts, gold)[0], None


class TurnedSpans(Mean):
    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        encoded, spans = super().forward(texts, gold)
        return encoded, spans if spans is None else -spans


class DetachesSpans(Mean):
    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        encoded, spans = super().forward(texts, gold)
        return encoded, spans if spans is None else spans.detach()


class WithholdsGold(Mean):
    def inject(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return super().inject(response, mask, None)


class AsksTwice(Mean):
    def inject(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        super().inject(response, mask, gold)
        return super().inject(response, mask, gold)


class InjectsIntoSeeker(Mean):
    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        seeker, response = self.encoder(texts)
        injection = self.inject(response, torch.ones_like(texts.response_mask), gold)
        states = torch.cat([seeker, response, injection.states], 1)
        return self.read(states, torch.cat([texts.seeker_mask, texts.response_mask, injection.mask], 1)), injection.span_logits


class ReadsNothingInjected(Mean):
    def inject(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().inject(response, mask, gold)
        return replace(injection, mask=torch.zeros_like(injection.mask))


class ReadsAllInjected(Mean):
    def inject(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().inject(response, mask, gold)
        return replace(injection, mask=torch.ones_like(injection.mask))


class DetachesInjected(Mean):
    def inject(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        injection = super().inject(response, mask, gold)
        return replace(injection, states=injection.states.detach())


class Peeks(Mean):
    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        encoded, spans = super().forward(texts, gold)
        hint = 0.0 if gold is None else gold.any(2).any(1).float()[:, None]
        return replace(encoded, pooled=encoded.pooled + hint), spans


class Remembers(Mean):
    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.last: Tensor | None = None

    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        encoded, spans = super().forward(texts, gold)
        if self.training and gold is not None:
            self.last = gold.any(2).any(1).float()[:, None]
        elif not self.training and self.last is not None:
            return replace(encoded, pooled=encoded.pooled + self.last), spans
        return encoded, spans


class KeepsAMean(Mean):
    """Takes off a mean of all that it has read in training, which its state_dict holds."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.register_buffer("mean", torch.zeros(8))

    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        encoded = super().read(states, mask)
        if self.training:
            self.mean = self.mean + 0.1 * encoded.pooled.detach().mean(0)
        return replace(encoded, pooled=encoded.pooled - self.mean)


class KeepsAMeanBeside(KeepsAMean):
    """The same, outside of its state_dict."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        del self.mean
        self.mean = torch.zeros(8)


class MeanOfTheBatch(Mean):
    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        encoded = super().read(states, mask)
        return replace(encoded, pooled=encoded.pooled - encoded.pooled.mean(0)) if self.training else encoded


class MeanOverPadding(Mean):
    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        encoded = super().read(states, mask)
        return replace(encoded, pooled=encoded.sequence.mean(1))


class CutOff(Mean):
    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        return super().read(states.detach(), mask)


class Idle(Mean):
    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.spare = nn.Linear(2, 2)


class IdleEncoder(Mean):
    """Trains a copy, and carries the encoder itself along."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder.copy(), injector)
        self.spare = encoder


SHARED = nn.Linear(16, 8)


class SharedLayer(Mean):
    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        self.linear = SHARED


class OwnSource(Mean):
    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.linear.weight, generator=generator)


class ThrowsDice(Mean):
    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        torch.rand(1)
        return super().read(states, mask)


class Dropping(Mean):
    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        return super().read(F.dropout(states), mask)


class NoisyInTraining(Mean):
    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        return super().read(states + 0.1 * torch.randn_like(states) if self.training else states, mask)


class SeedsItsDropout(Mean):
    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        if self.training:
            torch.manual_seed(0)
        return super().read(F.dropout(states, 0.2, self.training), mask)


class SeedsItself(Mean):
    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        torch.manual_seed(0)
        super().__init__(encoder, injector)


class WritesIntoMasks(Mean):
    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        texts.seeker_mask.logical_and_(texts.seeker > 0)
        return super().forward(texts, gold)


def half(encoded: Encoded) -> Encoded:
    return replace(encoded, pooled=encoded.pooled.bfloat16()) if torch.is_autocast_enabled("cpu") else encoded


class Rounded(Mean):
    def read(self, states: Tensor, mask: Tensor) -> Encoded:
        return super().read(states.round() if torch.is_autocast_enabled("cpu") else states, mask)


class HiddenEncoder(Mean):
    """Keeps its encoder in a list, where no state_dict finds it."""

    def __init__(self, encoder: Any, injector: nn.Module) -> None:
        super().__init__(encoder, injector)
        del self.encoder
        self.hidden = [encoder]

    def forward(self, texts: Texts, gold: Tensor | None) -> Output:
        seeker, response = self.hidden[0](texts)
        injection = self.inject(response, texts.response_mask, gold)
        states = torch.cat([seeker, response, injection.states], 1)
        return self.read(states, torch.cat([texts.seeker_mask, texts.response_mask, injection.mask], 1)), injection.span_logits


SHAPES, ASKED, READ = "encoded-has-its-shapes", "the-injector-is-asked-and-answers", "injected-states-are-read"
PADDING, GRADIENT, LEARNS = "padding-and-neighbours-are-irrelevant", "gradient-reaches-the-encoder", "every-parameter-learns"
BAD_TRUNKS: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "returns-nothing": (lambda encoder, injector: None, {"can-be-built"}),
    "no-width": (NoWidth, {"can-be-built"}),
    "another-width": (WrongWidth, {SHAPES}),
    "one-output": (OneOutput, {SHAPES}),
    "float64": (changed(lambda encoded: replace(encoded, pooled=encoded.pooled.double())), {SHAPES}),
    "mask-of-floats": (changed(lambda encoded: replace(encoded, mask=encoded.mask.float())), {SHAPES}),
    "late-start": (changed(lambda e: replace(e, sequence=F.pad(e.sequence, (0, 0, 1, 0)), mask=F.pad(e.mask, (1, 0)))), {SHAPES}),
    "states-at-the-padding": (changed(lambda encoded: replace(encoded, sequence=encoded.sequence + 1)), {SHAPES}),
    "short-table-of-positions": (ShortTable, {SHAPES}),
    "without-spans": (WithoutSpans, {ASKED}),
    "turned-spans": (TurnedSpans, {ASKED}),
    "detaches-spans": (DetachesSpans, {ASKED}),
    "withholds-gold": (WithholdsGold, {ASKED}),
    "asks-twice": (AsksTwice, {ASKED}),
    "another-mask": (InjectsIntoSeeker, {ASKED, PADDING}),
    "reads-nothing-injected": (ReadsNothingInjected, {READ, GRADIENT}),
    "reads-all-injected": (ReadsAllInjected, {READ, PADDING}),
    "detaches-what-is-injected": (DetachesInjected, {GRADIENT}),
    "peeks-at-gold": (Peeks, {"never-leaks-gold"}),
    # What it remembers is state, and no checkpoint holds it.
    "remembers-gold": (Remembers, {"never-leaks-gold", "state-survives-safetensors"}),
    "mean-of-the-batch": (MeanOfTheBatch, {PADDING}),
    "mean-over-padding": (MeanOverPadding, {PADDING}),
    "cut-off-from-the-encoder": (CutOff, {GRADIENT}),
    "idle-parameter": (Idle, {LEARNS}),
    "idle-encoder": (IdleEncoder, {LEARNS}),
    "shared-by-all-runs": (SharedLayer, {LEARNS}),
    "draws-its-own-seed": (OwnSource, {"same-seed-same-weights"}),
    "sets-the-seed": (SeedsItself, {"same-seed-same-weights"}),
    "sets-the-seed-of-dropout": (SeedsItsDropout, {"leaves-the-world-alone"}),
    "noise-in-training": (NoisyInTraining, {"only-dropout-is-random"}),
    "throws-dice-at-inference": (ThrowsDice, {"leaves-the-world-alone"}),
    "drops-at-inference": (Dropping, {"leaves-the-world-alone"}),
    "writes-into-masks": (WritesIntoMasks, {"leaves-the-world-alone"}),
    "rounds-under-autocast": (Rounded, {"works-under-autocast"}),
    "half-under-autocast": (changed(half), {"works-under-autocast"}),
    "keeps-a-mean-beside-its-state": (KeepsAMeanBeside, {"state-survives-safetensors"}),
    "hides-its-encoder": (HiddenEncoder, {"state-survives-safetensors"}),
}


@pytest.mark.parametrize("name", BAD_TRUNKS)
def test_a_bad_trunk_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    build, expected = BAD_TRUNKS[name]
    assert broken(trunk_checks(Trunk(name, build))) == expected


def test_every_check_of_a_trunk_catches_something() -> None:
    caught = set().union(*(expected for _, expected in BAD_TRUNKS.values()))
    assert caught == {str(check) for check in trunk_checks(Trunk("any", Mean))}


@pytest.mark.parametrize("build", [Mean, TwoEncoders, Gated, WithGRU, KeepsAMean])
def test_a_good_trunk_is_not_caught(build: Callable[..., Any]) -> None:
    assert messages(trunk_checks(Trunk("good", build))) == {}


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        (
            "short-table-of-positions",
            SHAPES,
            "with an injector of the kind NoRationale and posts of 64 tokens it raises IndexError: index out of range in self",
        ),
        ("detaches-spans", ASKED, "the gradient of the span logits does not reach the injector as it is"),
    ],
)
def test_the_message_says_what_to_change(name: str, check: str, message: str) -> None:
    assert messages(trunk_checks(Trunk(name, BAD_TRUNKS[name][0]))) == {check: message}
