"""A tiny world to train in: two tasks that follow from single words, and a model that learns them in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from empathy_kit.contracts import GoldAccess
from empathy_kit.core.batch import Examples
from empathy_kit.core.evaluation import Evaluation
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.model import Model
from empathy_kit.core.objective import Criterion, Objective
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.rationales import NoRationale
from empathy_kit.core.state import Epoch, TrainState
from empathy_kit.core.tokens import Labels, TokenPair
from empathy_kit.core.trainer import Recipe, Step, Trainer
from empathy_kit.core.trunk import GRUTrunk

NAMES = ("ER", "EX")
RECIPE = Recipe(
    epochs=3,
    batch_size=8,
    encoder_lr=1e-3,
    lr=1e-2,
    warmup=0.0,
    schedule="constant",
    clip=None,
    average=None,
    select="loss",
    patience=9,
)


def make_examples(n: int, seed: int) -> Examples:
    """Pairs whose ER is 1 where the response holds the word 9, and whose EX is 1 where the seeker post does."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(n):
        seeker, response = ([0, *rng.integers(8, 12, rng.integers(1, 6)).tolist(), 2] for _ in range(2))
        gold = (tuple(place for place, word in enumerate(response) if word == 9), ())
        texts.append(TokenPair(seeker, response))
        labels.append(Labels(tuple(int(9 in post) for post in (response, seeker)), gold, (True, True)))
    return Examples(tuple(texts), tuple(labels))


TRAIN, VALIDATION = make_examples(44, seed=0), make_examples(20, seed=1)


def without_labels(examples: Examples, missing: Mapping[int, tuple[int, ...]]) -> Examples:
    """The same examples, without the labels of some tasks (by position) at some pairs."""
    labels = list(examples.labels)
    for at, tasks in missing.items():
        levels = tuple(-1 if task in tasks else level for task, level in enumerate(labels[at].levels))
        known = tuple(task not in tasks and was for task, was in enumerate(labels[at].gold_known))
        labels[at] = replace(labels[at], levels=levels, gold_known=known)
    return replace(examples, labels=tuple(labels))


def make_model(
    seed: int = 0, injector: nn.Module | None = None, heads: Mapping[str, nn.Module] | None = None, frozen: int = 0
) -> Model:
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1 + frozen,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        type_vocab_size=1,
        pad_token_id=1,
    )
    encoder = PostEncoder(RobertaModel(config, add_pooling_layer=False), freeze_layers=frozen)
    trunk = GRUTrunk(encoder, injector or NoRationale(), hidden=12, layers=2, dropout=0.3)
    return Model(trunk, heads or {name: LinearHead(12, 2) for name in NAMES})


class Small:
    """A model with its objective, its trainer and its state."""

    def __init__(
        self,
        recipe: Recipe = RECIPE,
        *,
        seed: int = 0,
        model: Model | None = None,
        criteria: Mapping[str, Criterion] | None = None,
        gold: GoldAccess = "never",
        train: Examples = TRAIN,
        validation: Examples = VALIDATION,
        rationale_weight: float = 1.0,
        **settings: Any,
    ) -> None:
        self.model = model or make_model(seed)
        self.objective = Objective(criteria or dict.fromkeys(NAMES, cross_entropy), rationale_weight=rationale_weight)
        self.trainer = Trainer(train, validation, recipe, pad_id=1, gold=gold, **settings)
        self.state: TrainState = self.trainer.start(self.model, self.objective, seed=seed)

    def fit(self) -> list[Step | Epoch]:
        """Train to the end."""
        return list(self.trainer.fit(self.state))

    def epochs(self) -> list[Epoch]:
        """Train to the end, for the epochs alone."""
        return [event for event in self.fit() if isinstance(event, Epoch)]

    def evaluate(self, examples: Examples = VALIDATION) -> Evaluation:
        """What the model says now."""
        return self.trainer.evaluate(self.state, examples)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two states are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_clock(events: list[Step | Epoch]) -> list[Step | Epoch]:
    """Events as they would be on any machine."""
    return [
        replace(event, seconds=0.0, pairs_per_second=0.0) if isinstance(event, Epoch) else replace(event, seconds=0.0)
        for event in events
    ]
