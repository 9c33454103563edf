"""What is reported of a model does not depend on what its parts do to the logits that they are shown."""

from __future__ import annotations

import numpy as np
import torch
from small import NAMES, Small, make_model
from torch import Tensor

from empathy_kit.core.evaluation import Evaluation
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.objective import Criterion


class Clamps(LinearHead):
    def probabilities(self, logits: Tensor) -> Tensor:
        return super().probabilities(logits.clamp_(-0.01, 0.01))


class ShowsItsLogits(LinearHead):
    """Its probabilities are the logits themselves, and no copy."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits


def reported(head: type[LinearHead], criterion: Criterion = cross_entropy) -> Evaluation:
    model = make_model(heads={name: head(12, 2) for name in NAMES})
    with torch.no_grad():
        for each in model.heads.values():
            each.linear.weight.copy_(torch.linspace(-1, 1, 24).view(2, 12))
            each.linear.bias.copy_(torch.tensor([0.5, -0.5]))
    return Small(model=model, criteria=dict.fromkeys(NAMES, criterion)).evaluate()


def test_a_head_that_writes_into_its_logits_does_not_change_the_loss() -> None:
    assert reported(Clamps).loss == reported(LinearHead).loss


def test_a_loss_that_writes_into_its_logits_does_not_change_the_probabilities() -> None:
    def writes(logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits.scatter_(1, target[:, None], 9.0), target)

    honest, shown = reported(ShowsItsLogits), reported(ShowsItsLogits, writes)
    assert honest.loss != shown.loss
    assert all(np.array_equal(honest.probabilities[name], shown.probabilities[name]) for name in NAMES)
