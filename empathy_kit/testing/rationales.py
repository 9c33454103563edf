"""The promises of an injector: ``build(tasks, width)`` gives an ``nn.Module``, (response, mask, gold or None) -> Injection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empathy_kit.contracts import GoldAccess, Injection, Task
from empathy_kit.testing.world import (
    TASKS,
    Unjudged,
    alike,
    assert_apart,
    assert_draws_alone,
    assert_learns,
    assert_registered,
    called,
    learn,
    left_alone,
    near,
    reload,
    same_seed_same_weights,
    seeded,
    twins,
    weighted,
    without_dropout,
)

WIDTH = 16
LENGTHS = (6, 1, 4)


class Build:
    """The builder, and where the injector may see gold."""

    def __init__(self, make: Callable[[Sequence[Task], int], Any], gold: GoldAccess) -> None:
        self.make = make
        self.gold = gold

    def __call__(self, tasks: Sequence[Task] = TASKS) -> nn.Module:
        injector: nn.Module = called(lambda: self.make(tasks, WIDTH), _wrong_kind)
        return injector


def _wrong_kind(injector: object) -> str | None:
    return None if isinstance(injector, nn.Module) else f"it returns a {type(injector).__name__}, expected an nn.Module"


def responses(longest: int = 6, *, tasks: int = len(TASKS), gradient: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder states (B, L, D), mask (B, L), gold spans (B, T, L); the second response is one token, the third has no span."""
    states = torch.stack([torch.randn(longest, WIDTH, generator=seeded(row)) for row in range(len(LENGTHS))])
    mask = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    gold = torch.zeros(len(LENGTHS), tasks, longest, dtype=torch.bool)
    gold[0, 0, 1:3] = gold[0, -1, 2:5] = gold[1, tasks // 2, 0] = True
    return (states * mask[..., None]).requires_grad_(gradient), mask, gold


def read(injection: Injection, row: int) -> tuple[Tensor, Tensor | None]:
    """The states (K, D) that the trunk would read of one response, and its real tokens' span logits (T, L)."""
    spans = None if injection.span_logits is None else injection.span_logits[row, :, : LENGTHS[row]]
    return injection.states[row][injection.mask[row]], spans


def same(one: tuple[Tensor, Tensor | None], other: tuple[Tensor, Tensor | None]) -> bool:
    """Whether two readings agree to 1e-5."""
    if not near(one[0], other[0]):
        return False
    return one[1] is other[1] if one[1] is None or other[1] is None else near(one[1], other[1])


def can_be_built(build: Build) -> None:
    """The builder takes one task or several, of any number of labels each, and returns an `nn.Module`."""
    for tasks in (TASKS, TASKS[:1]):
        fault = _wrong_kind(build.make(tasks, WIDTH))
        assert fault is None, fault


def an_injection_has_its_shapes(build: Build) -> None:
    """States are (B, K, D) of the response's dtype, their mask (B, K) bool, span logits (B, T, L) or None, for T of 3 and 1."""
    for tasks, longest in ((TASKS, 6), (TASKS, 9), (TASKS[:1], 6)):
        response, mask, gold = responses(longest, tasks=len(tasks))
        for seen in (gold, None):
            fault = _fault(_called(build(tasks), response, mask, seen), response, len(tasks))
            assert fault is None, fault


def _fault(injection: object, response: Tensor, tasks: int) -> str | None:
    """What of an injection has another type, shape or dtype than promised."""
    if not isinstance(injection, Injection):
        return f"it returns a {type(injection).__name__}, expected an Injection"
    batch, longest, width = response.shape
    states, mask, spans = injection.states, injection.mask, injection.span_logits
    if states.dim() != 3 or states.shape[::2] != (batch, width):
        return f"states are {tuple(states.shape)}, expected ({batch}, K, {width})"
    if states.dtype != response.dtype:
        return f"states are {states.dtype}, expected {response.dtype}"
    if mask.shape != states.shape[:2] or mask.dtype != torch.bool:
        return f"the mask is {tuple(mask.shape)} {mask.dtype}, expected {tuple(states.shape[:2])} torch.bool"
    if spans is not None and spans.shape != (batch, tasks, longest):
        return f"span logits are {tuple(spans.shape)}, expected {(batch, tasks, longest)}"
    return None


def _called(injector: nn.Module, response: Tensor, mask: Tensor, gold: Tensor | None) -> Any:
    try:
        return injector(response, mask, gold)
    except Exception:
        if gold is None:  # `works_without_gold` shows it
            raise Unjudged("works-without-gold is broken") from None
        raise


def _once(injector: nn.Module, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
    """What it injects; `Unjudged` where it lacks what another check tests, so that a fault has one name."""
    found = _called(injector, response, mask, gold)
    if _fault(found, response, len(TASKS)) is not None:
        raise Unjudged("an-injection-has-its-shapes is broken")
    return found  # type: ignore[no-any-return]


def _inject(injector: nn.Module, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
    """What it injects, for a comparison: `Unjudged`, too, where two calls differ."""
    found, again = (_once(injector, response, mask, gold) for _ in range(2))
    for row in range(len(found.states)):
        if not same(read(found, row), read(again, row)):
            raise Unjudged(
                "it differs from call to call in training" if injector.training else "leaves-the-world-alone is broken"
            )
    return again


def works_without_gold(build: Build) -> None:
    """With `gold=None` it gives finite states and span logits in training and at inference; at the padding, logits may be any."""
    response, mask, _ = responses()
    for training in (True, False):
        injection = build().train(training)(response, mask, None)
        if _fault(injection, response, len(TASKS)) is not None:
            raise Unjudged("an-injection-has-its-shapes is broken")
        spans = None if injection.span_logits is None else injection.span_logits.transpose(1, 2)[mask]
        for tensor in (injection.states, spans):
            assert tensor is None or tensor.isfinite().all(), "a state or span logit is not finite"


def never_leaks_gold(build: Build) -> None:
    """What is read at inference depends on gold only where the spec has "always"; with "never" nothing does, ever."""
    response, mask, gold = responses()
    if build.gold == "never":
        for training in (True, False):
            # A copy for each call: what one keeps, such as a mean, is no leak into another.
            plain, again, shown = (
                _once(each if training else each.eval(), response, mask, seen)
                for each, seen in zip(twins(build(), 3), (None, None, gold), strict=True)
            )
            for row in range(len(LENGTHS)):
                if not same(read(again, row), read(plain, row)):
                    raise Unjudged("only-dropout-is-random is broken" if training else "leaves-the-world-alone is broken")
                assert same(read(shown, row), read(plain, row)), f"gold changes what is read of response {row}, but gold='never'"
    if build.gold != "always":
        # What training leaves behind may only be state that a checkpoint holds: nothing of a batch may be remembered.
        injector, fresh = build(), build().eval()
        _once(without_dropout(injector), response, mask, gold if build.gold == "train" else None)
        injector.eval()
        fresh.load_state_dict(injector.state_dict())
        remembered, expected = _inject(injector, response, mask, None), _inject(fresh, response, mask, None)
        for row in range(len(LENGTHS)):
            assert same(read(remembered, row), read(expected, row)), f"it remembers the gold of response {row} from training"


def padding_and_neighbours_are_irrelevant(build: Build) -> None:
    """What is read of a response is the same alone, next to others, with more padding, whatever finite numbers it holds: 1e-5."""
    response, mask, gold = responses()
    for training in (True, False):
        injector = without_dropout(build()) if training else build().eval()
        mode = "training" if training else "inference"
        for seen in (None, gold):
            whole = _inject(injector, response, mask, seen)
            noise = torch.randn(response.shape, generator=seeded(8)) * ~mask[..., None]
            noisy = _inject(injector, response + 50 * noise, mask, seen)
            longer = None if seen is None else F.pad(seen, (0, 4))
            wide = _inject(injector, F.pad(response, (0, 0, 0, 4)), F.pad(mask, (0, 4), value=False), longer)
            for row, length in enumerate(LENGTHS):
                now = slice(row, row + 1)
                own_gold = None if seen is None else seen[now, :, :length]
                alone = _inject(injector, response[now, :length], mask[now, :length], own_gold)
                expected = read(whole, row)
                own = alone.states[0][alone.mask[0]], None if alone.span_logits is None else alone.span_logits[0]
                assert same(own, expected), f"in {mode} response {row} is read differently alone than next to others"
                assert same(read(wide, row), expected), f"in {mode} more padding changes what is read of response {row}"
                assert same(read(noisy, row), expected), f"in {mode} padding is read in response {row}"


def gradient_reaches_the_encoder(build: Build) -> None:
    """Where it injects or predicts spans, a finite gradient reaches the response's states."""
    response, mask, gold = responses(gradient=True)
    injector, seen = without_dropout(build()), None if build.gold == "never" else gold
    learn(injector, _value(_once(injector, response, mask, seen)))  # past a gate that starts at 0
    value = _value(_once(injector, response, mask, seen))
    assert value.requires_grad, "no gradient reaches the response's states"
    torch.autograd.backward(value)
    assert response.grad is not None and response.grad.abs().sum() > 0, "no gradient reaches the response's states"  # noqa: PT018
    assert response.grad.isfinite().all(), "a gradient is not finite"


def every_parameter_learns(build: Build) -> None:
    """Every parameter of the injector has a gradient, so that none is trained in vain, and each run has its own."""
    injector = build()
    if not any(True for _ in injector.parameters()):
        raise Unjudged("it has no parameter")
    assert_apart(injector, build())
    response, mask, gold = responses(gradient=True)
    parts = _parts(_once(without_dropout(injector), response, mask, None if build.gold == "never" else gold))
    if any(part.requires_grad for part in parts):
        torch.autograd.backward(weighted(*parts))
    assert_learns(injector)


def only_dropout_is_random(build: Build) -> None:
    """In training nothing but dropout is random: `nn.Dropout`, or `F.dropout(x, p, self.training)`."""
    response, mask, gold = responses()
    for seen in (None, None if build.gold == "never" else gold):
        one, other = (_once(found, response, mask, seen) for found in twins(build()))
        for row in range(len(LENGTHS)):
            assert same(read(one, row), read(other, row)), "two calls in training differ, though dropout is off"


def leaves_the_world_alone(build: Build) -> None:
    """Inputs, random numbers, gradient mode and other global settings stay as they were; in training it may draw, and no more."""
    injector = build().eval()
    response, mask, gold = responses()
    shown = gold if build.gold == "always" else None
    _called(injector, response, mask, shown)
    with left_alone(response, mask, gold):
        injector(response, mask, shown)
    injector.train()
    assert_draws_alone("in training", lambda: _trained(injector, None if build.gold == "never" else gold))


def _trained(injector: nn.Module, gold: Tensor | None) -> None:
    response, mask, _ = responses(gradient=True)
    parts = [part for part in _parts(_once(injector, response, mask, gold)) if part.requires_grad]
    if parts:
        torch.autograd.backward(weighted(*parts))


def works_under_autocast(build: Build) -> None:
    """Under autocast, what is read of a response in bfloat16 is in bfloat16 too, and stays what it is within 5 %."""
    injector = build().eval()
    response, mask, _ = responses()
    plain = _inject(injector, response, mask, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = response.to(torch.bfloat16)  # as an encoder gives it then
        cast = injector(half, mask, None)
    fault = _fault(cast, half, len(TASKS))
    assert fault is None, f"under autocast {fault}"
    for row in range(len(LENGTHS)):
        for one, other in zip(read(cast, row), read(plain, row), strict=True):
            assert one is None or other is None or near(one.float(), other, 0.05), f"response {row} is read differently"


def state_survives_safetensors(build: Build) -> None:
    """All that the injector has learnt is in its state_dict, and after safetensors it gives the same."""
    injector, fresh = without_dropout(build()), without_dropout(build())
    response, mask, gold = responses()
    injection = _once(injector, response, mask, None if build.gold == "never" else gold)
    if _parts(injection):
        value = _value(injection)
        assert_registered(value, injector)
        learn(injector, value)
    reload(injector, fresh)
    found, expected = (_once(each, response, mask, None) for each in alike(fresh, injector))
    for row in range(len(LENGTHS)):
        assert same(read(found, row), read(expected, row)), f"response {row} is read differently from the saved state"


def _parts(injection: Injection) -> list[Tensor]:
    read_states = injection.states[injection.mask]
    return [part for part in (read_states, injection.span_logits) if part is not None and part.numel()]


def _value(injection: Injection) -> Tensor:
    """A number that every read state and span logit moves."""
    parts = _parts(injection)
    if not parts:
        raise Unjudged("it injects nothing and predicts no spans")
    return weighted(*parts)


CHECKS = (
    can_be_built,
    an_injection_has_its_shapes,
    works_without_gold,
    never_leaks_gold,
    padding_and_neighbours_are_irrelevant,
    gradient_reaches_the_encoder,
    every_parameter_learns,
    same_seed_same_weights,
    only_dropout_is_random,
    leaves_the_world_alone,
    works_under_autocast,
    state_survives_safetensors,
)
