"""The promises of a trunk: ``build(encoder, injector)`` gives an ``nn.Module``, (Texts, gold) -> (Encoded, span logits)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from empathy_kit.contracts import Encoded, Texts
from empathy_kit.core.rationales import NoRationale
from empathy_kit.testing.stand_ins import (
    LONGEST,
    RESPONSES,
    SEEKERS,
    TASKS,
    WIDTH,
    Marked,
    PostEncoder,
    Scripted,
    Summaries,
    pairs,
)
from empathy_kit.testing.world import (
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
    trained,
    twins,
    weighted,
    without_dropout,
)

Reading = tuple[Tensor, Tensor, Tensor | None]
"""What heads and the span loss meet of one pair: pooled (H,), its tokens' states (n, H), its response's span logits (T, L)."""

COUNT = len(SEEKERS)


class Build:
    """The builder, with a fresh post encoder and an injector."""

    def __init__(self, make: Callable[[Any, nn.Module], Any]) -> None:
        self.make = make

    def __call__(self, injector: nn.Module | None = None, encoder: PostEncoder | None = None) -> nn.Module:
        injector, encoder = injector or Summaries(), encoder or PostEncoder()
        trunk: nn.Module = called(lambda: self.make(encoder, injector), _wrong_kind)
        return trunk


def _wrong_kind(trunk: object) -> str | None:
    if not isinstance(trunk, nn.Module):
        return f"it returns a {type(trunk).__name__}, expected an nn.Module"
    width = getattr(trunk, "width", None)
    return None if isinstance(width, int) and width > 0 else f"its width is {width!r}, expected a whole number above 0"


def can_be_built(build: Build) -> None:
    """The builder takes a post encoder and an injector, and returns an `nn.Module` with its output's `width`."""
    fault = _wrong_kind(build.make(PostEncoder(), Summaries()))
    assert fault is None, fault


def encoded_has_its_shapes(build: Build) -> None:
    """Pooled is (B, H) float32, the sequence (B, S, H) float32 and zero where its mask (B, S) bool is False, H the `width`.

    Whatever the injector injects, for one pair too, and for posts as long as a run's.
    """
    for injector in (NoRationale(), Summaries(), Marked()):
        trunk = build(injector)
        kind = f"with an injector of the kind {type(injector).__name__}"
        for rows in (None, [1]):
            texts, gold = pairs(rows)
            for seen in (None, gold):
                fault = _fault(trunk(texts, seen), trunk, len(texts))
                assert fault is None, f"{kind} {fault}"
        texts, gold = pairs(longest=LONGEST)
        try:
            output = trunk(texts, gold)
        except Exception as error:  # such as an index beyond a table of positions, which does not say what is too long
            raise AssertionError(f"{kind} and posts of {LONGEST} tokens it raises {type(error).__name__}: {error}") from error
        fault = _fault(output, trunk, len(texts))
        assert fault is None, f"{kind} and posts of {LONGEST} tokens {fault}"


def _fault(output: object, trunk: nn.Module, count: int) -> str | None:
    """What of a trunk's output has another type, shape, dtype or value than promised."""
    if not isinstance(output, tuple) or len(output) != 2 or not isinstance(output[0], Encoded):
        return f"it returns a {type(output).__name__}, expected (Encoded, span logits or None)"
    encoded: Encoded = output[0]
    width = int(trunk.width)  # type: ignore[arg-type]
    for name, tensor, dims in (("pooled", encoded.pooled, 2), ("the sequence", encoded.sequence, 3)):
        shape = (count, width) if dims == 2 else (count, "S", width)
        if tensor.dim() != dims or (len(tensor), tensor.shape[-1]) != (count, width):
            return f"{name} is {tuple(tensor.shape)}, expected ({', '.join(map(str, shape))})"
        if tensor.dtype != torch.float32:
            return f"{name} is {tensor.dtype}, expected torch.float32"
        if not tensor.isfinite().all():
            return f"{name} is not finite"
    if encoded.mask.shape != encoded.sequence.shape[:2] or encoded.mask.dtype != torch.bool:
        expected = tuple(encoded.sequence.shape[:2])
        return f"the mask is {tuple(encoded.mask.shape)} {encoded.mask.dtype}, expected {expected} torch.bool"
    if not encoded.mask[:, :1].any(1).all():
        return "the mask is not True at the first token of every row"
    return "the sequence is not zero where its mask is False" if encoded.sequence[~encoded.mask].any() else None


def the_injector_is_asked_and_answers(build: Build) -> None:
    """The injector is called with the response's states (B, L, D), their mask and gold; its span logits are returned."""
    texts, gold = pairs()
    for spans in (torch.randn(COUNT, TASKS, max(RESPONSES), generator=seeded(1)).requires_grad_(), None):
        injector = Scripted(torch.zeros(COUNT, 1, WIDTH), torch.ones(COUNT, 1, dtype=torch.bool), spans)
        trunk = build(injector)
        for shown, training in ((gold, False), (None, False), (gold, True)):
            injector.seen.clear()
            output = trunk.train(training)(texts, shown)
            if _fault(output, trunk, COUNT) is not None:
                raise Unjudged("encoded-has-its-shapes is broken")
            _, found = output
            assert len(injector.seen) == 1, f"the injector is called {len(injector.seen)} times, expected once"
            response, mask, seen = injector.seen[0]
            assert response.shape == (*texts.response.shape, WIDTH), (
                f"the injector is given states {tuple(response.shape)}, expected {(*texts.response.shape, WIDTH)}"
            )
            assert torch.equal(mask, texts.response_mask), "the injector is given another mask than the response's"
            same = seen is shown if shown is None or seen is None else torch.equal(seen, shown)
            assert same, f"the injector is given {'no gold' if seen is None else 'other gold'} than the trunk was"
            same = found is spans if spans is None or found is None else near(found, spans)
            assert same, "the trunk returns other span logits than the injector's"
            if training and found is not None and spans is not None:
                gradient = torch.autograd.grad(found.sum(), spans, allow_unused=True)[0] if found.requires_grad else None
                same = gradient is not None and near(gradient, torch.ones_like(spans))
                assert same, "the gradient of the span logits does not reach the injector as it is"


def injected_states_are_read(build: Build) -> None:
    """What the injector injects is read where its mask is True, and nowhere else."""
    texts, _ = pairs()
    states = torch.randn(COUNT, 2, WIDTH, generator=seeded(2))
    mask = torch.tensor([[True, True], [False, True], [False, False], [True, False]])
    injector = Scripted(states, mask)
    trunk = without_dropout(build(injector))
    learn(trunk, _value(trunk, texts, None))  # a gate that starts at 0 lets nothing through before its first step
    trunk.eval()
    before = _read(trunk, texts, None)
    injector.injection = type(injector.injection)(torch.where(mask[..., None], states, 9.0), mask)
    hidden = _read(trunk, texts, None)
    injector.injection = type(injector.injection)(torch.where(mask[..., None], -states, states), mask)
    shown = _read(trunk, texts, None)
    for row in range(COUNT):
        assert same(hidden[row], before[row]), f"pair {row}: an injected state is read where its mask is False"
        assert same(shown[row], before[row]) != bool(mask[row].any()), f"pair {row}: what is injected makes no difference"


def never_leaks_gold(build: Build) -> None:
    """Gold goes to the injector and nowhere else: with one that ignores it, nothing depends on it, then or later."""
    texts, gold = pairs()
    for training in (True, False):
        trunk = build()
        trunk = without_dropout(trunk) if training else trunk.eval()
        plain, shown = _read(trunk, texts, None), _read(trunk, texts, gold)
        for row in range(COUNT):
            assert same(shown[row], plain[row]), f"gold changes what is read of pair {row}, though the injector ignores it"
    twins = []
    for shown_gold in (gold, None):
        torch.manual_seed(3)
        trunk = without_dropout(build())
        before = _read(trunk, texts, None)
        trunk(texts, shown_gold)
        twins.append((before, _read(trunk.eval(), texts, None)))
    (one, after), (other, expected) = twins
    if not all(map(same, one, other)):
        raise Unjudged("same-seed-same-weights is broken")
    for row in range(COUNT):
        assert same(after[row], expected[row]), f"it remembers the gold of pair {row} from training"


def padding_and_neighbours_are_irrelevant(build: Build) -> None:
    """What is read of a pair is the same alone, next to others, in another order and with more padding, in training too: 1e-5."""
    texts, gold = pairs()
    for mode in ("inference", "training"):
        for injector in (Summaries(), Marked()):
            trunk = build(injector)
            trunk = without_dropout(trunk) if mode == "training" else trunk.eval()
            expected = _read(trunk, texts, gold)
            wide = _read(trunk, *pairs(more=3))
            order = list(reversed(range(COUNT)))
            turned = _read(trunk, *pairs(order), rows=order)
            for row in range(COUNT):
                (alone,) = _read(trunk, *pairs([row]), rows=[row])
                assert same(alone, expected[row]), f"in {mode} pair {row} is read differently alone than next to others"
                assert same(wide[row], expected[row]), f"in {mode} more padding changes what is read of pair {row}"
                assert same(turned[order.index(row)], expected[row]), f"in {mode} the order of the pairs changes pair {row}"


def gradient_reaches_the_encoder(build: Build) -> None:
    """Of every pair a finite gradient reaches the post encoder, and the injector through what it injects."""
    encoder, injector = PostEncoder(), Summaries()
    trunk = without_dropout(build(injector, encoder))
    texts, gold = pairs()
    learn(trunk, _value(trunk, texts, gold))  # past a gate that starts at 0
    # A copy that is trained in place of the encoder is as good.
    weights = [part.linear.weight for part in (encoder, *trunk.modules()) if isinstance(part, PostEncoder)]
    trained = [weight for weight in weights if weight.requires_grad]
    for row, (pooled, states, _) in enumerate(_once(trunk, texts, gold)):
        value = weighted(pooled, states)
        assert value.requires_grad, "no gradient reaches the encoder"
        found = torch.autograd.grad(value, [*trained, injector.spans.weight], retain_graph=True, allow_unused=True)
        gradients = [gradient for gradient in found[: len(trained)] if gradient is not None]
        assert any(gradient.any() for gradient in gradients), f"no gradient of pair {row} reaches the encoder"
        assert all(gradient.isfinite().all() for gradient in gradients), f"a gradient of pair {row} is not finite"
        # One token alone has a weight of 1, whatever the injector learns.
        reached = found[-1] is not None and bool(found[-1].any())
        assert reached or RESPONSES[row] == 1, f"no gradient of pair {row} reaches the injector through its states"


def every_parameter_learns(build: Build) -> None:
    """Every parameter of the trunk has a gradient, so that none is trained in vain, and each run has its own."""
    trunk = build()
    assert_apart(trunk, build())
    texts, gold = pairs()
    torch.autograd.backward(_value(without_dropout(trunk), texts, gold))
    assert_learns(trunk)


def only_dropout_is_random(build: Build) -> None:
    """In training nothing but dropout is random: `nn.Dropout`, or `F.dropout(x, p, self.training)`."""
    texts, gold = pairs()
    trunk = build()
    one, other = (found(texts, gold) for found in twins(trunk))
    if _fault(one, trunk, COUNT) is not None or _fault(other, trunk, COUNT) is not None:
        raise Unjudged("encoded-has-its-shapes is broken")
    readings = (_readings(each, range(COUNT)) for each in (one, other))
    assert all(map(same, *readings)), "two calls in training differ, though dropout is off"


def leaves_the_world_alone(build: Build) -> None:
    """Inputs, random numbers, gradient mode and other global settings stay as they were; in training it may draw, and no more."""
    trunk = build().eval()
    texts, gold = pairs()
    with left_alone(texts.seeker, texts.seeker_mask, texts.response, texts.response_mask, gold):
        trunk(texts, gold)
    trunk.train()

    def train() -> None:
        output = trunk(texts, gold)
        if _fault(output, trunk, COUNT) is not None:
            raise Unjudged("encoded-has-its-shapes is broken")
        trained(weighted(output[0].pooled))

    assert_draws_alone("in training", train)


def works_under_autocast(build: Build) -> None:
    """Under autocast to bfloat16 what is read is in float32, and stays what it is within 5 %."""
    trunk = build().eval()
    texts, gold = pairs()
    plain = _read(trunk, texts, gold)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = trunk(texts, gold)
    fault = _fault(output, trunk, COUNT)
    assert fault is None, f"under autocast {fault}"
    cast = _readings(output, range(COUNT))
    for row in range(COUNT):
        assert same(cast[row], plain[row], 0.05), f"pair {row} is read differently under autocast"


def state_survives_safetensors(build: Build) -> None:
    """All that the trunk, its encoder and its injector have learnt is in its state_dict; after safetensors it gives the same."""
    trunk, fresh = without_dropout(build()), without_dropout(build())
    texts, gold = pairs()
    value = _value(trunk, texts, gold)
    assert_registered(value, trunk)
    learn(trunk, value)
    reload(trunk, fresh)
    found, expected = (_once(each, texts, None) for each in alike(fresh, trunk))
    for row in range(COUNT):
        assert same(found[row], expected[row]), f"pair {row} is read differently from the saved state"


def same(one: Reading, other: Reading, tolerance: float = 1e-5) -> bool:
    """Whether two readings of a pair agree."""
    return all(
        left is right if left is None or right is None else near(left.float(), right.float(), tolerance)
        for left, right in zip(one, other, strict=True)
    )


def _readings(output: tuple[Encoded, Tensor | None], rows: range | list[int]) -> list[Reading]:
    encoded, spans = output
    return [
        (
            encoded.pooled[at],
            encoded.sequence[at][encoded.mask[at]],
            None if spans is None else spans[at, :, : RESPONSES[row]],
        )
        for at, row in enumerate(rows)
    ]


def _once(trunk: nn.Module, texts: Texts, gold: Tensor | None, *, rows: range | list[int] = range(COUNT)) -> list[Reading]:
    """What is read of each pair; `Unjudged` where it lacks what another check tests, so that a fault has one name."""
    output = trunk(texts, gold)
    if _fault(output, trunk, len(texts)) is not None:
        raise Unjudged("encoded-has-its-shapes is broken")
    return _readings(output, rows)


def _read(trunk: nn.Module, texts: Texts, gold: Tensor | None, *, rows: range | list[int] = range(COUNT)) -> list[Reading]:
    """What is read of each pair, for a comparison: `Unjudged`, too, where two calls differ."""
    first, second = _once(trunk, texts, gold, rows=rows), _once(trunk, texts, gold, rows=rows)
    if not all(map(same, first, second)):
        raise Unjudged("it differs from call to call in training" if trunk.training else "leaves-the-world-alone is broken")
    return second


def _value(trunk: nn.Module, texts: Texts, gold: Tensor | None) -> Tensor:
    """A number that all of what is read moves; from one call, as a kept mean would make a second one differ."""
    return weighted(*(part for reading in _once(trunk, texts, gold) for part in reading if part is not None))


CHECKS = (
    can_be_built,
    encoded_has_its_shapes,
    the_injector_is_asked_and_answers,
    injected_states_are_read,
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
