"""The promises of samplers: each broken promise is caught by the check that names it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from judging import broken, messages
from torch import Generator, Tensor

from empathy_kit import KitError, Sampler, Task
from empathy_kit.testing import sampler_checks

Sample = Callable[[Generator], Tensor]


def shuffled(tasks: Sequence[Task], labels: Tensor) -> Sample:
    return lambda generator: torch.randperm(len(labels), generator=generator)


def drawn(tasks: Sequence[Task], labels: Tensor) -> Sample:
    """As many pairs as there are, the rare ones of the first task more often."""
    counts = torch.tensor(tasks[0].class_counts).clamp(min=1)
    weights = torch.where(labels[:, 0] < 0, 0, 1 / counts[labels[:, 0].clamp(min=0)])
    return lambda generator: torch.multinomial(weights, len(labels), replacement=True, generator=generator)


def of(sample: Callable[[Tensor, Generator], Any]) -> Callable[..., Any]:
    """A builder that needs nothing but the labels when an epoch begins."""
    return lambda tasks, labels: lambda generator: sample(labels, generator)


def own_source(tasks: Sequence[Task], labels: Tensor) -> Sample:
    source = torch.Generator()
    source.seed()
    return lambda generator: torch.randperm(len(labels), generator=source)


def ordered_at_build(tasks: Sequence[Task], labels: Tensor) -> Sample:
    order = random.Random().sample(range(len(labels)), len(labels))
    return lambda generator: torch.tensor(order)


def epoch_after_epoch(tasks: Sequence[Task], labels: Tensor) -> Sample:
    epochs: list[int] = []

    def sample(generator: Generator) -> Tensor:
        epochs.append(1)
        return torch.arange(len(labels)).roll(len(epochs))

    return sample


def at_one_seed(labels: Tensor, generator: Generator) -> Tensor:
    return torch.randperm(len(labels), generator=generator.manual_seed(0))


def from_the_start(labels: Tensor, generator: Generator) -> Tensor:
    return torch.randperm(len(labels), generator=generator.manual_seed(generator.initial_seed()))


def globally(labels: Tensor, generator: Generator) -> Tensor:
    torch.randperm(len(labels))
    return torch.arange(len(labels))


def overwriting(tasks: Sequence[Task], labels: Tensor) -> Sample:
    labels.clamp_(min=0)
    return shuffled(tasks, labels)


def needs_every_label(tasks: Sequence[Task], labels: Tensor) -> Sample:
    for column in labels.T:
        torch.bincount(column)  # which refuses -1
    return shuffled(tasks, labels)


def the_labelled(tasks: Sequence[Task], labels: Tensor) -> Sample:
    """Without the pairs that have no label at all, but their numbers are those after they are gone."""
    kept = labels[(labels >= 0).any(1)]
    extra = len(labels) - len(kept)
    return lambda generator: torch.cat([torch.arange(len(kept)), torch.arange(len(labels), len(labels) + extra)])


def first_two_tasks(tasks: Sequence[Task], labels: Tensor) -> Sample:
    _ = labels[:, 1]
    return shuffled(tasks, labels)


def all_but_one(tasks: Sequence[Task], labels: Tensor) -> Sample:
    return lambda generator: torch.arange(len(labels) - 1)


def inverse_counts(tasks: Sequence[Task], labels: Tensor) -> Sample:
    for task in tasks:
        _ = [1 / count for count in task.class_counts]
    return shuffled(tasks, labels)


SHAPE = "positions-are-of-training-pairs"
BAD_SAMPLERS: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "returns-nothing": (lambda tasks, labels: None, {"can-be-built"}),
    "returns-positions": (lambda tasks, labels: torch.arange(len(labels)), {"can-be-built"}),
    "a-list": (of(lambda labels, generator: list(range(len(labels)))), {SHAPE}),
    "floats": (of(lambda labels, generator: torch.rand(len(labels))), {SHAPE, "leaves-the-world-alone"}),
    "a-mask": (of(lambda labels, generator: labels[:, 0] >= 0), {SHAPE}),
    "a-column": (of(lambda labels, generator: torch.arange(len(labels))[:, None]), {SHAPE}),
    "empty": (of(lambda labels, generator: torch.arange(0)), {SHAPE}),
    "counts-from-one": (of(lambda labels, generator: torch.arange(len(labels)) + 1), {SHAPE}),
    "counts-from-the-end": (of(lambda labels, generator: torch.arange(len(labels)) - 1), {SHAPE}),
    "draws-its-own-seed": (own_source, {"the-generator-alone-decides"}),
    "draws-when-it-is-built": (ordered_at_build, {"the-generator-alone-decides"}),
    "counts-epochs": (epoch_after_epoch, {"the-generator-alone-decides"}),
    "sets-the-seed": (of(at_one_seed), {"the-generator-alone-decides"}),
    "sets-the-seed-that-it-was-given": (of(from_the_start), {"the-generator-alone-decides"}),
    "throws-torchs-dice": (of(globally), {"leaves-the-world-alone"}),
    "writes-into-labels": (overwriting, {"leaves-the-world-alone"}),
    "needs-every-label": (needs_every_label, {"missing-labels-are-survived"}),
    "loses-count": (the_labelled, {"missing-labels-are-survived"}),
    "two-tasks-or-more": (first_two_tasks, {"any-tasks-and-any-count"}),
    "two-pairs-or-more": (all_but_one, {"any-tasks-and-any-count"}),
    "divides-by-the-count": (inverse_counts, {"absent-labels-are-refused-or-survived"}),
}


@pytest.mark.parametrize("name", BAD_SAMPLERS)
def test_a_bad_sampler_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    build, expected = BAD_SAMPLERS[name]
    assert broken(sampler_checks(Sampler(name, build))) == expected


def test_every_check_of_a_sampler_catches_something() -> None:
    caught = set().union(*(expected for _, expected in BAD_SAMPLERS.values()))
    assert caught == {str(check) for check in sampler_checks(Sampler("any", shuffled))}


def refusing(tasks: Sequence[Task], labels: Tensor) -> Sample:
    """A sampler may refuse labels that no pair has."""
    for task in tasks:
        if 0 in task.class_counts:
            raise KitError(f"sampler careful: {task.name} has a label without a pair")
    return shuffled(tasks, labels)


def in_order(tasks: Sequence[Task], labels: Tensor) -> Sample:
    """It draws nothing."""
    return lambda generator: torch.arange(len(labels))


def now_and_then(tasks: Sequence[Task], labels: Tensor) -> Sample:
    """How often it draws is itself drawn."""

    def sample(generator: Generator) -> Tensor:
        while torch.rand(1, generator=generator) < 0.9:
            pass
        return torch.randperm(len(labels), generator=generator)

    return sample


@pytest.mark.parametrize("build", [shuffled, drawn, refusing, in_order, now_and_then])
def test_a_good_sampler_is_not_caught(build: Callable[..., Any]) -> None:
    assert messages(sampler_checks(Sampler("good", build))) == {}


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        ("returns-nothing", "can-be-built", "it returns a NoneType, expected a function of a generator"),
        ("a-list", SHAPE, "it gives a list, expected a tensor of positions"),
        ("a-mask", SHAPE, "it gives (40,) torch.bool on cpu, expected (M,) torch.int64 on cpu"),
        ("empty", SHAPE, "it gives no position, expected at least one"),
        ("counts-from-one", SHAPE, "it gives positions from 1 to 40, and there are 40 pairs, expected 0 to 39"),
        ("counts-epochs", "the-generator-alone-decides", "two generators of the same state give other positions"),
        (
            "sets-the-seed",
            "the-generator-alone-decides",
            "it sets the generator, so that every epoch and every seed draws the same",
        ),
        (
            "sets-the-seed-that-it-was-given",
            "the-generator-alone-decides",
            "it sets the generator, so that every epoch draws the same",
        ),
        ("writes-into-labels", "leaves-the-world-alone", "it writes into its input number 1"),
        (
            "loses-count",
            "missing-labels-are-survived",
            "where labels are missing it gives positions from 0 to 47, and there are 40 pairs, expected 0 to 39",
        ),
        (
            "two-pairs-or-more",
            "any-tasks-and-any-count",
            "for 1 pair and tasks of 2 labels it gives no position, expected at least one",
        ),
    ],
)
def test_the_message_says_what_to_change(name: str, check: str, message: str) -> None:
    found = messages(sampler_checks(Sampler(name, BAD_SAMPLERS[name][0])))
    assert found == {check: message}
