"""The conformance kit: the kit's own plugins keep every promise; how checks end, and what is known of a plugin beforehand."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from empathy_kit import Head, KitError, Loss, Rationale, Sampler, Trunk
from empathy_kit.contracts import Spec
from empathy_kit.plugins import Provided, Registry, load_registry
from empathy_kit.testing import KNOWN_FAILURES, Check, Outcome, checks, examine, loss_checks

HOOKS = Path(__file__).parents[2] / "docs" / "hooks.md"


def own() -> Iterator[Any]:
    for entry in load_registry().provided:
        for check in checks(entry.spec):
            yield pytest.param(entry, check, id=f"{entry.kind}-{entry.spec.name}-{check}")


@pytest.mark.parametrize(("entry", "check"), list(own()))
def test_the_kits_own_plugins_keep_every_promise(entry: Provided, check: Check) -> None:
    check()


def anything(*arguments: Any) -> None:
    """Can be called with whatever a builder is called with."""


SPECS: list[Spec] = [kind("any", anything) for kind in (Loss, Rationale, Head, Sampler, Trunk)]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_each_check_says_its_promise_in_a_sentence_and_stands_in_the_reference(spec: Spec) -> None:
    page = HOOKS.read_text("utf-8")
    for check in checks(spec):
        assert check.promise.endswith((".", ": 1e-5."))
        assert "\n" not in check.promise
        assert f"\n- `{check}`: {check.promise}\n" in page


def test_the_reference_lists_no_other_promise() -> None:
    listed = re.findall(r"^- `([a-z0-9]+(?:-[a-z0-9]+)+)`: ", HOOKS.read_text("utf-8"), re.MULTILINE)
    assert listed == [str(check) for spec in SPECS for check in checks(spec)]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_a_builder_that_returns_nothing_breaks_one_promise_and_the_others_cannot_be_judged(spec: Spec) -> None:
    ends = [(str(check), ended(check)) for check in checks(spec)]
    assert ends[0][0] == "can-be-built"
    assert ends[0][1].startswith("it returns a NoneType, expected a")
    assert {end for _, end in ends[1:]} == {"can-be-built is broken"}


def ended(check: Check) -> str:
    """What a check says, whether it fails or cannot be judged."""
    try:
        return check.judge() or "holds"
    except Exception as error:
        return str(error).partition("\n")[0]


def ce(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="none")


def logarithm(logits: Tensor, target: Tensor) -> Tensor:
    return -logits.softmax(-1).log().gather(1, target[:, None])[:, 0]


def known(build: Any, **reasons: str) -> dict[str, Check]:
    named = {name.replace("_", "-"): reason for name, reason in reasons.items()}
    return {str(check): check for check in loss_checks(Loss("any", build), known_failures=named)}


def test_a_known_failure_is_expected_to_fail() -> None:
    check = known(lambda task: logarithm, finite_at_the_extremes="logarithm of 0")["finite-at-the-extremes"]
    with pytest.raises(pytest.xfail.Exception, match="logarithm of 0"):
        check()


def test_a_known_failure_that_holds_is_an_error() -> None:
    check = known(lambda task: ce, finite_at_the_extremes="logarithm of 0")["finite-at-the-extremes"]
    with pytest.raises(AssertionError) as error:
        check()
    assert str(error.value) == "finite-at-the-extremes holds, but is declared as a known failure (logarithm of 0); delete that"


def test_a_known_failure_of_no_check_lists_the_checks() -> None:
    with pytest.raises(ValueError, match=r"known failure 'finite': no such check; there are can-be-built, .*-survived$"):
        known(lambda task: ce, finite="?")


def test_options_reach_the_builder_and_unknown_ones_are_refused() -> None:
    def build(task: object, *, power: float) -> Callable[..., Tensor]:
        return lambda logits, target: ce(logits, target) * power

    spec = Loss("scaled", build)
    assert [check.judge() for check in loss_checks(spec, options={"power": "2"})].count(None) == 13
    with pytest.raises(KitError) as error:
        loss_checks(spec, options={"power": "2", "base": 1})
    assert str(error.value) == "loss scaled: unknown option 'base'; its options: power: float"
    with pytest.raises(KitError) as error:
        loss_checks(spec)
    assert str(error.value) == "loss scaled: option 'power' is missing; expected power: float"


def test_a_check_leaves_the_world_as_it_was_whatever_the_plugin_does() -> None:
    def rude(task: object) -> Callable[..., Tensor]:
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.rand(1)
        return ce

    torch.manual_seed(5)
    before = torch.get_rng_state()
    for check in loss_checks(Loss("rude", rude)):
        ended(check)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that a plugin comes from."""
    made = ModuleType("a_plugins_module")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def outcomes(build: Callable[..., Any], module: ModuleType, **options: str) -> dict[str, Outcome]:
    entry = Provided("loss", Loss("mine", build), "empathy-kit-mine", "0.1", module.__name__)
    others = (Provided("head", Head("its", anything), "empathy-kit-mine", "0.1", module.__name__), *load_registry().provided)
    registry = Registry((entry, *others))
    return {outcome.check: outcome for outcome in examine([entry], {"loss": options} if options else None, registry)}


def test_what_is_examined_holds_or_is_broken_or_could_not_be_judged(module: ModuleType) -> None:
    found = outcomes(lambda task: logarithm, module)
    assert found.pop("finite-at-the-extremes").failure == (
        "AssertionError: a gradient is not finite: one logit 100, the others 0, target 1 of 2 labels, torch.float32"
    )
    assert found.pop("every-parameter-learns").unjudged == "it has no parameter"
    assert {(outcome.failure, outcome.unjudged) for outcome in found.values()} == {(None, None)}


def test_a_module_declares_what_its_plugins_are_known_to_break(module: ModuleType) -> None:
    its = {"head its": {"can-be-built": "there is no such thing"}}
    setattr(module, KNOWN_FAILURES, {"loss mine": {"finite-at-the-extremes": "logarithm of 0"}, **its})
    assert outcomes(lambda task: logarithm, module)["finite-at-the-extremes"].unjudged == "known failure: logarithm of 0"
    outcome = outcomes(lambda task: ce, module)["finite-at-the-extremes"]
    assert outcome.failure is not None
    assert outcome.failure.endswith("is declared as a known failure (logarithm of 0); delete that")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"loss mine": {"finite": "?"}}, "known failure 'finite': no such check; there are can-be-built, "),
        (["loss mine"], "'list' object has no attribute 'get'"),
        ({"mine": {"finite-at-the-extremes": "?"}}, "known failures of 'mine': no such plugin; there are loss mine, head its"),
    ],
)
def test_a_declaration_that_is_none_is_a_broken_promise(module: ModuleType, declared: Any, message: str) -> None:
    setattr(module, KNOWN_FAILURES, declared)
    (outcome,) = outcomes(lambda task: ce, module).values()
    assert outcome.promise == "KNOWN_FAILURES names checks and reasons."
    assert str(outcome.failure).startswith(message)


def test_an_option_without_a_default_is_asked_for(module: ModuleType) -> None:
    def build(task: object, *, power: float) -> Callable[..., Tensor]:
        return lambda logits, target: ce(logits, target) * power

    (outcome,) = outcomes(build, module).values()
    assert (outcome.failure, outcome.unjudged) == (None, "an option has no default; give -o loss.power VALUE")
    assert [outcome.failure for outcome in outcomes(build, module, power="2").values()] == [None] * 14
