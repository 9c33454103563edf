"""Training: `fit` yields steps and epochs, and all that a step changes is in one state that can be saved and loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from empathy_kit.contracts import GoldAccess
from empathy_kit.core.batch import Examples, collate_targets, collate_texts, training_order
from empathy_kit.core.evaluation import Evaluation, evaluate
from empathy_kit.core.metrics import macro_f1
from empathy_kit.core.model import Model, Output
from empathy_kit.core.objective import Counts, Objective
from empathy_kit.core.precision import Precision, autocast, check_precision
from empathy_kit.core.processes import Processes
from empathy_kit.core.state import Epoch, TrainState
from empathy_kit.errors import KitError

Sample = Callable[[torch.Generator], torch.Tensor]  # -> (M,) int64, positions of training pairs


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    epochs: int
    batch_size: int
    encoder_lr: float
    lr: float  # of everything that is not the encoder
    warmup: float  # share of all steps over which the learning rates rise from 0
    schedule: Literal["constant", "linear"]  # after the warm-up; linear falls to 0
    clip: float | None  # largest gradient norm
    average: float | None  # decay per step of the weights' exponential moving average; None keeps the last weights
    select: Literal["loss", "macro-f1"]  # which validation score chooses the epoch
    patience: int  # epochs without a better one before training ends


@dataclass(frozen=True)
class Step:
    """One optimiser step is done."""

    epoch: int  # from 1
    step: int  # from 1, in this epoch
    steps: int  # in this epoch
    loss: float  # of this batch
    pairs: int  # trained on so far, all epochs
    seconds: float  # spent in training steps so far, all epochs
    taken: int  # steps so far, all epochs, which may differ in length


class Trainer:
    """What does not change while a model is trained: the pairs, the recipe, the device."""

    def __init__(
        self,
        train: Examples,
        validation: Examples,
        recipe: Recipe,
        *,
        pad_id: int,
        gold: GoldAccess,
        sample: Sample | None = None,
        device: torch.device | str = "cpu",
        precision: Precision = "no",
        pad_to: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Prepare training.

        Args:
            train: pairs to learn from.
            validation: pairs that choose the epoch.
            recipe: how to train.
            pad_id: the tokenizer's padding id.
            gold: where the injector may see annotated spans.
            sample: which training pairs an epoch shows; each once where None.
            device: where to compute.
            precision: mixed precision, if any.
            pad_to: pads every post to one length; to the batch's longest where None.
            processes: that train together; this one alone where None.

        Raises:
            KitError: the device does not compute in this precision.
        """
        self.device = torch.device(device)
        check_precision(self.device, precision)
        self.train, self.validation, self.recipe = train, validation, recipe
        self.pad_id, self.gold, self.precision, self.pad_to = pad_id, gold, precision, pad_to
        self.processes = processes or Processes()
        self.sample: Sample = sample or (lambda _: torch.arange(len(train)))

    def start(self, model: Model, objective: Objective, *, seed: int) -> TrainState:
        """The state before the first step.

        The seed orders the batches; dropout draws from torch's global state, which the caller seeds before building the model.

        Raises:
            KitError: a sampler that gives no pair, or positions out of range.
        """
        # Asked with a generator of its own: how long an epoch is must not move the order of its batches.
        pairs = len(self._sampled(torch.Generator().manual_seed(seed)))
        steps = -(-pairs // self.recipe.batch_size) * self.recipe.epochs
        model.to(self.device)
        objective.to(self.device)
        recipe = self.recipe
        return TrainState(
            model,
            objective,
            seed=seed,
            epoch_pairs=pairs,
            encoder_lr=recipe.encoder_lr,
            lr=recipe.lr,
            factor=lambda step: _factor(recipe, step, steps),
            average=recipe.average,
            scaled=self.precision == "fp16",
            device=self.device,
        )

    def fit(self, state: TrainState) -> Iterator[Step | Epoch]:
        """Train on from a state, and yield after every step and every epoch; at the end the model holds the best epoch's weights.

        Of several processes, each first takes over the state of the first one.

        Raises:
            KitError: a loss that is not finite, or not one value per pair; a gradient that is not finite in float16, even
                unscaled; a sampler that gives no pair, or wrong positions.
        """
        if self.processes.count > 1:
            state.load_state_dict(self.processes.copied(state.state_dict()))
        lengths = [pair.tokens for pair in self.train.texts]
        while not state.done:
            started = time.perf_counter()
            # Drawn again where training continues within an epoch: the generator is where it was when the epoch began.
            state.generator.set_state(state.epoch_start)
            sampled = self._sampled(state.generator)
            order = training_order(lengths, sampled, self.recipe.batch_size, state.generator)
            for batch in order[state.step :]:
                at = time.perf_counter()
                loss = self.step(self.train.take(batch), state)
                state.step += 1
                state.pairs += len(batch)
                state.loss_sum += loss * len(batch)
                state.training_seconds += time.perf_counter() - at
                started, state.epoch_seconds = _lap(started, state.epoch_seconds)  # before it may be saved
                yield Step(
                    state.epoch, state.step, len(order), loss, state.pairs, state.training_seconds, state.schedule.last_epoch
                )
            yield self._end_epoch(state, len(sampled), started)
        state.restore_best()

    def _sampled(self, generator: torch.Generator) -> torch.Tensor:
        sampled = self.sample(generator)
        if not isinstance(sampled, torch.Tensor) or sampled.dim() != 1 or sampled.dtype != torch.int64:
            what = f"{sampled.dtype} {tuple(sampled.shape)}" if isinstance(sampled, torch.Tensor) else type(sampled).__name__
            raise KitError(f"the sampler gave {what}, expected positions (M,) int64")
        if not len(sampled):
            raise KitError("the sampler gave no pair, expected at least one")
        if int(sampled.min()) < 0 or int(sampled.max()) >= len(self.train):
            wrong = int(sampled.min()) if int(sampled.min()) < 0 else int(sampled.max())
            raise KitError(f"the sampler gave position {wrong}, expected 0 to {len(self.train) - 1}")
        return sampled

    def step(self, examples: Examples, state: TrainState) -> float:
        """One step on a batch, and its loss.

        Raises:
            KitError: a loss that is not finite, or not one value per pair; a gradient that is not finite in float16, even
                unscaled.
            Lost: another process has ended.
        """
        state.model.train()
        state.objective.train()
        whole = None
        if self.processes.count > 1:
            self.processes.seed_step(state.generator.initial_seed(), state.epoch, state.step)
            whole = Counts.of(examples.texts, examples.labels)
            examples = examples.take(self.processes.share(len(examples)))
        loss = self._loss(examples, state, whole) if len(examples) else None
        scale = state.scaler.get_scale()
        value = state.advance(loss, self.recipe.clip, self.processes)
        where = f"in epoch {state.epoch}, step {state.step + 1}"
        if not np.isfinite(value):
            raise KitError(f"the loss became {value} {where}; try a smaller learning rate or another loss")
        # The scaler skips a step whose gradient is not finite, and halves its scale: below 1, that step was tried unscaled too.
        if state.scaler.get_scale() < min(1, scale):
            raise KitError(
                f"the gradient is not finite in float16, even unscaled, {where}; "
                "try precision bf16 or no, or a smaller learning rate"
            )
        return value

    def _loss(self, examples: Examples, state: TrainState, whole: Counts | None) -> torch.Tensor | None:
        """The loss of a batch, or of a share of it; None without any label."""
        texts = collate_texts(examples.texts, self.pad_id, self.pad_to).to(self.device)
        targets = collate_targets(examples.labels, texts.response.shape[1]).to(self.device)
        with autocast(self.device, self.precision):
            output: Output = state.model(texts, None if self.gold == "never" else targets.gold)
        loss: torch.Tensor = state.objective(output, targets, texts.response_mask, whole)
        # Without a label no evidence is known either: the span loss is 0, but its gradient of 0 would let Adam's momentum move.
        return None if not targets.complete and bool((targets.levels < 0).all()) else loss

    def evaluate(self, state: TrainState, examples: Examples) -> Evaluation:
        """What the model predicts for labelled pairs now."""
        return evaluate(
            state.model,
            state.objective,
            examples,
            pad_id=self.pad_id,
            gold=self.gold,
            device=self.device,
            precision=self.precision,
            pad_to=self.pad_to,
            processes=self.processes,
        )

    def _end_epoch(self, state: TrainState, pairs: int, started: float) -> Epoch:
        with state.averaged():  # what is validated is what would be kept
            found = self.evaluate(state, self.validation)
            if not np.isfinite(found.loss):
                raise KitError(
                    f"the validation loss became {found.loss} in epoch {state.epoch}; try a smaller learning rate or another loss"
                )
            f1, accuracy = _validation_scores(found, self.validation)
            merit = -found.loss if self.recipe.select == "loss" else sum(f1.values()) / len(f1)
            better = state.keep_if_best(merit)
        _, seconds = _lap(started, state.epoch_seconds)
        epoch = Epoch(
            epoch=state.epoch,
            train_loss=state.loss_sum / pairs,
            validation_loss=found.loss,
            validation_macro_f1=f1,
            validation_accuracy=accuracy,
            best=better,
            pairs_per_second=pairs / (state.training_seconds - state.training_seconds_before),
            seconds=seconds,
            steps=state.schedule.last_epoch,
        )
        state.end_epoch(epoch, epochs=self.recipe.epochs, patience=self.recipe.patience)
        return epoch


def _lap(started: float, seconds: float) -> tuple[float, float]:
    now = time.perf_counter()
    return now, seconds + now - started


def _factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rates are multiplied with at a step of all steps."""
    rising = round(recipe.warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 1.0 if recipe.schedule == "constant" else max(0.0, (steps - step) / max(1, steps - rising))


def _validation_scores(found: Evaluation, examples: Examples) -> tuple[dict[str, float], dict[str, float]]:
    """Macro F1 and accuracy per task, over its labelled pairs."""
    true, guess = examples.levels().numpy(), found.levels()
    f1, accuracy = {}, {}
    for index, (name, rows) in enumerate(found.probabilities.items()):
        known = true[:, index] >= 0
        f1[name] = macro_f1(true[known, index], guess[name][known], rows.shape[1])
        accuracy[name] = float((true[known, index] == guess[name][known]).mean())
    return f1, accuracy
