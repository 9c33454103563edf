"""What is reported of a model does not depend on what its parts do to the logits that they are shown."""

from __future__ import annotations

import numpy as np
import torch
from small import NAMES, Small, make_examples, make_model
from torch import Tensor

from empathy_kit.core.evaluation import Evaluation
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.objective import Criterion

SEVERAL_BATCHES = make_examples(150, seed=1)


class Clamps(LinearHead):
    def probabilities(self, logits: Tensor) -> Tensor:
        return super().probabilities(logits.clamp_(-0.01, 0.01))


class ShowsItsLogits(LinearHead):
    """Its probabilities are the logits themselves, and no copy."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits


class FillsOneTensor(LinearHead):
    """Its probabilities are always in the same place."""

    def probabilities(self, logits: Tensor) -> Tensor:
        self.shares = getattr(self, "shares", torch.empty(64, logits.shape[1]))
        return self.shares[: len(logits)].copy_(super().probabilities(logits))


def reported(head: type[LinearHead], criterion: Criterion = cross_entropy) -> Evaluation:
    model = make_model(heads={name: head(12, 2) for name in NAMES})
    with torch.no_grad():
        for each in model.heads.values():
            each.linear.weight.copy_(torch.linspace(-1, 1, 24).view(2, 12))
            each.linear.bias.copy_(torch.tensor([0.5, -0.5]))
    return Small(model=model, criteria=dict.fromkeys(NAMES, criterion)).evaluate(SEVERAL_BATCHES)


def test_a_head_that_writes_into_its_logits_does_not_change_the_loss() -> None:
    assert reported(Clamps).loss == reported(LinearHead).loss


def test_a_head_that_fills_one_tensor_again_has_the_probabilities_of_every_batch() -> None:
    honest, shown = reported(LinearHead), reported(FillsOneTensor)
    assert all(np.array_equal(honest.probabilities[name], shown.probabilities[name]) for name in NAMES)


def test_a_loss_that_writes_into_its_logits_does_not_change_the_probabilities() -> None:
    def writes(logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits.scatter_(1, target[:, None], 9.0), target)

    honest, shown = reported(ShowsItsLogits), reported(ShowsItsLogits, writes)
    assert honest.loss != shown.loss
    assert all(np.array_equal(honest.probabilities[name], shown.probabilities[name]) for name in NAMES)
