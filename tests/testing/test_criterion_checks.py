"""The promises of a head's own criterion: each broken promise is caught by the check that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from good_parts import Trained
from judging import broken, messages
from torch import Tensor

from empathy_kit import Head, KitError, Task
from empathy_kit.testing import head_checks

ONE_VALUE, FINITE = "criterion-gives-one-value-per-item", "criterion-is-finite-at-the-extremes"
GRADIENT, RIGHT = "criterion-has-the-right-gradient", "criterion-leads-to-the-right-label"
ABSENT, WORLD = "absent-labels-are-refused-or-survived", "leaves-the-world-alone"


def ce(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="none")


class WithCriterion(Trained):
    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target)


class Steep(WithCriterion):
    """A regression whose rare level weighs much: downhill from it a fixed step would jump from side to side."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, 1)
        self.classes = classes

    def probabilities(self, logits: Tensor) -> Tensor:
        return (-((logits - torch.arange(self.classes, device=logits.device)) ** 2)).softmax(-1)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.where(target == self.classes - 1, 8.0, 0.5) * (logits[:, 0] - target) ** 2


class Counted(WithCriterion):
    """Divides by how many training pairs have the label."""

    counts: Tensor

    def __init__(self, task: Task, width: int) -> None:
        super().__init__(width, task.num_classes)
        self.register_buffer("counts", torch.tensor(task.class_counts, dtype=torch.float32), persistent=False)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target) / self.counts[target]


def counted_or_refused(task: Task, width: int) -> Counted:
    if not all(task.class_counts):
        raise KitError("a label is absent")
    return Counted(task, width)


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 1.5 * gradient


def overflowing(logits: Tensor, target: Tensor) -> Tensor:
    return (logits.exp().sum(1) + 1e-9).log() - logits.gather(1, target[:, None])[:, 0]


def in_place(logits: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        logits.sub_(logits.amax(1, keepdim=True))
    return ce(logits, target)


def by_the_batch(logits: Tensor, target: Tensor) -> Tensor:
    values = ce(logits, target)
    return values / values.mean().detach()


def head(criterion: Callable[[Tensor, Tensor], Tensor], *, training: bool = False) -> Callable[[Task, int], Trained]:
    """The builder of a head with a criterion, or with one that is wrong in training alone."""

    class Made(WithCriterion):
        def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
            return ce(logits, target) if training and not self.training else criterion(logits, target)

    return lambda task, width: Made(width, task.num_classes)


BAD: dict[str, tuple[Callable[[Task, int], Trained], set[str]]] = {
    "a-mean": (head(lambda x, y: ce(x, y).mean()), {ONE_VALUE}),
    "three-labels-only": (head(lambda x, y: ce(x, y) * torch.tensor([0.5, 1.0, 2.0])[y]), {ONE_VALUE, FINITE, GRADIENT}),
    "three-labels-exactly": (head(lambda x, y: -(F.one_hot(y, 3) * x.log_softmax(1)).sum(1)), {ONE_VALUE, FINITE, GRADIENT}),
    "place-in-the-batch": (head(lambda x, y: ce(x, y) * torch.arange(1, len(y) + 1)), {ONE_VALUE}),
    # Its gradient takes the mean for a constant, which it is not.
    "share-of-the-batch-in-training": (head(by_the_batch, training=True), {ONE_VALUE, GRADIENT}),
    "size-of-the-batch-in-training": (head(lambda x, y: 0 * ce(x, y) + len(y), training=True), {ONE_VALUE}),
    "noise-in-training": (head(lambda x, y: ce(x + 0.01 * torch.randn_like(x), y), training=True), {ONE_VALUE, WORLD}),
    "overflows": (head(overflowing), {FINITE}),
    "wrong-gradient": (head(lambda x, y: WrongGradient.apply(ce(x, y))), {GRADIENT}),
    "wrong-gradient-in-training": (head(lambda x, y: WrongGradient.apply(ce(x, y)), training=True), {GRADIENT}),
    "teaches-another-label": (head(lambda x, y: ce(x, x.shape[1] - 1 - y)), {RIGHT}),
    "writes-into-logits": (head(in_place), {WORLD}),
    "divides-by-the-count": (lambda task, width: Counted(task, width), {ABSENT}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_criterion_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    build, expected = BAD[name]
    assert broken(head_checks(Head(name, build))) == expected


def test_every_check_of_a_criterion_catches_something() -> None:
    caught = set().union(*(expected for _, expected in BAD.values()))
    checks = head_checks(Head("any", lambda task, width: Trained(width, task.num_classes)))
    assert caught - {WORLD} == {str(check) for check in checks if check.judge() == "it has no criterion of its own"}


@pytest.mark.parametrize(
    "build", [head(ce), lambda task, width: Steep(width, task.num_classes), counted_or_refused], ids=["ce", "steep", "counted"]
)
def test_a_good_criterion_is_not_caught(build: Callable[[Task, int], Trained]) -> None:
    assert messages(head_checks(Head("good", build))) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a-mean", "N = 5, C = 2 gives shape (), expected (5,)"),
        ("size-of-the-batch-in-training", "in training item 0 costs 1 alone, 6 in a batch"),
    ],
)
def test_the_message_says_what_is_wrong_with_a_criterion_and_in_which_mode(name: str, message: str) -> None:
    assert messages(head_checks(Head(name, BAD[name][0]))) == {ONE_VALUE: message}


def test_where_a_criterion_gives_no_value_per_item_its_other_promises_cannot_be_judged() -> None:
    ends = {str(check): check.judge() for check in head_checks(Head("mean", BAD["a-mean"][0])) if str(check) != ONE_VALUE}
    assert {name for name, end in ends.items() if end == f"{ONE_VALUE} is broken"} == {FINITE, GRADIENT, ABSENT}
