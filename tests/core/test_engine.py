"""Training: the same seed gives the same bits, the best epoch's weights come back, and what goes wrong says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from empathy_kit.contracts import Encoded, GoldAccess
from empathy_kit.core.batch import Targets, TokenPair
from empathy_kit.core.engine import Criterion, Engine, Epoch, Objective, Recipe, Step, span_loss
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.losses.focal import FocalLoss
from empathy_kit.core.metrics import macro_f1
from empathy_kit.core.model import Model, Output
from empathy_kit.core.rationales import NoRationale, TaggedRationale
from empathy_kit.core.trunk import Trunk
from empathy_kit.errors import KitError

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
    rationale_weight=1.0,
)


def make_pairs(n: int, seed: int) -> list[TokenPair]:
    """Pairs whose ER is 1 where the response holds the word 9, and whose EX is 1 where the seeker post does."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        seeker, response = ([0, *rng.integers(8, 12, rng.integers(1, 6)).tolist(), 2] for _ in range(2))
        levels = tuple(int(9 in post) for post in (response, seeker))
        gold = (tuple(place for place, word in enumerate(response) if word == 9), ())
        pairs.append(TokenPair(seeker, response, levels, gold, (True, True)))
    return pairs


TRAIN, VALIDATION = make_pairs(44, seed=0), make_pairs(20, seed=1)


def make_model(seed: int = 0, injector: nn.Module | None = None, heads: Mapping[str, nn.Module] | None = None) -> Model:
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        type_vocab_size=1,
        pad_token_id=1,
    )
    encoder = RobertaModel(config, add_pooling_layer=False)
    trunk = Trunk(encoder, injector or NoRationale(), hidden=12, layers=2, dropout=0.3)
    return Model(trunk, heads or {name: LinearHead(12, 2) for name in NAMES})


def make_engine(
    model: Model | None = None, criteria: Mapping[str, Criterion] | None = None, gold: GoldAccess = "never", seed: int = 0
) -> Engine:
    return Engine(model or make_model(seed), criteria or dict.fromkeys(NAMES, cross_entropy), pad_id=1, gold=gold, cpu=True)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_clock(events: list[Step | Epoch]) -> list[Step | Epoch]:
    return [
        replace(event, seconds=0.0, pairs_per_second=0.0) if isinstance(event, Epoch) else replace(event, seconds=0.0)
        for event in events
    ]


@contextmanager
def watch_steps(look: Callable[[torch.optim.Optimizer], None]) -> Iterator[None]:
    hook = register_optimizer_step_pre_hook(lambda optimizer, _args, _kwargs: look(optimizer))
    try:
        yield
    finally:
        hook.remove()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    runs = []
    for seed in (0, 0, 1):
        engine = make_engine(seed=seed)
        events = list(engine.fit(TRAIN, VALIDATION, RECIPE, seed=seed))
        runs.append((state(engine.model), without_clock(events), engine.predict(VALIDATION)))
    first, again, other = runs
    assert same(first[0], again[0])
    assert first[1] == again[1]
    assert all(np.array_equal(first[2].probabilities[name], again[2].probabilities[name]) for name in NAMES)
    assert not same(first[0], other[0])
    assert first[1] != other[1]


def test_fit_yields_every_step_and_after_each_epoch_its_validation() -> None:
    events = list(make_engine().fit(TRAIN, VALIDATION, RECIPE, seed=0))
    steps = -(-len(TRAIN) // RECIPE.batch_size)
    expected = [part for epoch in (1, 2, 3) for part in [*((epoch, step) for step in range(1, steps + 1)), (epoch, None)]]
    assert [(event.epoch, event.step if isinstance(event, Step) else None) for event in events] == expected
    for epoch in (1, 2, 3):
        own = [event for event in events if isinstance(event, Step) and event.epoch == epoch]
        (summary,) = [event for event in events if isinstance(event, Epoch) and event.epoch == epoch]
        assert {event.steps for event in own} == {steps}
        assert own[-1].pairs == epoch * len(TRAIN)
        sizes = np.diff([(epoch - 1) * len(TRAIN), *(event.pairs for event in own)])
        assert summary.train_loss == pytest.approx(np.average([event.loss for event in own], weights=sizes))
        assert summary.pairs_per_second > 0
        assert summary.mean_macro_f1 == pytest.approx(np.mean(list(summary.validation_macro_f1.values())))


def test_it_learns_what_can_be_learnt() -> None:
    engine = make_engine()
    recipe = replace(RECIPE, epochs=8, encoder_lr=5e-3, warmup=0.1, schedule="linear", clip=1.0)
    list(engine.fit(make_pairs(96, seed=5), VALIDATION, recipe, seed=0))
    predictions = engine.predict(VALIDATION)
    for index, name in enumerate(NAMES):
        assert np.mean(predictions.levels()[name] == [pair.levels[index] for pair in VALIDATION]) >= 0.9
        np.testing.assert_allclose(predictions.probabilities[name].sum(1), 1, atol=1e-6)


def test_the_kept_weights_are_the_moving_average_of_every_steps_weights() -> None:
    engine = make_engine()
    mean: dict[str, Tensor] = state(engine.model)
    for event in engine.fit(TRAIN, VALIDATION, replace(RECIPE, epochs=2, average=0.5), seed=0):
        if isinstance(event, Step):
            step = (event.epoch - 1) * event.steps + event.step
            decay = min(0.5, (1 + step) / (10 + step))
            mean = {name: decay * mean[name] + (1 - decay) * now for name, now in state(engine.model).items()}
        elif event.best:
            kept = mean
    for name, weight in state(engine.model).items():
        torch.testing.assert_close(weight, kept[name], rtol=1e-5, atol=1e-6)


def test_averaging_changes_what_is_kept_and_not_the_way_of_training() -> None:
    losses, kept = [], []
    for decay in (None, 0.0, 0.9):
        engine = make_engine()  # made here: building it seeds the dropout too
        events = engine.fit(TRAIN, VALIDATION, replace(RECIPE, select="macro-f1", average=decay), seed=0)
        losses.append([event.loss for event in events if isinstance(event, Step)])
        kept.append(state(engine.model))
    assert losses[0] == losses[1] == losses[2]
    assert same(kept[0], kept[1])  # with decay 0 the average is the last weights
    assert not same(kept[0], kept[2])


class Turning(nn.Module):
    """Cross-entropy with a learnt temperature, which after some training steps teaches the opposite."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.left = after

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.left -= 1
            target = 1 - target if self.left < 0 else target
        return cross_entropy(logits * self.log_scale.exp(), target)


@pytest.mark.parametrize("select", ["loss", "macro-f1"])
def test_the_best_epochs_weights_are_restored_those_of_a_learnt_loss_too(select: Any) -> None:
    losses = {name: Turning(after=3 * 6) for name in NAMES}
    engine = make_engine(criteria=losses)
    everything = nn.ModuleList([engine.model, *losses.values()])
    epochs: list[Epoch] = []
    states: list[dict[str, Tensor]] = []
    for event in engine.fit(TRAIN, VALIDATION, replace(RECIPE, select=select, epochs=6, clip=1.0), seed=0):
        if isinstance(event, Epoch):
            epochs.append(event)
            states.append(state(everything))
    merit = [-epoch.validation_loss if select == "loss" else epoch.mean_macro_f1 for epoch in epochs]
    best = int(np.argmax(merit))
    assert best < len(epochs) - 1  # not the last, or nothing is tested here
    assert [epoch.best for epoch in epochs] == [value > max([*merit[:at], -np.inf]) for at, value in enumerate(merit)]
    assert all(loss.log_scale.item() != 0 for loss in losses.values())  # it was trained
    assert same(state(everything), states[best])
    assert not same(state(everything), states[-1])
    predictions = engine.predict(VALIDATION)
    assert predictions.loss == epochs[best].validation_loss
    for index, name in enumerate(NAMES):
        true = np.array([pair.levels[index] for pair in VALIDATION])
        assert macro_f1(true, predictions.levels()[name], 2) == epochs[best].validation_macro_f1[name]


@pytest.mark.parametrize("patience", [1, 3])
def test_training_ends_when_no_epoch_is_better_for_as_long_as_the_patience(patience: int) -> None:
    still = replace(RECIPE, epochs=9, patience=patience, encoder_lr=0.0, lr=0.0)  # nothing moves: no epoch beats the first
    epochs = [event for event in make_engine().fit(TRAIN, VALIDATION, still, seed=0) if isinstance(event, Epoch)]
    assert len(epochs) == 1 + patience
    assert [epoch.best for epoch in epochs] == [True] + [False] * patience


@pytest.mark.parametrize(
    ("schedule", "warmup", "factors"),
    [
        ("constant", 0.0, [1.0] * 8),
        ("constant", 0.25, [1 / 3, 2 / 3] + [1.0] * 6),
        ("linear", 0.0, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("linear", 0.25, [1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
    ],
)
def test_both_learning_rates_rise_and_fall_together_a_step_at_a_time(schedule: Any, warmup: float, factors: list[float]) -> None:
    recipe = replace(RECIPE, epochs=2, batch_size=11, schedule=schedule, warmup=warmup)
    engine = make_engine()
    rates: list[tuple[float, ...]] = []
    encoder = {id(parameter) for parameter in engine.model.trunk.encoder.parameters()}

    def look(optimizer: torch.optim.Optimizer) -> None:
        first, second = optimizer.param_groups
        assert {id(parameter) for parameter in first["params"]} == encoder
        assert len({id(p) for p in (*first["params"], *second["params"])}) == len(list(engine.model.parameters()))
        rates.append((first["lr"], second["lr"]))

    with watch_steps(look):
        list(engine.fit(TRAIN, VALIDATION, recipe, seed=0))
    np.testing.assert_allclose(rates, [(1e-3 * factor, 1e-2 * factor) for factor in factors])


def test_the_gradient_is_clipped_to_its_largest_norm_and_only_where_it_is_asked() -> None:
    norms: dict[float | None, list[float]] = {None: [], 0.05: []}
    for clip, seen in norms.items():

        def look(optimizer: torch.optim.Optimizer, seen: list[float] = seen) -> None:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            seen.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))

        with watch_steps(look):
            list(make_engine().fit(TRAIN, VALIDATION, replace(RECIPE, epochs=1, clip=clip), seed=0))
    assert min(norms[None]) > 0.1
    assert max(norms[0.05]) <= 0.05 * (1 + 1e-5)


def test_the_objective_is_the_sum_over_mechanisms_of_their_mean_losses() -> None:
    engine = make_engine()
    predictions = engine.predict(VALIDATION)
    expected = sum(
        -np.log(predictions.probabilities[name][range(len(VALIDATION)), [pair.levels[index] for pair in VALIDATION]]).mean()
        for index, name in enumerate(NAMES)
    )
    assert predictions.loss == pytest.approx(expected, rel=1e-5)


def test_a_subclass_of_the_kits_loss_is_asked_and_not_taken_for_it() -> None:
    class Half(FocalLoss):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return super().forward(logits, target) / 2

    logits, levels = torch.randn(6, 3), torch.arange(6) % 3
    output = Output({"A": logits, "B": logits}, None)
    targets = Targets(levels[:, None].repeat(1, 2), torch.zeros(6, 2, 1, dtype=torch.bool), torch.ones(6, 2, dtype=torch.bool))
    mask = torch.ones(6, 1, dtype=torch.bool)
    whole = Objective({"A": FocalLoss(2.0), "B": FocalLoss(2.0)}, 1.0)(output, targets, mask)
    half = Objective({"A": Half(2.0), "B": FocalLoss(2.0)}, 1.0)(output, targets, mask)
    torch.testing.assert_close(half, whole * 0.75)


@pytest.mark.parametrize("fused", ["auto", "off"])
def test_a_model_that_has_predicted_can_be_trained(fused: Any) -> None:
    criteria = {name: FocalLoss(1.5 + index / 8) for index, name in enumerate(NAMES)}  # which were never asked for before
    engine = Engine(make_model(), criteria, pad_id=1, gold="never", cpu=True, fused=fused)
    engine.predict(VALIDATION)
    assert any(isinstance(event, Epoch) for event in engine.fit(TRAIN, VALIDATION, replace(RECIPE, epochs=1), seed=0))


def test_predictions_stand_in_the_order_of_the_pairs_whatever_it_is() -> None:
    engine = make_engine()
    forward, backward = engine.predict(VALIDATION, batch_size=3), engine.predict(VALIDATION[::-1], batch_size=64)
    for name in NAMES:
        np.testing.assert_allclose(forward.probabilities[name], backward.probabilities[name][::-1], atol=1e-6)
        assert np.ptp(forward.probabilities[name][:, 0]) > 1e-4
    assert forward.spans is None


def test_prediction_leaves_the_random_state_alone() -> None:
    engine = make_engine()
    before = torch.random.get_rng_state()
    engine.predict(VALIDATION)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_spans_are_predicted_for_the_response_tokens_alone() -> None:
    engine = make_engine(make_model(injector=TaggedRationale(2, 16)))
    recipe = replace(RECIPE, epochs=4, encoder_lr=1e-2)
    list(engine.fit(make_pairs(80, seed=7), VALIDATION, recipe, seed=0))
    spans = engine.predict(VALIDATION).spans
    assert spans is not None
    assert [[len(mechanism) for mechanism in row] for row in spans] == [[len(pair.response)] * 2 for pair in VALIDATION]
    gold = [[place in pair.gold[0] for place in range(len(pair.response))] for pair in VALIDATION]
    right = [a == b for row, true in zip(spans, gold, strict=True) for a, b in zip(row[0], true, strict=True)]
    assert np.mean(right) > 0.9  # gold supervised the span head, though the injector never saw it


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


def always(value: Callable[[Tensor], Tensor]) -> dict[str, Criterion]:
    return dict.fromkeys(NAMES, lambda logits, target: value(logits))


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda z: z.sum(-1) * torch.nan, "the loss became nan in epoch 1, step 1; try a smaller --lr or another loss"),
        (lambda z: z.sum(-1) + torch.inf, "the loss became inf in epoch 1, step 1; try a smaller --lr or another loss"),
        (lambda z: z.mean(), "loss of ER: shape () found, expected one value a pair (8,)"),
        (lambda z: z, "loss of ER: shape (8, 2) found, expected one value a pair (8,)"),
        (lambda z: z[1:].sum(-1), "loss of ER: shape (7,) found, expected one value a pair (8,)"),
    ],
)
def test_a_loss_that_is_not_one_finite_value_a_pair_is_refused(criterion: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(KitError, match=f"^{re.escape(message)}$"):
        list(make_engine(criteria=always(criterion)).fit(TRAIN, VALIDATION, RECIPE, seed=0))


def test_a_loss_that_is_not_finite_in_validation_alone_is_refused_too() -> None:
    def breaks(logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits, target) * (1.0 if torch.is_grad_enabled() else torch.nan)

    with pytest.raises(KitError) as error:
        list(make_engine(criteria=dict.fromkeys(NAMES, breaks)).fit(TRAIN, VALIDATION, RECIPE, seed=0))
    assert str(error.value) == "the validation loss became nan in epoch 1; try a smaller --lr or another loss"


class OwnCriterion(LinearHead):
    """A head with a criterion of its own: the probability that is missing."""

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return 1 - logits.softmax(-1).gather(-1, target[:, None])[:, 0]


class LearntCriterion(LinearHead):
    """A head whose criterion is a module with a parameter."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.criterion = Turning(after=10_000)


@pytest.mark.parametrize("kind", [OwnCriterion, LearntCriterion])
def test_a_heads_own_criterion_takes_the_place_of_the_runs_loss(kind: type[LinearHead]) -> None:
    from empathy_kit import Head, Task
    from empathy_kit.config import RunConfig
    from empathy_kit.plugins import Provided, Registry, load_registry
    from empathy_kit.recipes import build_criteria, build_model, choose_plugins

    own = Provided("head", Head("own", lambda task, width: kind(width, task.num_classes)), "empathy-kit-own", "1")
    registry = Registry((*load_registry().provided, own))
    tasks = [Task(name, ("0", "1"), (3, 2)) for name in NAMES]
    config = RunConfig(head="own", hidden=12, layers=1)
    plugins = choose_plugins(config, registry)
    plugins = replace(
        plugins, options={**plugins.options, "head": {name: {} for name in NAMES}, "loss": {name: {} for name in NAMES}}
    )
    model = build_model(config, plugins, tasks, make_model().trunk.encoder)
    criteria = build_criteria(plugins, tasks, model)
    logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    assert all(torch.equal(criteria[name](logits, target), model.heads[name].criterion(logits, target)) for name in NAMES)
    engine = make_engine(model, criteria)
    trained: list[list[int]] = []
    with watch_steps(lambda optimizer: trained.append([id(p) for group in optimizer.param_groups for p in group["params"]])):
        list(engine.fit(TRAIN, VALIDATION, replace(RECIPE, epochs=1, clip=1.0), seed=0))
    assert sorted(trained[0]) == sorted(id(parameter) for parameter in model.parameters())  # each once
    if kind is LearntCriterion:
        assert all(model.heads[name].criterion.log_scale.item() != 0 for name in NAMES)


def test_an_encoded_batch_reaches_every_head() -> None:
    class Constant(LinearHead):
        def forward(self, encoded: Encoded) -> Tensor:
            return super().forward(encoded) * 0 + torch.tensor([0.0, 5.0])

    model = make_model(heads={"ER": LinearHead(12, 2), "EX": Constant(12, 2)})
    predictions = make_engine(model).predict(VALIDATION)
    assert set(predictions.levels()["EX"]) == {1}
    assert predictions.probabilities["ER"].shape == predictions.probabilities["EX"].shape == (len(VALIDATION), 2)
