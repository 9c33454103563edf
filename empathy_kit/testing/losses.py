"""The promises of a loss: ``build(task)`` gives ``f(logits (N, C), target (N,)) -> (N,)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from empathy_kit.contracts import Task
from empathy_kit.errors import KitError
from empathy_kit.testing.world import (
    CLASSES,
    Unjudged,
    assert_apart,
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
)

LossFunction = Callable[[Tensor, Tensor], Tensor]


class Build:
    """The builder, for a task of so many labels."""

    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)  # of logits that it has to bear

    def __init__(self, make: Callable[[Task], Any]) -> None:
        self.make = make

    def __call__(self, classes: int = 3) -> LossFunction:
        loss: LossFunction = called(lambda: self.make(task_of(classes)), _fault)
        return loss

    def outputs(self, classes: int) -> int:
        """Logits per item: a loss has one per label, and a head's own criterion any number K."""
        return classes

    def batch(self, rows: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:  # (N, K) float32 with gradient, (N,) int64
        """Random logits and targets."""
        generator = seeded(seed)
        logits = (2 * torch.randn(rows, self.outputs(classes), generator=generator, dtype=torch.float32)).requires_grad_()
        return logits, torch.randint(classes, (rows,), generator=generator)


def _fault(loss: object) -> str | None:
    return None if callable(loss) else f"it returns a {type(loss).__name__}, expected a function of logits and target"


def can_be_built(build: Build) -> None:
    """The builder takes tasks of 2, 3 and 7 labels and returns a function, or an `nn.Module` where the loss learns."""
    for classes in CLASSES:
        fault = _fault(build.make(task_of(classes)))
        assert fault is None, fault


def one_value_per_item(build: Build) -> None:
    """Logits (N, C) float32 and targets (N,) give N values, float32, with a gradient; C may be 2, 3 or 7, and N 0."""
    for classes in CLASSES:
        loss = build(classes)
        for rows in (5, 1, 0):
            logits, target = build.batch(rows, classes)
            values = loss(logits, target)
            found = f"N = {rows}, C = {classes} gives"
            assert isinstance(values, Tensor), f"{found} a {type(values).__name__}, expected a tensor"
            assert values.shape == (rows,), f"{found} shape {tuple(values.shape)}, expected ({rows},)"
            assert values.dtype == torch.float32, f"{found} {values.dtype}, expected torch.float32"
            assert rows == 0 or values.requires_grad, f"{found} values without a gradient"


def items_are_independent(build: Build) -> None:
    """An item's loss, and its gradient, are the same alone, in another order, and next to other items."""
    loss = build()
    logits, target = build.batch(6, 3)
    values = _values(loss, logits, target)
    for row in range(6):
        alone = _values(loss, logits[row : row + 1], target[row : row + 1])
        assert near(alone, values[row : row + 1]), (
            f"item {row} costs {float(alone.detach()):.6g} alone, {float(values[row].detach()):.6g} in a batch"
        )
    turned = _values(loss, logits.flip(0), target.flip(0)).flip(0)
    assert near(turned, values), "the items' losses depend on their order"
    (gradient,) = torch.autograd.grad(values[0], logits)
    assert not gradient[1:].any(), "an item's loss has a gradient with respect to another item's logits"


def the_same_call_gives_the_same_loss(build: Build) -> None:
    """A loss does not depend on the calls before it, neither in training mode nor in evaluation mode."""
    for training in (True, False):
        loss = build()
        if isinstance(loss, nn.Module):
            loss.train(training)
        logits, target = build.batch(6, 3)
        first = loss(logits, target).detach().clone()
        loss(*build.batch(9, 3, seed=1))
        mode = "training" if training else "evaluation"
        assert torch.equal(loss(logits, target), first), f"two calls with the same logits differ in {mode} mode"


def finite_at_the_extremes(build: Build) -> None:
    """Value and gradient are finite for logits up to 1e4 on either side, for ties and saturated rows, in float32 and bfloat16."""
    for classes in CLASSES:
        loss = build(classes)
        names, rows = zip(*_extremes(build.outputs(classes)), strict=True)
        every = torch.stack(rows).repeat_interleave(classes, 0)  # each row with each target
        target = torch.arange(classes).repeat(len(rows))
        for dtype in build.dtypes:
            logits = every.to(dtype).requires_grad_()
            values = _values(loss, logits, target)
            (gradient,) = torch.autograd.grad(values.sum(), logits)
            finite = values.isfinite() & gradient.isfinite().all(1)
            if not finite.all():
                row = int(finite.byte().argmin())
                what = "gradient" if values[row].isfinite() else "loss"
                where = f"{names[row // classes]}, target {int(target[row])} of {classes} labels, {dtype}"
                raise AssertionError(f"a {what} is not finite: {where}")


def _extremes(outputs: int) -> Iterator[tuple[str, Tensor]]:  # its name, (K,)
    yield "all logits 0", torch.zeros(outputs)
    for size in (30.0, 100.0, 1e4):
        for sign in (1, -1):
            yield f"all logits {sign * size:g}", torch.full((outputs,), sign * size)
        for one_hot in torch.eye(outputs):
            yield f"one logit {size:g}, the others 0", size * one_hot
            yield f"one logit {-size:g}, the others 0", -size * one_hot
            yield f"one logit {size:g}, the others {-size:g}", size * (2 * one_hot - 1)


def gradient_is_right(build: Build) -> None:
    """The gradient is that of the value: finite differences in float64 agree, and the float32 of training with them."""
    for classes in CLASSES:
        loss, outputs = build(classes), build.outputs(classes)
        single = (1.5 * torch.randn(8, outputs, generator=seeded(2))).requires_grad_()
        target = torch.arange(8) % classes
        (trained,) = torch.autograd.grad(_values(loss, single, target).sum(), single)
        if isinstance(loss, nn.Module):
            loss = loss.double()  # its weights, or products would fall back to float32
        logits = single.detach().double().requires_grad_()
        eps = 1e-6
        with torch.enable_grad():  # as in _values
            try:
                values = loss(logits, target)
            except RuntimeError:  # tensors that a function holds in float32: then in float32, as the kit calls it
                values = torch.empty(0)
            if values.dtype != torch.float64:
                logits, eps = logits.detach().float().requires_grad_(), 1e-2
                values = loss(logits, target)
        (found,) = torch.autograd.grad(values.sum(), logits)
        assert near(trained.double(), found.double(), 1e-3), (
            f"the gradient of {outputs} logits in float32 is {trained.tolist()}, in float64 {found.tolist()}"
        )
        for column in range(outputs):
            step = torch.zeros_like(logits)
            step[:, column] = eps
            with torch.no_grad():
                expected = (loss(logits + step, target) - loss(logits - step, target)) / (2 * eps)
            tolerance = 1e-5 if logits.dtype == torch.float64 else 5e-3
            assert near(found[:, column].double(), expected.double(), tolerance), (
                f"the gradient of logit {column} of {outputs} is {found[:, column].tolist()}, by differences {expected.tolist()}"
            )


def better_logits_cost_less(build: Build) -> None:
    """A right answer costs less than an undecided one, at some margin at least, and a wrong one more, at every margin."""
    for classes in CLASSES:
        target = torch.arange(classes)
        loss = build(classes)
        # Soft targets have their least cost at a small margin, and a very sure answer costs more again.
        towards = [margin * F.one_hot(target, classes).float() for margin in (0.25, 0.5, 1.0, 2.0, 4.0)]
        undecided = _values(loss, torch.zeros(classes, classes).requires_grad_(), target).tolist()
        right, wrong = (
            torch.stack([_values(loss, (sign * each).requires_grad_(), target) for each in towards]) for sign in (1, -1)
        )
        for label in range(classes):
            least, most = float(right[:, label].detach().min()), float(wrong[:, label].detach().min())
            found = f"label {label} of {classes}: right costs {least:.6g}, undecided {undecided[label]:.6g}, wrong {most:.6g}"
            assert least < undecided[label] < most, found


def leaves_the_world_alone(build: Build) -> None:
    """Inputs, random numbers, gradient mode and other global settings stay as they were; weights are drawn by torch's seed."""
    same_seed_same_weights(build)
    a_call_leaves_the_world_alone(build)


def a_call_leaves_the_world_alone(build: Build) -> None:
    """What of that a head's own criterion promises as well."""
    loss = build()
    logits, target = build.batch(5, 3)
    # Large ones as well: a clamp leaves the others as they are.
    logits, target = torch.cat([logits, 1e3 * logits]).detach().requires_grad_(), target.repeat(2)
    with left_alone(logits, target, training=True):
        values = loss(logits, target)
        if values.requires_grad:
            torch.autograd.backward(values.sum())


def works_under_autocast(build: Build) -> None:
    """Under autocast to bfloat16 the loss of float32 logits stays what it is within 0.1 %, and its gradient finite."""
    loss = build()
    logits, target = build.batch(6, 3)
    plain = _values(loss, logits, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = _values(loss, logits, target)
    assert near(values.float(), plain, 1e-3), f"{values.tolist()} under autocast, {plain.tolist()} without"
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert gradient.isfinite().all(), "a gradient is not finite under autocast"


def works_under_checkpointing(build: Build) -> None:
    """Recomputed in the backward pass (gradient checkpointing), it gives the same gradient."""
    loss = build()
    logits, target = build.batch(6, 3)
    (plain,) = torch.autograd.grad(_values(loss, logits, target).sum(), logits)
    with torch.enable_grad():  # as in _values
        values = checkpoint(loss, logits, target, use_reentrant=False)
    (again,) = torch.autograd.grad(values.sum(), logits)
    assert near(again, plain), "the gradient differs when the loss is recomputed"


def compiles_whole(build: Build) -> None:
    """`torch.compile(fullgraph=True)` takes it in one graph, forward and backward, and gives the same numbers."""
    loss = build()
    logits, target = build.batch(6, 3)
    plain = _values(loss, logits, target)
    torch._dynamo.reset()
    # aot_eager: this checks whether it can be traced, not whether this machine has a compiler.
    with torch.enable_grad():  # as in _values
        values = torch.compile(loss, fullgraph=True, backend="aot_eager")(logits, target)
    assert near(values, plain), f"{values.tolist()} compiled, {plain.tolist()} not"
    one, other = (torch.autograd.grad(each.sum(), logits)[0] for each in (values, plain))
    assert near(one, other), "the gradient differs when the loss is compiled"


def every_parameter_learns(build: Build) -> None:
    """Where the loss learns, every parameter has a gradient, and each task has parameters of its own."""
    loss = build()
    if not isinstance(loss, nn.Module) or not any(True for _ in loss.parameters()):
        raise Unjudged("it has no parameter")
    assert_apart(loss, build())
    torch.autograd.backward(_values(loss, *build.batch(6, 3)).sum())
    assert_learns(loss)


def state_survives_safetensors(build: Build) -> None:
    """What a loss has learnt is in its state_dict, and after safetensors it gives the same, in evaluation mode too."""
    loss, fresh = build(), build()
    logits, target = build.batch(6, 3)
    values = _values(loss, logits, target)
    assert_registered(values, loss, logits)
    if isinstance(loss, nn.Module) and isinstance(fresh, nn.Module):
        learn(loss, values.sum())
        reload(loss, fresh)
        for training in (True, False):
            found, expected = (_values(each.train(training), logits, target) for each in (fresh, loss))
            assert near(found, expected), f"{found.tolist()} from the saved state, {expected.tolist()} before"


def absent_labels_are_refused_or_survived(build: Build) -> None:
    """A label that the training part does not have is a KitError of the builder, or costs a finite loss."""
    build()
    try:
        loss = build.make(task_of(3, (60, 0, 10)))
    except KitError:
        return
    logits, target = build.batch(6, 3)
    values = _values(loss, logits, target)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert values.isfinite().all(), "a loss is not finite where a label is absent"
    assert gradient.isfinite().all(), "a gradient is not finite where a label is absent"


def _values(loss: LossFunction, logits: Tensor, target: Tensor) -> Tensor:
    """The losses; `Unjudged` where they lack what another check tests, so that a fault has one name."""
    with torch.enable_grad():  # its end undoes what a loss may do to gradient mode
        values, again = loss(logits, target), loss(logits, target)
    if not isinstance(values, Tensor) or values.shape != target.shape or not values.requires_grad:
        raise Unjudged("one-value-per-item is broken")
    if values.isfinite().all() and not torch.equal(values, again):
        raise Unjudged("the-same-call-gives-the-same-loss is broken")
    return again


CHECKS = (
    can_be_built,
    one_value_per_item,
    items_are_independent,
    the_same_call_gives_the_same_loss,
    finite_at_the_extremes,
    gradient_is_right,
    better_logits_cost_less,
    leaves_the_world_alone,
    works_under_autocast,
    works_under_checkpointing,
    compiles_whole,
    every_parameter_learns,
    state_survives_safetensors,
    absent_labels_are_refused_or_survived,
)
