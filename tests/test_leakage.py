"""No annotated span reaches a prediction, unless the injector's spec says "always", which makes the run an ORACLE.

Level 0 has no span, so a span at test time is the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from empathy_kit import Rationale, Task
from empathy_kit.config import RunConfig, configure
from empathy_kit.contracts import GoldAccess, Injection
from empathy_kit.core.batch import TokenPair
from empathy_kit.core.engine import Engine, Epoch, Recipe
from empathy_kit.core.rationales import nothing
from empathy_kit.plugins import Provided, Registry, load_registry
from empathy_kit.recipes import Plugins, build_criteria, build_model, choose_plugins

TASKS = [Task(name, ("0", "1", "2"), (5, 3, 2)) for name in ("ER", "EX", "IP")]
CONFIG = RunConfig(hidden=16, layers=1)
RECIPE = Recipe(
    epochs=1,
    batch_size=8,
    encoder_lr=1e-3,
    lr=1e-2,
    warmup=0.0,
    schedule="constant",
    clip=None,
    average=None,
    select="loss",
    patience=1,
    rationale_weight=1.0,
)


class Spy(nn.Module):
    """Injects nothing, and notes when it was shown annotated spans."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, set[bool]] = {"training": set(), "test": set()}

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        self.shown["training" if self.training else "test"].add(gold is not None)
        return nothing(response)


def with_spies() -> Registry:
    """The kit's plugins, and those of an author whose injectors ask for each kind of access."""
    accesses: tuple[GoldAccess, ...] = ("never", "train", "always")
    spies = [
        Provided("rationale", Rationale(f"spy-{access}", lambda tasks, width: Spy(), gold=access), "empathy-kit-spy", "1")
        for access in accesses
    ]
    return Registry((*load_registry().provided, *spies))


BUILT_IN = [entry.spec for entry in load_registry().of("rationale") if isinstance(entry.spec, Rationale)]


def make_pairs(n: int, seed: int) -> list[TokenPair]:
    """Pairs of random words; evidence stands at random tokens of every level above 0."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        seeker, response = ([0, *rng.integers(5, 60, rng.integers(2, 9)).tolist(), 2] for _ in range(2))
        levels = tuple(int(level) for level in rng.integers(0, 3, 3))
        gold = tuple(tuple(range(1, 1 + int(rng.integers(1, len(response) - 1)))) if level else () for level in levels)
        pairs.append(TokenPair(seeker, response, levels, gold, (True, True, True)))
    return pairs


def opposite(pairs: Sequence[TokenPair]) -> list[TokenPair]:
    """Evidence just where there was none, of another level."""
    return [
        replace(
            pair,
            levels=tuple((level + 1) % 3 for level in pair.levels),
            gold=tuple(tuple(place for place in range(len(pair.response)) if place not in gold) for gold in pair.gold),
            gold_known=tuple(not known for known in pair.gold_known),
        )
        for pair in pairs
    ]


def make_engine(rationale: str) -> tuple[Engine, Plugins]:
    from transformers import RobertaConfig, RobertaModel

    plugins = choose_plugins(configure(CONFIG, {"rationale": rationale}), with_spies())
    torch.manual_seed(0)
    encoder = RobertaModel(
        RobertaConfig(
            vocab_size=60,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=20,
            type_vocab_size=1,
            pad_token_id=1,
        ),
        add_pooling_layer=False,
    )
    model = build_model(CONFIG, plugins, TASKS, encoder)
    spec = plugins.rationale.spec
    assert isinstance(spec, Rationale)
    return Engine(model, build_criteria(plugins, TASKS, model), pad_id=1, gold=spec.gold, cpu=True), plugins


def test_the_built_in_injectors_declare_what_they_see() -> None:
    assert {spec.name: spec.gold for spec in BUILT_IN} == {
        "none": "never",
        "gold": "always",
        "train-only": "train",
        "predicted": "never",
        "tag": "never",
    }


@pytest.mark.parametrize("spec", BUILT_IN, ids=lambda spec: spec.name)
def test_predictions_are_bitwise_the_same_whatever_the_annotation_says_unless_the_run_is_an_oracle(spec: Rationale) -> None:
    engine, plugins = make_engine(spec.name)
    train, test = make_pairs(24, seed=0), make_pairs(40, seed=1)
    list(engine.fit(train, make_pairs(8, seed=2), RECIPE, seed=0))
    honest, turned = engine.predict(test), engine.predict(opposite(test))
    same = [np.array_equal(honest.probabilities[name], turned.probabilities[name]) for name in honest.probabilities]
    assert plugins.oracle == (spec.gold == "always")
    if spec.gold == "always":
        assert same == [False, False, False]  # an oracle shows here, or this test could not fail
    else:
        assert same == [True, True, True]
        assert honest.spans == turned.spans
    assert honest.loss != turned.loss  # the levels did change


@pytest.mark.parametrize(
    ("access", "in_training", "at_test"), [("never", False, False), ("train", True, False), ("always", True, True)]
)
def test_an_injector_is_shown_gold_where_its_spec_says_and_nowhere_else(access: str, in_training: bool, at_test: bool) -> None:
    engine, plugins = make_engine(f"spy-{access}")
    events = list(engine.fit(make_pairs(24, seed=0), make_pairs(8, seed=2), RECIPE, seed=0))  # validates: that is a test, too
    engine.predict(make_pairs(8, seed=1))
    assert isinstance(events[-1], Epoch)
    spy = engine.model.trunk.injector
    assert isinstance(spy, Spy)
    assert spy.shown == {"training": {in_training}, "test": {at_test}}
    assert plugins.oracle == at_test


@pytest.mark.parametrize("rationale", ["none", "predicted", "tag"])
def test_in_training_gold_that_is_never_shown_acts_through_the_span_loss_alone(rationale: str) -> None:
    train, validation = make_pairs(24, seed=0), make_pairs(8, seed=2)
    blank = [replace(pair, gold=((), (), ())) for pair in train]
    weights = []
    for data, weight in ((train, 0.0), (blank, 0.0), (train, 1.0), (blank, 1.0)):
        engine, _ = make_engine(rationale)
        list(engine.fit(data, validation, replace(RECIPE, rationale_weight=weight), seed=0))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in engine.model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], weights[3]) == (rationale == "none")
