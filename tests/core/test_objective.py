"""The objective: mean losses over labelled pairs, summed over tasks, and the span loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import NAMES, RECIPE, TRAIN, VALIDATION, Small, make_model, same, weights, without_labels
from torch import Tensor, nn

from empathy_kit.core.batch import Targets, collate_targets, collate_texts
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.losses.focal import FocalLoss
from empathy_kit.core.model import Model, Output
from empathy_kit.core.objective import Objective, span_loss
from empathy_kit.errors import KitError


def targets_of(levels: Tensor) -> Targets:  # (B, T)
    known = levels >= 0
    return Targets(levels, torch.zeros(*levels.shape, 1, dtype=torch.bool), known)


def test_the_loss_is_the_sum_over_tasks_of_their_means() -> None:
    said, true = Small().evaluate(), VALIDATION.levels().numpy()
    rows = range(len(VALIDATION))
    expected = sum(-np.log(said.probabilities[name][rows, true[:, index]]).mean() for index, name in enumerate(NAMES))
    assert said.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "criterion", [FocalLoss(2.0), FocalLoss(0.0, [1.0, 2.0, 3.0]), cross_entropy], ids=["focal", "weighted", "ce"]
)
def test_a_missing_label_counts_in_no_loss_and_moves_no_logit(criterion: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = {name: torch.randn(6, 3, generator=generator, requires_grad=True) for name in ("A", "B")}
    levels = torch.tensor([[0, 1], [-1, 2], [2, -1], [1, 0], [-1, -1], [0, 2]])
    objective = Objective(dict.fromkeys(logits, criterion))
    total = objective(Output(logits, None), targets_of(levels), torch.ones(6, 1, dtype=torch.bool))
    expected = torch.zeros(())
    for index, rows in enumerate(logits.values()):
        known = levels[:, index] >= 0
        expected = expected + criterion(rows[known], levels[known, index]).mean()
    torch.testing.assert_close(total, expected)
    total.backward()  # type: ignore[no-untyped-call]
    for index, rows in enumerate(logits.values()):
        assert rows.grad is not None
        assert torch.equal(rows.grad.abs().sum(1) > 0, levels[:, index] >= 0)


def test_a_task_without_a_label_in_the_batch_costs_nothing() -> None:
    def never(logits: Tensor, target: Tensor) -> Tensor:
        raise AssertionError("called with no labelled pair")

    logits = {"A": torch.randn(4, 3), "B": torch.randn(4, 2)}
    levels = torch.tensor([[0, -1], [1, -1], [2, -1], [0, -1]])
    mask = torch.ones(4, 1, dtype=torch.bool)
    total = Objective({"A": cross_entropy, "B": never})(Output(logits, None), targets_of(levels), mask)
    torch.testing.assert_close(total, cross_entropy(logits["A"], levels[:, 0]).mean())
    nothing = Objective(dict.fromkeys(logits, never))(Output(logits, None), targets_of(torch.full((4, 2), -1)), mask)
    assert float(nothing) == 0


def test_training_without_a_label_of_a_task_is_training_without_the_task() -> None:
    once = replace(RECIPE, epochs=1)
    unlabelled = Small(once, train=without_labels(TRAIN, dict.fromkeys(range(len(TRAIN)), (1,))))
    unlabelled.fit()
    alone = Small(once, criteria={"ER": cross_entropy})
    alone.fit()
    assert same(weights(unlabelled.model), weights(alone.model))


def test_validation_weighs_each_task_by_its_labelled_pairs() -> None:
    part = without_labels(VALIDATION, {0: (0,), 1: (0, 1), 5: (1,), 7: (1,)})
    said, true = Small(validation=part).evaluate(part), part.levels().numpy()
    expected = 0.0
    for index, name in enumerate(NAMES):
        known = true[:, index] >= 0
        expected += -np.log(said.probabilities[name][known][range(known.sum()), true[known, index]]).mean()
    assert said.loss == pytest.approx(expected, rel=1e-5)


class Shares(LinearHead):
    """Its logits are its probabilities."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits


@pytest.mark.parametrize("head", [LinearHead, Shares])
def test_a_loss_that_writes_into_its_logits_puts_no_label_into_the_probabilities(head: type[LinearHead]) -> None:
    def margins(logits: Tensor, target: Tensor) -> Tensor:  # as the code of LDAM's paper has it
        logits[torch.arange(len(target)), target] -= 5.0
        return cross_entropy(logits, target)

    model = make_model(heads={name: head(12, 2) for name in NAMES})
    plain, written = (Small(model=model, criteria=dict.fromkeys(NAMES, loss)).evaluate() for loss in (cross_entropy, margins))
    for name in NAMES:
        assert np.array_equal(written.probabilities[name], plain.probabilities[name])
    assert written.loss > plain.loss + 1


def test_the_span_loss_counts_real_tokens_of_known_evidence_alone() -> None:
    logits = torch.tensor([[[1.0, -2.0, 1e4], [3.0, 0.5, -1e4]], [[torch.inf, 4.0, 0.0], [0.0, 1.0, 2.0]]])
    gold = torch.tensor([[[True, False, False], [True, True, True]], [[False] * 3, [False, True, False]]])
    known, mask = torch.tensor([[True, False], [False, True]]), torch.tensor([[True, True, False], [True, True, True]])
    counted = [(1.0, 1.0), (-2.0, 0.0), (0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]
    expected = F.binary_cross_entropy_with_logits(*(torch.tensor(column) for column in zip(*counted, strict=True)))
    targets = Targets(torch.zeros(2, 2, dtype=torch.int64), gold, known)
    torch.testing.assert_close(span_loss(logits, targets, mask), expected)
    nothing_known = Targets(targets.levels, gold, torch.zeros_like(known))
    assert float(span_loss(logits, nothing_known, mask)) == 0


def test_a_subclass_of_the_kits_loss_is_asked_and_not_taken_for_it() -> None:
    class Half(FocalLoss):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return super().forward(logits, target) / 2

    logits, levels = torch.randn(6, 3), torch.arange(6) % 3
    output, targets = Output({"A": logits, "B": logits}, None), targets_of(levels[:, None].repeat(1, 2))
    mask = torch.ones(6, 1, dtype=torch.bool)
    whole = Objective({"A": FocalLoss(2.0), "B": FocalLoss(2.0)})(output, targets, mask)
    half = Objective({"A": Half(2.0), "B": FocalLoss(2.0)})(output, targets, mask)
    torch.testing.assert_close(half, whole * 0.75)


def test_losses_are_put_into_train_and_eval_mode_with_the_model() -> None:
    class Noisy(nn.Module):
        """Noise in training, none in evaluation: as a loss with dropout, or one that smooths labels at random."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            if self.training:
                self.seen += len(target)
                logits = logits + torch.randn_like(logits)
            return cross_entropy(logits, target)

    losses = {name: Noisy() for name in NAMES}
    small = Small(criteria=losses)
    small.fit()
    seen = [float(loss.seen) for loss in losses.values()]
    assert seen == [3 * len(TRAIN)] * 2  # validation pairs are not learnt from
    assert small.evaluate().loss == small.evaluate().loss


class Smoothed(nn.Module):
    """A third party's, built on the kit's."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits, target) - 0.1 * logits.log_softmax(1).mean(1)


def test_the_way_that_losses_are_computed_is_said_of_those_that_go_it() -> None:
    cpu, classes = torch.device("cpu"), {"ER": 3, "EX": 2}
    kernel = Objective(dict.fromkeys(NAMES, FocalLoss(2.0))).status(cpu, classes)
    assert Objective({"ER": Smoothed(), "EX": cross_entropy}).status(cpu, classes) == kernel
    assert Objective(dict.fromkeys(NAMES, obvious)).status(cpu, classes) == "their own code"
    mixed = Objective({"ER": Smoothed(), "EX": obvious}, fused="on")
    with pytest.raises(KitError, match=r"^fused on: (the loss of EX does not use the kit's|no fused) kernel"):
        mixed.status(cpu, classes)
    mixed.fused = "auto"
    assert mixed.status(cpu, classes) == f"{kernel}; EX by their own code"
    mixed.fused = "off"
    assert mixed.status(cpu, classes) == "closed form in torch: fused kernels are off; EX by their own code"


def obvious(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="none")


@pytest.mark.parametrize("name", ["train", "training", "items"])
def test_a_task_cannot_be_called_what_the_models_parts_are_called(name: str) -> None:
    with pytest.raises(
        KitError, match=rf"^task {name}: the model's parts cannot be called that; expected another name in the schema$"
    ):
        Model(nn.Identity(), {name: nn.Identity()})


def test_one_launch_is_left_alone_where_a_label_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from empathy_kit.core import objective as module

    asked: list[int] = []
    monkeypatch.setattr(module, "one_launch", lambda criteria, logits: asked.append(1))
    objective = Objective(dict.fromkeys(NAMES, FocalLoss(2.0)))
    texts = collate_texts(TRAIN.texts[:4], 1)
    output = make_model().eval()(texts)
    for missing, calls in (({}, 1), ({0: (1,)}, 1)):
        part = without_labels(TRAIN, missing).take(range(4))
        objective(output, collate_targets(part.labels, texts.response.shape[1]), texts.response_mask)
        assert len(asked) == calls


def test_where_every_label_is_known_no_step_waits_for_the_device() -> None:
    """On the meta device there is nothing to look at: whatever would wait for a GPU raises there."""
    logits = {"A": torch.randn(4, 3, device="meta"), "B": torch.randn(4, 2, device="meta")}
    examples = [VALIDATION.labels[at] for at in range(4)]
    targets = collate_targets([replace(each, levels=each.levels[:2]) for each in examples], 5)
    assert targets.complete
    assert not collate_targets([replace(examples[0], levels=(0, -1))], 5).complete
    objective = Objective(dict.fromkeys(logits, lambda logits, target: logits.sum(1)))
    mask = torch.ones(4, 5, dtype=torch.bool, device="meta")
    assert objective(Output(logits, None), targets.to(torch.device("meta")), mask).shape == ()
    with pytest.raises(RuntimeError, match="meta"):
        objective(Output(logits, None), replace(targets, complete=False).to(torch.device("meta")), mask)
