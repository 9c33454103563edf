"""No annotated span reaches a prediction, unless the injector's spec says "always", which makes the run an ORACLE.

Level 0 has no span, so a span at test time is the label.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from empathy_kit import Rationale, Task
from empathy_kit.config import RunConfig, configure
from empathy_kit.contracts import GoldAccess, Injection
from empathy_kit.core.batch import Examples
from empathy_kit.core.evaluation import Evaluation
from empathy_kit.core.rationales import nothing
from empathy_kit.core.state import Epoch, TrainState
from empathy_kit.core.tokens import Labels, TokenPair
from empathy_kit.core.trainer import Recipe, Step, Trainer
from empathy_kit.data.sources import load_corpus
from empathy_kit.plugins import OURS, Provided, Registry, load_registry
from empathy_kit.runs.build import build_model, build_objective
from empathy_kit.runs.choose import Plugins, choose_plugins
from empathy_kit.runs.load import load
from empathy_kit.runs.train import Finished, run

TASKS = [Task(name, ("0", "1", "2"), (5, 3, 2)) for name in ("ER", "EX", "IP")]
CONFIG = RunConfig(options={"trunk.layers": 1})
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


OWN = [entry for entry in load_registry().provided if entry.distribution == OURS]
TRUNKS = [entry.spec.name for entry in OWN if entry.kind == "trunk"]
BUILT_IN = [entry.spec for entry in OWN if isinstance(entry.spec, Rationale)]


def make_examples(n: int, seed: int) -> Examples:
    """Pairs of random words; evidence stands at random tokens of every level above 0."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(n):
        seeker, response = ([0, *rng.integers(5, 60, rng.integers(2, 9)).tolist(), 2] for _ in range(2))
        levels = tuple(int(level) for level in rng.integers(0, 3, 3))
        gold = tuple(tuple(range(1, 1 + int(rng.integers(1, len(response) - 1)))) if level else () for level in levels)
        texts.append(TokenPair(seeker, response))
        labels.append(Labels(levels, gold, (True, True, True)))
    return Examples(tuple(texts), tuple(labels))


def opposite(examples: Examples) -> Examples:
    """Evidence just where there was none, of another level."""
    labels = [
        Labels(
            levels=tuple((level + 1) % 3 for level in each.levels),
            gold=tuple(tuple(place for place in range(len(pair.response)) if place not in gold) for gold in each.gold),
            gold_known=tuple(not known for known in each.gold_known),
        )
        for pair, each in zip(examples.texts, examples.labels, strict=True)
    ]
    return replace(examples, labels=tuple(labels))


class Training:
    """A model with a rationale injector, and a trainer that may show it annotated spans where the injector's spec says."""

    def __init__(self, rationale: str, *, trunk: str = "gru", train: Examples | None = None, weight: float = 1.0) -> None:
        from transformers import RobertaConfig, RobertaModel

        options = {"trunk.hidden": 16, "rationale.weight": weight}
        config = configure(CONFIG, {"rationale": rationale, "trunk": trunk, "options": options})
        self.plugins: Plugins = choose_plugins(config, with_spies())
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
        self.model = build_model(config, self.plugins, TASKS, encoder)
        gold = self.plugins.rationale.gold
        self.trainer = Trainer(train or make_examples(24, seed=0), make_examples(8, seed=2), RECIPE, pad_id=1, gold=gold)
        objective = build_objective(config, self.plugins, TASKS, self.model)
        self.state: TrainState = self.trainer.start(self.model, objective, seed=0)

    def fit(self) -> list[Step | Epoch]:
        return list(self.trainer.fit(self.state))

    def evaluate(self, examples: Examples) -> Evaluation:
        return self.trainer.evaluate(self.state, examples)


def test_the_built_in_injectors_declare_what_they_see() -> None:
    assert {spec.name: spec.gold for spec in BUILT_IN} == {
        "none": "never",
        "gold": "always",
        "train-only": "train",
        "predicted": "never",
        "tag": "never",
    }


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("spec", BUILT_IN, ids=lambda spec: spec.name)
def test_predictions_are_bitwise_the_same_whatever_the_annotation_says_unless_the_run_is_an_oracle(
    spec: Rationale, trunk: str
) -> None:
    training, test = Training(spec.name, trunk=trunk), make_examples(40, seed=1)
    training.fit()
    honest, turned = training.evaluate(test), training.evaluate(opposite(test))
    same = [np.array_equal(honest.probabilities[name], turned.probabilities[name]) for name in honest.probabilities]
    assert training.plugins.oracle == (spec.gold == "always")
    if spec.gold == "always":
        assert same == [False, False, False]  # an oracle shows here, or this test could not fail
    else:
        assert same == [True, True, True]
        spans = zip(honest.spans or [], turned.spans or [], strict=True)
        assert all(np.array_equal(one, other) for one, other in spans)
    assert honest.loss != turned.loss  # the levels did change


@pytest.mark.parametrize(
    ("access", "in_training", "at_test"), [("never", False, False), ("train", True, False), ("always", True, True)]
)
def test_an_injector_is_shown_gold_where_its_spec_says_and_nowhere_else(access: str, in_training: bool, at_test: bool) -> None:
    training = Training(f"spy-{access}")
    assert isinstance(training.fit()[-1], Epoch)  # it validates: that is a test, too
    training.evaluate(make_examples(8, seed=1))
    spy = training.model.trunk.injector
    assert isinstance(spy, Spy)
    assert spy.shown == {"training": {in_training}, "test": {at_test}}
    assert training.plugins.oracle == at_test


@pytest.mark.parametrize(
    ("access", "in_training", "at_test"), [("never", False, False), ("train", True, False), ("always", True, True)]
)
def test_a_run_from_its_data_to_its_record_keeps_to_it_and_a_loaded_model_is_never_shown_gold(
    tiny_roberta: Path, tmp_path: Path, access: GoldAccess, in_training: bool, at_test: bool
) -> None:
    spies: list[Spy] = []

    def build(tasks: object, width: int) -> nn.Module:
        spies.append(Spy())
        return spies[-1]

    spy = Provided("rationale", Rationale("spy", build, gold=access), "empathy-kit-spy", "1")
    registry = Registry((*load_registry().provided, spy))
    settings = {"encoder": str(tiny_roberta), "rationale": "spy", "epochs": 1, "max_tokens": 16, "batch_size": 64, "threads": 1}
    config = configure(RunConfig(), {**settings, "options": {"trunk.hidden": 16, "trunk.layers": 1}})
    *_, finished = run(config, registry, tmp_path / "run")
    assert isinstance(finished, Finished)
    (spied,) = spies
    assert spied.shown["training"] == {in_training}
    assert spied.shown["test"] - {False} == (
        {True} if at_test else set()
    )  # without gold it is asked once, to see whether it fits
    assert finished.record.oracle == at_test
    loaded = load(tmp_path / "run", registry)
    list(loaded.predictor.predict(loaded.tokenization.encode(load_corpus("sample").pairs[:3])))
    assert spies[1].shown == {"training": set(), "test": {False}}


@pytest.mark.parametrize("rationale", ["none", "predicted", "tag"])
def test_in_training_gold_that_is_never_shown_acts_through_the_span_loss_alone(rationale: str) -> None:
    train = make_examples(24, seed=0)
    blank = replace(train, labels=tuple(replace(each, gold=((), (), ())) for each in train.labels))
    weights = []
    for data, weight in ((train, 0.0), (blank, 0.0), (train, 1.0), (blank, 1.0)):
        training = Training(rationale, train=data, weight=weight)
        training.fit()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], weights[3]) == (rationale == "none")
