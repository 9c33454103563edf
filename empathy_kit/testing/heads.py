"""The promises of a head: ``build(task, width)`` gives an ``nn.Module``, Encoded -> logits (B, K), with ``probabilities``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empathy_kit.contracts import Encoded, Task
from empathy_kit.testing import losses
from empathy_kit.testing.world import (
    CLASSES,
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
    task_of,
    trained,
    twins,
    weighted,
    without_dropout,
)

WIDTH = 16
LENGTHS = (7, 1, 4, 7, 2)
SPREAD = (0, 3, 4, 7, 8, 9, 12)  # where a trunk that lays padded posts end to end may have the same tokens


class Build:
    """The builder, for a task of so many labels."""

    def __init__(self, make: Callable[[Task, int], Any]) -> None:
        self.make = make

    def __call__(self, classes: int = 3) -> nn.Module:
        head: nn.Module = called(lambda: self.make(task_of(classes), WIDTH), _fault)
        return head


class Criterion(nn.Module):
    """A head's own criterion, as a loss."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        values: Tensor = self.head.criterion(logits, target)  # type: ignore[operator]
        return values


class Criteria(losses.Build):
    """Builds a head's own criterion as the checks of losses would have it.

    Raises:
        Unjudged: the head cannot be built, has no criterion, or its logits lack what another check tests.
    """

    dtypes = (torch.float32,)  # the kit hands over no others

    def __init__(self, build: Build, *, training: bool) -> None:
        super().__init__(lambda task: Criterion(build.make(task, WIDTH)).train(training))
        heads = {classes: build(classes).eval() for classes in CLASSES}
        if any(getattr(head, "criterion", None) is None for head in heads.values()):
            raise Unjudged("it has no criterion of its own")
        self.widths = {classes: _once(head, encoded()).shape[1] for classes, head in heads.items()}

    def outputs(self, classes: int) -> int:
        """Logits per item."""
        return self.widths[classes]


def _fault(head: object) -> str | None:
    if not isinstance(head, nn.Module):
        return f"it returns a {type(head).__name__}, expected an nn.Module"
    for name in ("probabilities", "criterion"):
        part = getattr(head, name, None)
        if not callable(part) and (name == "probabilities" or part is not None):  # criterion = None: it has none
            return f"{name} is no method of it, expected {name}(logits{', target' if name == 'criterion' else ''})"
    return None


def encoded(lengths: tuple[int, ...] = LENGTHS, *, seed: int = 0, gradient: bool = False) -> Encoded:
    """What a trunk would hand over: each row's own random states, zero at the padding."""
    longest = max(LENGTHS)
    sequence = torch.stack([torch.randn(longest, WIDTH, generator=seeded(seed + row)) for row in range(len(lengths))])
    ends = torch.tensor(lengths)
    mask = torch.arange(longest) < ends[:, None]
    sequence = sequence * mask[..., None]  # (B, S, H)
    pooled = sequence[torch.arange(len(lengths)), ends - 1].clone()  # (B, H)
    return Encoded(pooled.requires_grad_(gradient), sequence.requires_grad_(gradient), mask)


def can_be_built(build: Build) -> None:
    """The builder takes tasks of 2, 3 and 7 labels and returns an `nn.Module` with a method `probabilities`."""
    for classes in CLASSES:
        fault = _fault(build.make(task_of(classes), WIDTH))
        assert fault is None, fault


def one_row_of_logits_per_pair(build: Build) -> None:
    """B pairs give logits (B, K) float32 and probabilities (B, C), for C of 2, 3 and 7."""
    for classes in CLASSES:
        head = build(classes).eval()
        for lengths in (LENGTHS, LENGTHS[:1]):
            logits = head(encoded(lengths))
            found = f"{len(lengths)} pairs, {classes} labels: logits"
            assert isinstance(logits, Tensor), f"{found} are a {type(logits).__name__}, expected a tensor"
            shape = tuple(logits.shape)
            assert shape[:1] == (len(lengths),), f"{found} {shape}, expected ({len(lengths)}, K)"
            assert len(shape) == 2, f"{found} {shape}, expected ({len(lengths)}, K)"
            assert logits.dtype == torch.float32, f"{found} {logits.dtype}, expected torch.float32"
            shape = tuple(head.probabilities(logits).shape)  # type: ignore[operator]
            assert shape == (len(lengths), classes), f"probabilities {shape}, expected ({len(lengths)}, {classes})"


def padding_and_neighbours_are_irrelevant(build: Build) -> None:
    """Logits are the same alone, next to others, in another order and with padding between or after, in training too: 1e-5."""
    for mode in ("inference", "training"):
        head = without_dropout(build()) if mode == "training" else build().eval()
        full = encoded()
        logits = _logits(head, full)
        for row, length in enumerate(LENGTHS):
            now = slice(row, row + 1)
            alone = Encoded(full.pooled[now], full.sequence[now, :length], full.mask[now, :length])
            assert near(head(alone), logits[now]), f"in {mode} pair {row} has other logits alone than next to others"
        wide = Encoded(full.pooled, F.pad(full.sequence, (0, 0, 0, 5)), F.pad(full.mask, (0, 5), value=False))
        assert near(head(wide), logits), f"in {mode} more padding changes the logits"
        sequence, mask = (part.new_zeros(len(part), 14, *part.shape[2:]) for part in (full.sequence, full.mask))
        sequence[:, SPREAD], mask[:, SPREAD] = full.sequence, full.mask
        spread = head(Encoded(full.pooled, sequence, mask))
        assert near(spread, logits), f"in {mode} padding between what is read changes the logits"
        turned = head(Encoded(full.pooled.flip(0), full.sequence.flip(0), full.mask.flip(0))).flip(0)
        assert near(turned, logits), f"in {mode} the order of the pairs changes their logits"


def probabilities_sum_to_one(build: Build) -> None:
    """Probabilities lie between 0 and 1 and sum to 1, for logits up to 1e4 too."""
    for classes in CLASSES:
        head = build(classes).eval()
        logits = _logits(head, encoded()).detach()
        outputs = logits.shape[1]
        generator = seeded(1)
        for scale in (1.0, 100.0, 1e4):
            given = scale * torch.cat([torch.randn(8, outputs, generator=generator), torch.eye(outputs), -torch.eye(outputs)])
            shares = head.probabilities(given)  # type: ignore[operator]
            assert shares.isfinite().all(), f"a probability is not finite, logits of size {scale:g}"
            assert ((shares >= 0) & (shares <= 1)).all(), f"a probability lies outside 0 to 1, logits of size {scale:g}"
            assert near(shares.sum(1), torch.ones(len(given))), f"probabilities sum to {shares.sum(1).tolist()}"


def probabilities_stay_with_their_pair(build: Build) -> None:
    """A pair's probabilities follow from its own logits alone."""
    head = build().eval()
    logits = _logits(head, encoded()).detach()
    shares = head.probabilities(logits)  # type: ignore[operator]
    alone = torch.cat([head.probabilities(logits[row : row + 1]) for row in range(len(logits))])  # type: ignore[operator]
    assert near(alone, shares), "a pair's probabilities change with the other pairs"


def gradient_reaches_the_trunk(build: Build) -> None:
    """Every pair's logits have a finite gradient with respect to what the trunk hands over."""
    head = without_dropout(build())
    learn(head, weighted(_once(head, encoded(seed=9))))  # a weight that starts at 0 hands no gradient on before its first step
    given = encoded(gradient=True)
    torch.autograd.backward(weighted(_once(head, given)))
    reached = torch.zeros(len(LENGTHS))
    for tensor in (given.pooled, given.sequence):
        if tensor.grad is not None:
            assert tensor.grad.isfinite().all(), "a gradient is not finite"
            reached += tensor.grad.abs().flatten(1).sum(1)
    assert (reached > 0).all(), "no gradient reaches the trunk"


def every_parameter_learns(build: Build) -> None:
    """Every parameter of the head has a gradient, so that none is trained in vain, and each task has parameters of its own."""
    head = build()
    assert_apart(head, build())
    torch.autograd.backward(weighted(_once(without_dropout(head), encoded())))
    # Which pairs move which parameter is the head's affair: a threshold may need a criterion to move.
    if getattr(head, "criterion", None) is not None:
        torch.autograd.backward(head.criterion(head(encoded()), torch.tensor([0, 1, 2, 0, 1])).sum())  # type: ignore[operator]
    assert_learns(head)


def only_dropout_is_random(build: Build) -> None:
    """In training nothing but dropout is random: `nn.Dropout`, or `F.dropout(x, p, self.training)`."""
    one, other = (found(encoded()) for found in twins(build()))
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        raise Unjudged("one-row-of-logits-per-pair is broken")
    assert torch.equal(one, other), "two calls in training differ, though dropout is off"


def leaves_the_world_alone(build: Build) -> None:
    """Inputs, random numbers, gradient mode and other global settings stay as they were; in training it may draw, and no more."""
    head = build().eval()
    given = encoded()
    with left_alone(given.pooled, given.sequence, given.mask):
        logits = _once(head, given).detach()
        # Large ones as well: a clamp leaves the others as they are.
        logits = torch.cat([logits, 1e3 * torch.randn(logits.shape, generator=seeded(1))])
        with left_alone(logits, who="probabilities"):
            head.probabilities(logits)  # type: ignore[operator]
    head.train()
    assert_draws_alone("in training", lambda: trained(weighted(head(encoded(gradient=True)))))
    if getattr(head, "criterion", None) is not None:
        _as_losses(build, losses.a_call_leaves_the_world_alone)


def works_under_autocast(build: Build) -> None:
    """Under autocast to bfloat16 the logits stay what they are, within 5 %."""
    head = build().eval()
    plain = _logits(head, encoded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(encoded()).float()
    assert near(logits, plain, 0.05), f"{logits.tolist()} under autocast, {plain.tolist()} without"


def state_survives_safetensors(build: Build) -> None:
    """All that the head has learnt is in its state_dict, and after safetensors it gives the same."""
    head, fresh = without_dropout(build()), without_dropout(build())
    value = weighted(_once(head, encoded(seed=9)))  # one call: with a mean that is kept, a second one would differ
    assert_registered(value, head)
    learn(head, value)
    reload(head, fresh)
    found, expected = (_once(each, encoded()) for each in alike(fresh, head))
    assert near(found, expected), "the logits from the saved state differ from those before"


def criterion_gives_one_value_per_item(build: Build) -> None:
    """A head's own criterion gives N values, float32, for N of 5, 1 and 0, each from its own item alone, in training too."""
    _as_losses(build, losses.one_value_per_item, losses.the_same_call_gives_the_same_loss, losses.items_are_independent)


def criterion_is_finite_at_the_extremes(build: Build) -> None:
    """A head's own criterion has a finite value and gradient for logits up to 1e4."""
    _as_losses(build, losses.finite_at_the_extremes)


def criterion_has_the_right_gradient(build: Build) -> None:
    """The gradient of a head's own criterion is that of its value, by finite differences."""
    _as_losses(build, losses.gradient_is_right)


def criterion_leads_to_the_right_label(build: Build) -> None:
    """Logits that follow a head's own criterion downhill end where `probabilities` names the target."""
    outputs = Criteria(build, training=False).outputs(3)
    head, target = build().eval(), torch.arange(3)
    free = torch.zeros(3, outputs, requires_grad=True)
    for _ in range(200):
        value = head.criterion(free, target).sum()  # type: ignore[operator]
        (gradient,) = torch.autograd.grad(value, free)
        # Downhill whatever the curvature, which weights of rare labels may make steep: by a quarter of what the slope promises.
        step, least = 0.5, 0.25 * gradient.square().sum()
        with torch.no_grad():
            while step > 1e-6 and not head.criterion(free - step * gradient, target).sum() <= value - step * least:  # type: ignore[operator]
                step /= 2
        free = (free - step * gradient).detach().requires_grad_()
    named = head.probabilities(free).argmax(1)  # type: ignore[operator]
    assert torch.equal(named, target), f"for targets 0, 1, 2 the probabilities end at {named.tolist()}"


def absent_labels_are_refused_or_survived(build: Build) -> None:
    """A label that the training part does not have is a KitError of the builder, or costs a finite loss by its own criterion."""
    _as_losses(build, losses.absent_labels_are_refused_or_survived)


def _once(head: nn.Module, given: Encoded) -> Tensor:
    """The logits; `Unjudged` where they lack what another check tests, so that a fault has one name."""
    logits = head(given)  # (B, K)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(given.mask):
        raise Unjudged("one-row-of-logits-per-pair is broken")
    return logits


def _logits(head: nn.Module, given: Encoded) -> Tensor:
    """The logits for a comparison: `Unjudged`, too, where two calls differ."""
    logits, again = _once(head, given), _once(head, given)
    if not torch.equal(logits, again):
        raise Unjudged("it differs from call to call in training" if head.training else "leaves-the-world-alone is broken")
    return logits


def _as_losses(build: Build, *checks: Callable[[losses.Build], None]) -> None:
    """Checks of losses on a head's own criterion, in evaluation mode and in training mode."""
    for training in (False, True):
        criteria = Criteria(build, training=training)
        try:
            for check in checks:
                check(criteria)
        except Unjudged:  # which names a check of losses
            raise Unjudged("criterion-gives-one-value-per-item is broken") from None
        except AssertionError as error:
            if not training:
                raise
            raise AssertionError(f"in training {error}") from error


CHECKS = (
    can_be_built,
    one_row_of_logits_per_pair,
    padding_and_neighbours_are_irrelevant,
    probabilities_sum_to_one,
    probabilities_stay_with_their_pair,
    gradient_reaches_the_trunk,
    every_parameter_learns,
    same_seed_same_weights,
    only_dropout_is_random,
    leaves_the_world_alone,
    works_under_autocast,
    state_survives_safetensors,
    criterion_gives_one_value_per_item,
    criterion_is_finite_at_the_extremes,
    criterion_has_the_right_gradient,
    criterion_leads_to_the_right_label,
    absent_labels_are_refused_or_survived,
)
