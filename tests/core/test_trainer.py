"""Training: the same seed gives the same bits, the best epoch's weights come back, and what goes wrong says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import (
    NAMES,
    RECIPE,
    TRAIN,
    VALIDATION,
    Small,
    make_examples,
    make_model,
    same,
    weights,
    without_clock,
    without_labels,
)
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from empathy_kit.contracts import Encoded
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.losses.focal import FocalLoss
from empathy_kit.core.metrics import macro_f1
from empathy_kit.core.objective import Criterion
from empathy_kit.core.rationales import NoRationale, PredictedRationale
from empathy_kit.core.state import Epoch
from empathy_kit.core.trainer import Step
from empathy_kit.errors import KitError


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
        small = Small(seed=seed)
        runs.append((without_clock(small.fit()), weights(small.model), small.evaluate()))
    first, again, other = runs
    assert first[0] == again[0]
    assert same(first[1], again[1])
    assert all(np.array_equal(first[2].probabilities[name], again[2].probabilities[name]) for name in NAMES)
    assert first[0] != other[0]
    assert not same(first[1], other[1])


def test_fit_yields_every_step_and_after_each_epoch_its_validation() -> None:
    events = Small().fit()
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
    recipe = replace(RECIPE, epochs=8, encoder_lr=5e-3, warmup=0.1, schedule="linear", clip=1.0)
    small = Small(recipe, train=make_examples(96, seed=5))
    small.fit()
    said, true = small.evaluate(), VALIDATION.levels().numpy()
    for index, name in enumerate(NAMES):
        assert np.mean(said.levels()[name] == true[:, index]) >= 0.9
        np.testing.assert_allclose(said.probabilities[name].sum(1), 1, atol=1e-6)


def test_the_kept_weights_are_the_moving_average_of_every_steps_weights() -> None:
    small = Small(replace(RECIPE, epochs=2, average=0.5))
    mean = weights(small.model)
    for event in small.trainer.fit(small.state):
        if isinstance(event, Step):
            step = (event.epoch - 1) * event.steps + event.step
            decay = min(0.5, (1 + step) / (10 + step))
            mean = {name: decay * mean[name] + (1 - decay) * now for name, now in weights(small.model).items()}
        elif event.best:
            kept = mean
    for name, weight in weights(small.model).items():
        torch.testing.assert_close(weight, kept[name], rtol=1e-5, atol=1e-6)


def test_averaging_changes_what_is_kept_and_not_the_way_of_training() -> None:
    losses, kept = [], []
    for decay in (None, 0.0, 0.9):
        small = Small(replace(RECIPE, select="macro-f1", average=decay))
        losses.append([event.loss for event in small.fit() if isinstance(event, Step)])
        kept.append(weights(small.model))
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
    small = Small(replace(RECIPE, select=select, epochs=6, clip=1.0), criteria=losses)
    everything = nn.ModuleList([small.model, *losses.values()])
    epochs: list[Epoch] = []
    states: list[dict[str, Tensor]] = []
    for event in small.trainer.fit(small.state):
        if isinstance(event, Epoch):
            epochs.append(event)
            states.append(weights(everything))
    merit = [-epoch.validation_loss if select == "loss" else epoch.mean_macro_f1 for epoch in epochs]
    best = int(np.argmax(merit))
    assert best < len(epochs) - 1  # not the last, or nothing is tested here
    assert [epoch.best for epoch in epochs] == [value > max([*merit[:at], -np.inf]) for at, value in enumerate(merit)]
    assert all(loss.log_scale.item() != 0 for loss in losses.values())  # it was trained
    assert same(weights(everything), states[best])
    assert not same(weights(everything), states[-1])
    said, true = small.evaluate(), VALIDATION.levels().numpy()
    assert said.loss == epochs[best].validation_loss
    for index, name in enumerate(NAMES):
        assert macro_f1(true[:, index], said.levels()[name], 2) == epochs[best].validation_macro_f1[name]


@pytest.mark.parametrize("patience", [1, 3])
def test_training_ends_when_no_epoch_is_better_for_as_long_as_the_patience(patience: int) -> None:
    still = replace(RECIPE, epochs=9, patience=patience, encoder_lr=0.0, lr=0.0)  # nothing moves: no epoch beats the first
    assert [epoch.best for epoch in Small(still).epochs()] == [True] + [False] * patience


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
    small = Small(replace(RECIPE, epochs=2, batch_size=11, schedule=schedule, warmup=warmup))
    rates: list[tuple[float, ...]] = []
    encoder = {id(parameter) for parameter in small.model.trunk.encoder.parameters()}  # type: ignore[union-attr]

    def look(optimizer: torch.optim.Optimizer) -> None:
        first, second = optimizer.param_groups
        assert {id(parameter) for parameter in first["params"]} == encoder
        assert len({id(p) for p in (*first["params"], *second["params"])}) == len(list(small.model.parameters()))
        rates.append((first["lr"], second["lr"]))

    with watch_steps(look):
        small.fit()
    np.testing.assert_allclose(rates, [(1e-3 * factor, 1e-2 * factor) for factor in factors])


def test_the_gradient_is_clipped_to_its_largest_norm_and_only_where_it_is_asked() -> None:
    norms: dict[float | None, list[float]] = {None: [], 0.05: []}
    for clip, seen in norms.items():

        def look(optimizer: torch.optim.Optimizer, seen: list[float] = seen) -> None:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            seen.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))

        with watch_steps(look):
            Small(replace(RECIPE, epochs=1, clip=clip)).fit()
    assert min(norms[None]) > 0.1
    assert max(norms[0.05]) <= 0.05 * (1 + 1e-5)


@pytest.mark.parametrize("fused", ["auto", "off"])
def test_a_model_that_has_been_evaluated_can_be_trained(fused: Any) -> None:
    criteria = {name: FocalLoss(1.5 + index / 8) for index, name in enumerate(NAMES)}  # which were never asked for before
    small = Small(replace(RECIPE, epochs=1), criteria=criteria)
    small.objective.fused = fused
    small.evaluate()
    assert small.epochs()


def always(value: Callable[[Tensor], Tensor]) -> dict[str, Criterion]:
    return dict.fromkeys(NAMES, lambda logits, target: value(logits))


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda z: z.sum(-1) * torch.nan, "the loss became nan in epoch 1, step 1; try a smaller learning rate or another loss"),
        (lambda z: z.sum(-1) + torch.inf, "the loss became inf in epoch 1, step 1; try a smaller learning rate or another loss"),
        (lambda z: z.mean(), "loss of ER: shape () found, expected one value per pair, shape (8,)"),
        (lambda z: z, "loss of ER: shape (8, 2) found, expected one value per pair, shape (8,)"),
        (lambda z: z[1:].sum(-1), "loss of ER: shape (7,) found, expected one value per pair, shape (8,)"),
        (lambda z: None, "loss of ER: NoneType found, expected one value per pair, shape (8,)"),
    ],
)
def test_a_loss_that_is_not_one_finite_value_per_pair_is_refused(criterion: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(KitError, match=f"^{re.escape(message)}$"):
        Small(criteria=always(criterion)).fit()


def test_a_loss_that_is_not_finite_in_validation_alone_is_refused_too() -> None:
    def breaks(logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits, target) * (1.0 if torch.is_grad_enabled() else torch.nan)

    with pytest.raises(KitError) as error:
        Small(criteria=dict.fromkeys(NAMES, breaks)).fit()
    assert str(error.value) == "the validation loss became nan in epoch 1; try a smaller learning rate or another loss"


def test_probabilities_that_are_no_numbers_are_refused_by_task_and_number_of_pairs() -> None:
    class Divides(LinearHead):
        def probabilities(self, logits: Tensor) -> Tensor:
            found = super().probabilities(logits)
            return torch.where(torch.arange(len(found))[:, None] == 3, found * torch.nan, found)

    small = Small(model=make_model(heads={"ER": LinearHead(12, 2), "EX": Divides(12, 2)}))
    with pytest.raises(KitError) as error:
        small.evaluate()
    assert (
        str(error.value)
        == "EX: the probabilities of 1 of 20 pairs are no finite numbers; try a smaller learning rate or another loss"
    )


@pytest.mark.parametrize(
    ("sampled", "message"),
    [
        (torch.tensor([0, 44]), "the sampler gave position 44, expected 0 to 43"),
        (torch.tensor([-1, 3]), "the sampler gave position -1, expected 0 to 43"),
        (torch.tensor([], dtype=torch.int64), "the sampler gave no pair, expected at least one"),
        (torch.tensor([0.5]), "the sampler gave torch.float32 (1,), expected positions (M,) int64"),
        (torch.tensor([[1]]), "the sampler gave torch.int64 (1, 1), expected positions (M,) int64"),
        ([1, 2], "the sampler gave list, expected positions (M,) int64"),
    ],
)
def test_a_sampler_that_gives_no_positions_of_training_pairs_is_refused_before_the_first_step(sampled: Any, message: str) -> None:
    with pytest.raises(KitError, match=f"^{re.escape(message)}$"):
        Small(sample=lambda generator: sampled)


def test_an_epoch_shows_the_pairs_that_the_sampler_names_as_often_as_it_names_them() -> None:
    chosen = torch.tensor([3, 3, 3, 5, 7, 7, 11, 20, 21, 22])
    small = Small(replace(RECIPE, epochs=2, batch_size=4), sample=lambda generator: chosen)
    shown: list[int] = []
    take = type(TRAIN).take

    def watching(examples: Any, positions: list[int]) -> Any:
        if examples is small.trainer.train:
            shown.extend(positions)
        return take(examples, positions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(TRAIN), "take", watching)
        events = small.fit()
    assert [event.steps for event in events if isinstance(event, Step)] == [3] * 6
    for epoch in (shown[:10], shown[10:]):
        assert sorted(epoch) == sorted(chosen.tolist())
    assert shown[:10] != shown[10:]


@pytest.mark.parametrize("injector", [NoRationale, lambda: PredictedRationale(2, 16)], ids=["no rationale", "a span head"])
@pytest.mark.parametrize("average", [None, 0.9])
def test_a_batch_without_any_label_is_a_step_that_moves_nothing(average: float | None, injector: Callable[[], nn.Module]) -> None:
    train = without_labels(TRAIN, dict.fromkeys(range(8), (0, 1)))
    recipe = replace(RECIPE, warmup=0.5, clip=1.0, average=average)
    small = Small(recipe, model=make_model(injector=injector()), gold="train", train=train)
    nothing, something = train.take(range(8)), train.take(range(8, 16))
    before = weights(small.model)
    assert small.trainer.step(nothing, small.state) == 0  # the first of all: no momentum yet
    assert same(weights(small.model), before)
    small.trainer.step(something, small.state)
    before = weights(small.model)
    assert small.trainer.step(nothing, small.state) == 0
    assert same(weights(small.model), before)
    assert small.state.schedule.last_epoch == 3
    one_by_one = Small(replace(RECIPE, epochs=1, batch_size=1), train=train.take(range(4, 12)))
    assert one_by_one.epochs()[0].train_loss > 0


def test_a_loss_that_lets_no_gradient_through_is_not_taken_for_a_batch_without_labels() -> None:
    detached = dict.fromkeys(NAMES, lambda logits, target: cross_entropy(logits.detach(), target))
    with pytest.raises(RuntimeError, match="does not require grad"):
        Small(criteria=detached).fit()


def test_the_process_may_train_at_two_precisions() -> None:
    losses = {}
    for precision in ("no", "bf16"):
        losses[precision] = Small(replace(RECIPE, epochs=1), precision=precision).epochs()[0].train_loss
    assert losses["no"] != losses["bf16"]
    assert losses["no"] == pytest.approx(losses["bf16"], rel=0.05)
    with pytest.raises(
        KitError, match=r"^precision fp16: needs an accelerator, and this run is on the CPU; expected no or bf16$"
    ):
        Small(precision="fp16")


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_losses_are_given_float32_whatever_the_precision(precision: str) -> None:
    seen: set[torch.dtype] = set()

    def watching(logits: Tensor, target: Tensor) -> Tensor:
        seen.add(logits.dtype)
        return cross_entropy(logits, target)

    small = Small(replace(RECIPE, epochs=1), criteria=dict.fromkeys(NAMES, watching), precision=precision)
    small.fit()
    assert seen == {torch.float32}
    assert {rows.dtype for rows in small.evaluate().probabilities.values()} == {np.dtype(np.float64)}


def test_an_encoded_batch_reaches_every_head() -> None:
    class Constant(LinearHead):
        def forward(self, encoded: Encoded) -> Tensor:
            return super().forward(encoded) * 0 + torch.tensor([0.0, 5.0])

    model = make_model(heads={"ER": LinearHead(12, 2), "EX": Constant(12, 2)})
    said = Small(model=model).evaluate()
    assert set(said.levels()["EX"]) == {1}
    assert said.probabilities["ER"].shape == said.probabilities["EX"].shape == (len(VALIDATION), 2)
