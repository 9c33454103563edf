"""The promises of heads: each broken promise is caught by the check that names it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from good_parts import Trained
from judging import broken, messages
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from empathy_kit import Encoded, Head, Task
from empathy_kit.testing import head_checks


class MeanOfAll(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded.sequence.mean(1))  # the padding counts


class Packed(Trained):
    """Takes the real tokens for the first ones."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, encoded: Encoded) -> Tensor:
        packed = pack_padded_sequence(encoded.sequence, encoded.mask.sum(1), batch_first=True, enforce_sorted=False)
        return self.linear(self.gru(packed)[1][-1])


class BatchNormed(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        pooled = encoded.pooled
        if self.training:
            pooled = pooled - pooled.mean(0)
        return self.linear(pooled)


class Column(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return super().forward(encoded)[..., None]


class OneTooMany(Trained):
    def probabilities(self, logits: Tensor) -> Tensor:
        return F.pad(logits, (0, 1), value=-1e9).softmax(-1)


class Unnormalised(Trained):
    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class Overflowing(Trained):
    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.exp() / logits.exp().sum(-1, keepdim=True)


class Clamped(Trained):
    """Writes into its logits, and past what autograd would notice."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.data.clamp_(-20, 20).softmax(-1)


class OverTheBatch(Trained):
    def probabilities(self, logits: Tensor) -> Tensor:
        return (logits - logits.mean(0)).softmax(-1)


class CutOff(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded.pooled.detach())


class Idle(Trained):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.spare = nn.Linear(width, 1)


class OwnSource(Trained):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.linear.weight, generator=generator)


class AlwaysDropping(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        torch.rand(1)
        return super().forward(encoded)


class Rounded(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        logits: Tensor = super().forward(encoded)
        return logits if logits.dtype == torch.float32 else logits.round()


class Beside(Trained):
    """Learns a tensor that is no parameter."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.scale = torch.ones(1, requires_grad=True)

    def forward(self, encoded: Encoded) -> Tensor:
        return super().forward(encoded) * self.scale


class Dropping(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(F.dropout(encoded.pooled, 0.2))


class DroppingInTraining(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(F.dropout(encoded.pooled, 0.2, self.training))


class NoProbabilities(nn.Linear):
    def forward(self, encoded: Encoded) -> Tensor:
        return super().forward(encoded.pooled)


class CriterionIsANumber(Trained):
    criterion = 1.0


class WithoutCriterion(Trained):
    criterion = None  # as it may be where a head has one with some options only


class Noisy(Trained):
    """Hides behind its noise that it reads its neighbours, in training alone."""

    def forward(self, encoded: Encoded) -> Tensor:
        pooled = encoded.pooled
        if self.training:
            pooled = pooled + 0.1 * torch.randn_like(pooled) + pooled.mean(0)
        return self.linear(pooled)


class RunningMean(Trained):
    """Other from call to call, and not random."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, encoded: Encoded) -> Tensor:
        if self.training:
            self.mean += 0.1 * encoded.pooled.detach().mean(0)
        return self.linear(encoded.pooled - self.mean)


class RunningMeanBeside(RunningMean):
    """Keeps it outside of its state_dict."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        del self.mean
        self.mean = torch.zeros(width)


class FromZero(Trained):
    """Its weights start at 0, as those of ViT's head."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        nn.init.zeros_(self.linear.weight)


class Constant(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded.pooled).detach()


class SeedsItself(Trained):
    def __init__(self, width: int, classes: int) -> None:
        torch.manual_seed(42)
        super().__init__(width, classes)


class SeedsItsDropout(Trained):
    def forward(self, encoded: Encoded) -> Tensor:
        if self.training:
            torch.manual_seed(0)
        return self.linear(F.dropout(encoded.pooled, 0.2, self.training))


SHARED = {classes: Trained(16, classes) for classes in (2, 3, 7)}

BAD_HEADS: dict[str, tuple[Any, set[str]]] = {
    "returns-nothing": (lambda width, classes: None, {"can-be-built"}),
    "no-module": (lambda width, classes: lambda encoded: encoded.pooled, {"can-be-built"}),
    "no-probabilities": (NoProbabilities, {"can-be-built"}),
    "criterion-is-no-method": (CriterionIsANumber, {"can-be-built"}),
    "raises": (lambda width, classes: {}["nothing"], {"can-be-built"}),
    "two-labels-only-fail": (lambda width, classes: Trained(width, {3: 3, 7: 7}[classes]), {"can-be-built"}),
    "a-column": (Column, {"one-row-of-logits-per-pair"}),
    "a-label-too-many": (OneTooMany, {"one-row-of-logits-per-pair"}),
    "mean-over-padding": (MeanOfAll, {"padding-and-neighbours-are-irrelevant"}),
    "packs-by-the-count": (Packed, {"padding-and-neighbours-are-irrelevant"}),
    "centred-over-the-batch": (BatchNormed, {"padding-and-neighbours-are-irrelevant"}),
    "unnormalised": (Unnormalised, {"probabilities-sum-to-one"}),
    "exp-overflows": (Overflowing, {"probabilities-sum-to-one"}),
    "probabilities-of-the-batch": (OverTheBatch, {"probabilities-stay-with-their-pair"}),
    "cut-off-from-the-trunk": (CutOff, {"gradient-reaches-the-trunk"}),
    "idle-parameter": (Idle, {"every-parameter-learns"}),
    "shared-by-all-tasks": (lambda width, classes: SHARED[classes], {"every-parameter-learns"}),
    "draws-its-own-seed": (OwnSource, {"same-seed-same-weights"}),
    "sets-the-seed": (SeedsItself, {"same-seed-same-weights"}),
    "sets-the-seed-of-dropout": (SeedsItsDropout, {"leaves-the-world-alone"}),
    "noise-in-training": (Noisy, {"only-dropout-is-random"}),
    "throws-dice-at-inference": (AlwaysDropping, {"leaves-the-world-alone"}),
    "drops-at-inference": (Dropping, {"leaves-the-world-alone"}),
    "probabilities-write-into-logits": (Clamped, {"leaves-the-world-alone"}),
    "rounds-under-autocast": (Rounded, {"works-under-autocast"}),
    "learns-beside-its-state": (Beside, {"state-survives-safetensors"}),
    "keeps-a-mean-beside-its-state": (RunningMeanBeside, {"state-survives-safetensors"}),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_bad_head_is_caught_by_the_check_that_names_its_fault(name: str) -> None:
    made, expected = BAD_HEADS[name]
    found = broken(head_checks(Head(name, lambda task, width: made(width, task.num_classes))))
    assert found == expected


def test_what_changes_from_call_to_call_or_learns_nothing_is_not_called_random_or_a_change_of_the_world() -> None:
    def build(made: type[Trained], task: Task, width: int) -> Trained:
        return made(width, task.num_classes)

    for made, expected in ((RunningMean, set()), (Constant, {"gradient-reaches-the-trunk", "every-parameter-learns"})):
        found = broken(head_checks(Head("any", partial(build, made))))
        assert found == expected


def test_every_check_of_a_head_catches_something() -> None:
    caught = set().union(*(expected for _, expected in BAD_HEADS.values()))
    checks = head_checks(Head("any", lambda task, width: Trained(width, task.num_classes)))
    # Those of a criterion are in test_criterion_checks.py.
    assert caught == {str(check) for check in checks if check.judge() != "it has no criterion of its own"}


@pytest.mark.parametrize("made", [Trained, WithoutCriterion, DroppingInTraining, FromZero])
def test_a_good_head_is_not_caught(made: type[Trained]) -> None:
    assert messages(head_checks(Head("good", lambda task, width: made(width, task.num_classes)))) == {}


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        (
            "packs-by-the-count",
            "padding-and-neighbours-are-irrelevant",
            "in inference padding between what is read changes the logits",
        ),
        ("returns-nothing", "can-be-built", "it returns a NoneType, expected an nn.Module"),
        ("no-module", "can-be-built", "it returns a function, expected an nn.Module"),
        ("no-probabilities", "can-be-built", "probabilities is no method of it, expected probabilities(logits)"),
        ("criterion-is-no-method", "can-be-built", "criterion is no method of it, expected criterion(logits, target)"),
        (
            "drops-at-inference",
            "leaves-the-world-alone",
            "F.dropout drops outside of training; expected training=self.training, which is True by default",
        ),
        ("probabilities-write-into-logits", "leaves-the-world-alone", "probabilities writes into its input number 1"),
        (
            "shared-by-all-tasks",
            "every-parameter-learns",
            "built twice, both have the same linear.weight, linear.bias: what one learns changes the other",
        ),
    ],
)
def test_the_message_says_what_to_change(name: str, check: str, message: str) -> None:
    found = messages(head_checks(Head(name, lambda task, width: BAD_HEADS[name][0](width, task.num_classes))))
    assert found == {check: message}
