"""A saved state goes on with the same bits, wherever training was stopped, and whatever it was that learnt."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import NAMES, RECIPE, Small, make_model, same, weights, without_clock
from torch import Tensor, nn

from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.rationales import PredictedRationale

WHOLE = replace(RECIPE, epochs=2, warmup=0.2, schedule="linear", clip=1.0, average=0.9, select="macro-f1")
STEPS = 6  # per epoch


class Warm(nn.Module):
    """Cross-entropy with a learnt temperature, and noise from every source of random numbers that a plugin may draw from."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        noise = float(np.random.rand() + torch.rand(())) * 1e-3 if self.training else 0.0
        return cross_entropy(logits * self.log_scale.exp(), target) * (1 + noise)


class Own(LinearHead):
    """A head that learns through a criterion of its own."""

    def __init__(self) -> None:
        super().__init__(12, 2)
        self.criterion = Warm()


def with_own_criteria() -> Small:
    torch.manual_seed(0)
    heads = {name: Own() for name in NAMES}
    return Small(WHOLE, model=make_model(heads=heads), criteria={name: head.criterion for name, head in heads.items()})


def with_a_span_head() -> Small:
    torch.manual_seed(0)
    return Small(WHOLE, model=make_model(injector=PredictedRationale(2, 16)))


def resampled(generator: torch.Generator) -> Tensor:
    return torch.randint(44, (44,), generator=generator)


KINDS = {
    "a plain loss": lambda: Small(WHOLE),
    "a learnt and noisy loss": lambda: Small(WHOLE, criteria={name: Warm() for name in NAMES}),
    "heads with criteria of their own": with_own_criteria,
    "a sampler that draws": lambda: Small(WHOLE, sample=resampled),
    "a span head": with_a_span_head,
    "bfloat16": lambda: Small(WHOLE, precision="bf16"),
}


def plain(value: Any) -> bool:
    """Whether a value is made of what safetensors and JSON can hold."""
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(plain(part) for part in value)
    return value is None or isinstance(value, Tensor | str | int | float | bool)


def made(kind: str, seed: int = 0) -> Small:
    np.random.seed(seed)
    return KINDS[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_loaded_goes_on_with_the_same_bits(kind: str) -> None:
    """Saved after no step, after the first, in the midst of an epoch, at its last step, and after its validation."""
    whole = made(kind)
    events, saved = [], {}
    for at, event in enumerate(whole.trainer.fit(whole.state), start=1):
        events.append(event)
        if at in (1, STEPS - 2, STEPS, STEPS + 1, STEPS + 4):
            saved[at] = copy.deepcopy(whole.state.state_dict())
    saved[0] = copy.deepcopy(made(kind).state.state_dict())
    for stop, state in saved.items():
        assert plain(state)
        again = made(kind, seed=999)
        torch.manual_seed(999)
        again.state.load_state_dict(state)
        assert without_clock([*events[:stop], *again.fit()]) == without_clock(events)
        assert same(weights(again.model), weights(whole.model))
        assert same(weights(again.objective), weights(whole.objective))
        assert [epoch.best for epoch in again.state.history] == [epoch.best for epoch in whole.state.history]


def test_one_step_more_is_another_state() -> None:
    """The negative control: the comparison above can fail."""
    found = []
    for stop in (1, 2):
        small = Small(WHOLE)
        going = small.trainer.fit(small.state)
        for _ in range(stop):
            next(going)
        found.append(copy.deepcopy(small.state.state_dict()))
    assert not same(found[0]["trained"], found[1]["trained"])
    assert not torch.equal(found[0]["random"]["torch"], found[1]["random"]["torch"])
    assert found[0]["position"] != found[1]["position"]
    assert all(not torch.equal(*means) for means in zip(*(each["average"]["means"] for each in found), strict=True))


def test_an_interrupted_fit_may_be_called_again_on_the_same_state() -> None:
    whole = Small(WHOLE)
    events = without_clock(whole.fit())
    stopped = Small(WHOLE)  # made here: building it seeds the dropout too
    going = stopped.trainer.fit(stopped.state)
    before = [next(going) for _ in range(4)]
    going.close()
    assert [*without_clock(before), *without_clock(stopped.fit())] == events
    assert same(weights(stopped.model), weights(whole.model))


def test_a_finished_state_has_nothing_left_to_do() -> None:
    small = Small(replace(RECIPE, epochs=1))
    small.fit()
    kept = weights(small.model)
    assert small.fit() == []
    assert same(weights(small.model), kept)
