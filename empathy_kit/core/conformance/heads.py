"""The promises of a head: ``build(task, width)`` gives an ``nn.Module``, Encoded -> logits (B, K), with ``probabilities``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from empathy_kit.contracts import Encoded, Task
from empathy_kit.core.conformance.losses import CLASSES
from empathy_kit.core.conformance.world import (
    assert_registered,
    learn,
    left_alone,
    near,
    reload,
    seeded,
    task_of,
    without_dropout,
)

Build = Callable[[Task, int], nn.Module]

WIDTH = 16
LENGTHS = (7, 1, 4, 7, 2)


def encoded(lengths: tuple[int, ...] = LENGTHS, *, longest: int = 7, seed: int = 0, gradient: bool = False) -> Encoded:
    """What a trunk would hand over: each row's own random states, zero at the padding."""
    sequence = torch.stack([torch.randn(longest, WIDTH, generator=seeded(seed + row)) for row in range(len(lengths))])
    ends = torch.tensor(lengths)
    mask = torch.arange(longest) < ends[:, None]
    sequence = sequence * mask[..., None]  # (B, S, H)
    pooled = sequence[torch.arange(len(lengths)), ends - 1].clone()  # (B, H)
    return Encoded(pooled.requires_grad_(gradient), sequence.requires_grad_(gradient), mask)


def one_row_of_logits_a_pair(build: Build) -> None:
    """B pairs give logits (B, K) float32 and probabilities (B, C), for C of 2, 3 and 7."""
    for classes in CLASSES:
        head = build(task_of(classes), WIDTH).eval()
        for lengths in (LENGTHS, LENGTHS[:1]):
            logits = head(encoded(lengths))
            found = f"{len(lengths)} pairs, {classes} levels: logits"
            assert isinstance(logits, Tensor), f"{found} are a {type(logits).__name__}, expected a tensor"
            shape = tuple(logits.shape)
            assert shape[:1] == (len(lengths),), f"{found} {shape}, expected ({len(lengths)}, K)"
            assert len(shape) == 2, f"{found} {shape}, expected ({len(lengths)}, K)"
            assert logits.dtype == torch.float32, f"{found} {logits.dtype}, expected torch.float32"
            shape = tuple(head.probabilities(logits).shape)  # type: ignore[operator]
            assert shape == (len(lengths), classes), f"probabilities {shape}, expected ({len(lengths)}, {classes})"


def padding_and_neighbours_are_irrelevant(build: Build) -> None:
    """A pair's logits are the same alone, beside others, in another order and with more padding, in training too: 1e-5."""
    for mode in ("training", "inference"):
        head = build(task_of(3), WIDTH)
        head = without_dropout(head) if mode == "training" else head.eval()
        logits = head(encoded())
        for row, length in enumerate(LENGTHS):
            full = encoded()
            alone = Encoded(full.pooled[row : row + 1], full.sequence[row : row + 1, :length], full.mask[row : row + 1, :length])
            assert near(head(alone), logits[row : row + 1]), f"in {mode} pair {row} has other logits alone than beside others"
        full = encoded()
        wide = Encoded(
            full.pooled, nn.functional.pad(full.sequence, (0, 0, 0, 5)), nn.functional.pad(full.mask, (0, 5), value=False)
        )
        assert near(head(wide), logits), f"in {mode} more padding changes the logits"
        turned = head(Encoded(full.pooled.flip(0), full.sequence.flip(0), full.mask.flip(0))).flip(0)
        assert near(turned, logits), f"in {mode} the order of the pairs changes their logits"


def probabilities_sum_to_one(build: Build) -> None:
    """Probabilities lie between 0 and 1 and sum to 1, for logits up to 1e4 too."""
    for classes in CLASSES:
        head = build(task_of(classes), WIDTH).eval()
        logits = head(encoded()).detach()
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
    head = build(task_of(3), WIDTH).eval()
    logits = head(encoded()).detach()
    shares = head.probabilities(logits)  # type: ignore[operator]
    alone = torch.cat([head.probabilities(logits[row : row + 1]) for row in range(len(logits))])  # type: ignore[operator]
    assert near(alone, shares), "a pair's probabilities change with the other pairs"


def gradient_reaches_the_trunk(build: Build) -> None:
    """Every pair's logits have a finite gradient with respect to what the trunk hands over."""
    head = without_dropout(build(task_of(3), WIDTH))
    given = encoded(gradient=True)
    torch.autograd.backward(_weighted(head(given)))
    reached = torch.zeros(len(LENGTHS))
    for tensor in (given.pooled, given.sequence):
        if tensor.grad is not None:
            assert tensor.grad.isfinite().all(), "a gradient is not finite"
            reached += tensor.grad.abs().flatten(1).sum(1)
    assert (reached > 0).all(), "no gradient reaches the trunk"


def every_parameter_learns(build: Build) -> None:
    """Every parameter of the head has a gradient, so that none is trained in vain."""
    head = without_dropout(build(task_of(3), WIDTH))
    torch.autograd.backward(_weighted(head(encoded())))
    # Which pairs move which parameter is the head's affair: a threshold may need a criterion to move.
    if hasattr(head, "criterion"):
        torch.autograd.backward(head.criterion(head(encoded()), torch.tensor([0, 1, 2, 0, 1])).sum())  # type: ignore[operator]
    idle = [name for name, parameter in head.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not idle, f"no gradient reaches {', '.join(idle)}"


def same_seed_same_weights(build: Build) -> None:
    """Built twice after the same `torch.manual_seed`, it has the same weights."""
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(task_of(3), WIDTH).state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), f"{name} differs: it is drawn from another source than torch's seed"


def leaves_the_world_alone(build: Build) -> None:
    """At inference inputs, random numbers, gradient mode and other global settings stay as they were."""
    head = build(task_of(3), WIDTH).eval()
    given = encoded()
    with left_alone(given.pooled, given.sequence, given.mask):
        head.probabilities(head(given))  # type: ignore[operator]


def works_under_autocast(build: Build) -> None:
    """Under autocast to bfloat16 the logits stay what they are, to a twentieth."""
    head = build(task_of(3), WIDTH).eval()
    plain = head(encoded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(encoded()).float()
    assert near(logits, plain, 0.05), f"{logits.tolist()} under autocast, {plain.tolist()} without"


def state_survives_safetensors(build: Build) -> None:
    """All that the head has learnt is in its state_dict, and after safetensors it says the same."""
    head, fresh = without_dropout(build(task_of(3), WIDTH)), build(task_of(3), WIDTH).eval()
    value = _weighted(head(encoded(seed=9)))
    assert_registered(value, head)
    learn(head, value)
    head.eval()
    reload(head, fresh)
    assert near(fresh(encoded()), head(encoded())), "the logits from the saved state differ from those before"


def criterion_gives_one_value_an_item(build: Build) -> None:
    """A head's own criterion gives N values, float32, for N of 5, 1 and 0, each from its own item alone."""
    head, logits = _with_criterion(build)
    if head is None:
        return
    target = torch.arange(5) % 3
    values = head.criterion(logits, target)  # type: ignore[operator]
    for rows in (5, 1, 0):
        part = head.criterion(logits[:rows], target[:rows])  # type: ignore[operator]
        assert part.shape == (rows,), f"N = {rows} gives shape {tuple(part.shape)}, expected ({rows},)"
        assert part.dtype == torch.float32, f"N = {rows} gives {part.dtype}, expected torch.float32"
        assert near(part, values[:rows]), "an item's value changes with the other items"


def criterion_is_finite_at_the_extremes(build: Build) -> None:
    """A head's own criterion has a finite value and gradient for logits up to 1e4."""
    head, logits = _with_criterion(build)
    if head is None:
        return
    outputs = logits.shape[1]
    for scale in (0.0, 100.0, 1e4):
        given = scale * torch.cat([torch.eye(outputs), -torch.eye(outputs), 2 * torch.eye(outputs) - 1])
        for level in range(3):
            wild = given.clone().requires_grad_()
            values = head.criterion(wild, torch.full((len(wild),), level))  # type: ignore[operator]
            (gradient,) = torch.autograd.grad(values.sum(), wild)
            assert values.isfinite().all(), f"a value is not finite, logits of size {scale:g}"
            assert gradient.isfinite().all(), f"a gradient is not finite, logits of size {scale:g}"


def criterion_leads_to_the_right_level(build: Build) -> None:
    """Logits that follow a head's own criterion downhill end where `probabilities` names the target."""
    head, logits = _with_criterion(build)
    if head is None:
        return
    target = torch.arange(3)
    free = torch.zeros(3, logits.shape[1], requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(head.criterion(free, target).sum(), free)  # type: ignore[operator]
        free = (free - 0.5 * gradient).detach().requires_grad_()
    named = head.probabilities(free).argmax(1)  # type: ignore[operator]
    assert torch.equal(named, target), f"for targets 0, 1, 2 the probabilities end at {named.tolist()}"


def _with_criterion(build: Build) -> tuple[nn.Module | None, Tensor]:
    head = build(task_of(3), WIDTH).eval()
    return (head if hasattr(head, "criterion") else None), head(encoded()).detach()


def _weighted(logits: Tensor) -> Tensor:
    # Not the plain sum, which a softmax or a centred output would make constant.
    return (logits * torch.randn(logits.shape, generator=seeded(4))).sum()


CHECKS = (
    one_row_of_logits_a_pair,
    padding_and_neighbours_are_irrelevant,
    probabilities_sum_to_one,
    probabilities_stay_with_their_pair,
    gradient_reaches_the_trunk,
    every_parameter_learns,
    same_seed_same_weights,
    leaves_the_world_alone,
    works_under_autocast,
    state_survives_safetensors,
    criterion_gives_one_value_an_item,
    criterion_is_finite_at_the_extremes,
    criterion_leads_to_the_right_level,
)
