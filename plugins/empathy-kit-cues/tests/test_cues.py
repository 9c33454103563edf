"""The cue injector keeps the kit's promises, and reads what is close to its cues."""

from __future__ import annotations

import pytest
import torch
from empathy_kit_cues import CUES, cues
from empathy_kit_cues.injector import CueInjector

from empathy_kit import KitError, Task
from empathy_kit.plugins import load_registry
from empathy_kit.testing import Check, rationale_checks

TASKS = [Task(name, ("0", "1", "2"), (60, 30, 10)) for name in ("ER", "EX", "IP")]


@pytest.mark.parametrize("check", rationale_checks(CUES), ids=str)
def test_promise(check: Check) -> None:
    check()


def test_the_kit_finds_it() -> None:
    assert load_registry().get("rationale", "cues").distribution == "empathy-kit-cues"


def test_the_token_that_is_a_cue_is_the_evidence() -> None:
    injector = CueInjector(mechanisms=2, width=16, cues=3)
    response = torch.randn(1, 5, 16)
    with torch.no_grad():
        injector.cues[1, 2] = 10 * injector.norm(response)[0, 3]
        injection = injector(response, torch.ones(1, 5, dtype=torch.bool), None)
    assert injection.span_logits is not None
    assert injection.span_logits[0, 1].argmax() == 3
    assert torch.allclose(injection.states[0, 1], response[0, 3] + injector.mechanism[1], atol=1e-4)


def test_one_state_a_mechanism_is_injected() -> None:
    injection = cues(TASKS, 16)(torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool), None)
    assert injection.states.shape == (2, 3, 16)
    assert injection.mask.all()


def test_fewer_than_one_cue_is_refused() -> None:
    with pytest.raises(KitError) as error:
        cues(TASKS, 16, cues=0)
    assert str(error.value) == "rationale cues: option 'cues' is 0; expected 1 or more"
