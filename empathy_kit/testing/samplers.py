"""The promises of a sampler: ``build(tasks, labels (N, T))`` gives ``f(generator) -> (M,)``, positions of training pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from empathy_kit.contracts import Task
from empathy_kit.errors import KitError
from empathy_kit.testing.world import Unjudged, called, left_alone, seeded

Sample = Callable[[Generator], Tensor]

COUNT = 40
CLASSES = (3, 2, 7)


class Build:
    """The builder, for some labels."""

    def __init__(self, make: Callable[[Sequence[Task], Tensor], Any]) -> None:
        self.make = make

    def raw(self, labels: Tensor, classes: Sequence[int] = CLASSES) -> Any:
        """What it returns for labels (N, T), with the counts in the tasks that go with them."""
        return self.make(tasks_of(labels, classes), labels)

    def __call__(self, labels: Tensor, classes: Sequence[int] = CLASSES) -> Sample:
        sample: Sample = called(lambda: self.raw(labels, classes), _fault)
        return sample


def _fault(sample: object) -> str | None:
    return None if callable(sample) else f"it returns a {type(sample).__name__}, expected a function of a generator"


def tasks_of(labels: Tensor, classes: Sequence[int]) -> list[Task]:
    """The tasks that these labels are of, as the kit would describe them."""
    names = ("ER", "warmth", "a-b_c")
    counts = (torch.bincount(column[column >= 0], minlength=size) for column, size in zip(labels.T, classes, strict=True))
    return [
        Task(name, tuple(f"label {label}" for label in range(size)), tuple(count.tolist()))
        for name, size, count in zip(names, classes, counts, strict=False)
    ]


def labels_of(rows: int = COUNT, classes: Sequence[int] = CLASSES, *, missing: float = 0.0) -> Tensor:
    """Imbalanced labels (N, T) int64, every label of every task at least once where there are rows enough; some missing."""
    generator = seeded(rows)
    columns = []
    for size in classes:
        drawn = (torch.rand(rows, generator=generator) ** 3 * size).long()  # the first labels are the commonest
        drawn[:size] = torch.arange(size)[:rows]
        drawn[size:][torch.rand(max(rows - size, 0), generator=generator) < missing] = -1
        columns.append(drawn)
    return torch.stack(columns, 1)


def can_be_built(build: Build) -> None:
    """The builder takes tasks and labels (N, T) int64, and returns a function of a generator."""
    fault = _fault(build.raw(labels_of()))
    assert fault is None, fault


def positions_are_of_training_pairs(build: Build) -> None:
    """An epoch is (M,) int64 positions on the CPU, at least one, and each from 0 to N - 1."""
    sample = build(labels_of())
    for seed in range(3):
        fault = _wrong(sample(seeded(seed)), COUNT)
        assert fault is None, fault


def _wrong(positions: object, count: int) -> str | None:
    if not isinstance(positions, Tensor):
        return f"it gives a {type(positions).__name__}, expected a tensor of positions"
    if positions.dim() != 1 or positions.dtype != torch.int64 or positions.device.type != "cpu":
        return f"it gives {tuple(positions.shape)} {positions.dtype} on {positions.device}, expected (M,) torch.int64 on cpu"
    if not len(positions):
        return "it gives no position, expected at least one"
    low, high = int(positions.min()), int(positions.max())
    if low < 0 or high >= count:
        return f"it gives positions from {low} to {high}, and there are {count} pairs, expected 0 to {count - 1}"
    return None


def the_generator_alone_decides(build: Build) -> None:
    """The same state of the generator gives the same positions, whatever was drawn before, here or elsewhere; it is never set."""
    labels = labels_of(missing=0.3)
    first = _positions(build(labels), 5, COUNT)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    sample = build(labels)
    _positions(sample, 6, COUNT)
    for again in (_positions(sample, 5, COUNT), _positions(build(labels), 5, COUNT)):
        assert torch.equal(again, first), "two generators of the same state give other positions"
    generator, other = seeded(5), seeded(6)
    fresh = generator.get_state()
    sample(generator)
    once = generator.get_state()
    sample(generator)
    sample(other)
    assert not torch.equal(other.get_state(), once), "it sets the generator, so that every epoch and every seed draws the same"
    # One that draws nothing leaves it where it was, and may.
    back = torch.equal(generator.get_state(), once) and not torch.equal(once, fresh)
    assert not back, "it sets the generator, so that every epoch draws the same"


def leaves_the_world_alone(build: Build) -> None:
    """Labels are not written to; random numbers but the generator's, and other global settings, stay as they were."""
    labels = labels_of(missing=0.3)
    with left_alone(labels, training=True):
        sample = build(labels)
        sample(seeded())


def missing_labels_are_survived(build: Build) -> None:
    """Labels may be missing: some of a pair's, and all of it."""
    labels = labels_of(missing=0.4)
    labels[-5:] = -1
    _holds(build, labels, "where labels are missing")


def any_tasks_and_any_count(build: Build) -> None:
    """One task or several, 2 labels or 7, one pair or many."""
    for rows, classes in ((COUNT, (7,)), (COUNT, (2,)), (COUNT, (2, 3)), (7, (3, 7)), (1, (2,)), (1, CLASSES)):
        where = f"for {rows} {'pair' if rows == 1 else 'pairs'} and tasks of {' and '.join(map(str, classes))} labels"
        _holds(build, labels_of(rows, classes), where, classes)


def absent_labels_are_refused_or_survived(build: Build) -> None:
    """A label that no pair has is a KitError of the builder, or does no harm."""
    _positions(build(labels_of()), 0, COUNT)
    labels = labels_of()
    for absent in (labels.where(labels != 1, 0), torch.zeros_like(labels)):
        fault = _refused_or_wrong(build, absent, CLASSES)
        assert fault is None, f"where a label is absent {fault}"


def _refused_or_wrong(build: Build, labels: Tensor, classes: Sequence[int]) -> str | None:
    try:
        sample = build.raw(labels, classes)
    except KitError:
        return None
    return _wrong(sample(seeded()), len(labels))


def _holds(build: Build, labels: Tensor, where: str, classes: Sequence[int] = CLASSES) -> None:
    _positions(build(labels_of()), 0, COUNT)
    if all(0 not in task.class_counts for task in tasks_of(labels, classes)):
        fault = _wrong(build.raw(labels, classes)(seeded()), len(labels))
    else:  # of a few pairs, none may have some label
        try:
            fault = _refused_or_wrong(build, labels, classes)
        except Exception:
            raise Unjudged("absent-labels-are-refused-or-survived is broken") from None
    assert fault is None, f"{where} {fault}"


def _positions(sample: Sample, seed: int, count: int) -> Tensor:
    """An epoch; `Unjudged` where it is not one, so that a fault has one name."""
    positions = sample(seeded(seed))
    if _wrong(positions, count) is not None:
        raise Unjudged("positions-are-of-training-pairs is broken")
    return positions


CHECKS = (
    can_be_built,
    positions_are_of_training_pairs,
    the_generator_alone_decides,
    leaves_the_world_alone,
    missing_labels_are_survived,
    any_tasks_and_any_count,
    absent_labels_are_refused_or_survived,
)
