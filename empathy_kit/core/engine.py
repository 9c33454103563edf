"""Training and inference: `fit` yields steps and epochs; nothing is called back, nothing is subclassed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from empathy_kit.contracts import GoldAccess
from empathy_kit.core import kernels
from empathy_kit.core.batch import Targets, Texts, TokenPair, collate, inference_order, training_order
from empathy_kit.core.losses.focal import FocalLoss, focal_heads, in_one_call
from empathy_kit.core.metrics import Floats, macro_f1
from empathy_kit.core.model import Model, Output
from empathy_kit.errors import KitError

Criterion = Callable[[Tensor, Tensor], Tensor]  # (N, C), (N,) -> (N,)


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
    average: float | None  # decay of the weights' exponential moving average, a step; None keeps the last weights
    select: Literal["loss", "macro-f1"]  # which validation score chooses the epoch
    patience: int  # epochs without a better one before training ends
    rationale_weight: float  # of the span loss, where the injector has a span head


@dataclass(frozen=True)
class Step:
    """One optimiser step is done."""

    epoch: int  # from 1
    step: int  # from 1, in this epoch
    steps: int  # in this epoch
    loss: float  # of this batch
    pairs: int  # trained on so far, all epochs
    seconds: float  # spent in training steps so far, all epochs


@dataclass(frozen=True)
class Epoch:
    """One epoch is done and validated."""

    epoch: int  # from 1
    train_loss: float  # mean over the epoch's pairs
    validation_loss: float
    validation_macro_f1: dict[str, float]  # a mechanism
    validation_accuracy: dict[str, float]
    best: bool  # better than every epoch before it
    pairs_per_second: float  # in this epoch's training steps
    seconds: float  # of this epoch, validation included

    @property
    def mean_macro_f1(self) -> float:
        """The mean over mechanisms: what ``select="macro-f1"`` goes by."""
        return sum(self.validation_macro_f1.values()) / len(self.validation_macro_f1)


class Objective(nn.Module):
    """The sum over mechanisms of their mean losses, plus the weighted span loss. Holds what a loss learns."""

    def __init__(self, criteria: Mapping[str, Criterion], rationale_weight: float) -> None:
        super().__init__()
        self.criteria = dict(criteria)
        self.learnt = nn.ModuleList([loss for loss in self.criteria.values() if isinstance(loss, nn.Module)])
        self.rationale_weight = rationale_weight

    def forward(
        self,
        output: Output,
        targets: Targets,
        mask: Tensor,  # (B, L) bool
    ) -> Tensor:  # () float32
        total = torch.zeros((), device=targets.levels.device)
        together = one_launch(self.criteria, output.logits)
        if together is not None:
            gammas, weights = together
            total = focal_heads(torch.stack(list(output.logits.values()), 1), targets.levels, gammas, weights).mean(0).sum()
        for index, (name, criterion) in enumerate(self.criteria.items() if together is None else ()):
            if type(criterion) is FocalLoss:
                total = total + criterion.mean(output.logits[name], targets.levels[:, index])
                continue
            losses = criterion(output.logits[name], targets.levels[:, index])
            expected = (len(targets.levels),)
            if losses.shape != expected:
                raise KitError(f"loss of {name}: shape {tuple(losses.shape)} found, expected one value a pair {expected}")
            total = total + losses.mean()
        if output.span_logits is not None and self.rationale_weight:
            total = total + self.rationale_weight * span_loss(output.span_logits.float(), targets, mask)
        return total


def one_launch(criteria: Mapping[str, Criterion], logits: Mapping[str, Tensor]) -> tuple[list[float], list[Tensor | None]] | None:
    """Gammas and weights, where one launch of a kernel can compute all mechanisms' losses."""
    losses = [criterion for criterion in criteria.values() if type(criterion) is FocalLoss]  # a subclass may compute another
    shapes = {rows.shape for rows in logits.values()}
    if len(losses) < len(criteria) or len(shapes) > 1 or not all(in_one_call(rows) for rows in logits.values()):
        return None
    return [loss.gamma for loss in losses], [loss.weight for loss in losses]


def span_loss(
    span_logits: Tensor,  # (B, T, L) float32
    targets: Targets,
    mask: Tensor,  # (B, L) bool
) -> Tensor:  # () float32
    """Mean binary cross-entropy over the response tokens of the mechanisms whose evidence is known."""
    counted = targets.gold_known[..., None] & mask[:, None]  # (B, T, L)
    losses = F.binary_cross_entropy_with_logits(span_logits, targets.gold.float(), reduction="none")
    # where(), not a product: nothing that a padding position holds can reach the sum.
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)


@dataclass(frozen=True)
class Predictions:
    """What the model says of N pairs, in their order."""

    probabilities: dict[str, Floats]  # mechanism to (N, C)
    loss: float  # mean over pairs of the objective's mechanisms, the span loss left out
    spans: list[list[list[bool]]] | None  # pair, mechanism, response token; None without a span head

    def levels(self) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """The likeliest level, (N,) a mechanism."""
        return {name: rows.argmax(1) for name, rows in self.probabilities.items()}


class _Average:
    """An exponential moving average of weights, with a shorter memory at the start (Polyak and Juditsky, 1992).

    A few hundred steps on rare levels end at another place each time; their average moves less than any of them.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.weights = [parameter.detach() for parameter in module.parameters() if parameter.requires_grad]
        self.means = [weight.clone() for weight in self.weights]
        self.decay = decay
        self.steps = 0

    def update(self) -> None:
        """Take the weights after one more step into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.means, self.weights, 1 - decay)

    def swap(self) -> None:
        """Exchange the weights and their averages."""
        for weight, mean in zip(self.weights, self.means, strict=True):
            held = weight.clone()
            weight.copy_(mean)
            mean.copy_(held)


class Engine:
    """One model on one device at one precision."""

    def __init__(
        self,
        model: Model,
        criteria: Mapping[str, Criterion],
        *,
        pad_id: int,
        gold: GoldAccess,
        cpu: bool = False,
        precision: Literal["no", "bf16", "fp16"] = "no",
        pad_to: int | None = None,
        fused: kernels.Choice = "auto",
    ) -> None:
        try:
            self.accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
        except ValueError as error:  # what accelerate says of a precision that the device does not have
            raise KitError(f"--precision {precision}: {error}") from None
        if self.accelerator.num_processes > 1:
            raise KitError(
                f"{self.accelerator.num_processes} processes found, expected one: a run does not share out its batches"
            )
        if fused == "on":
            kernels.require(self.accelerator.device)
        self.fused = fused
        self.model: Model = self.accelerator.prepare_model(model)
        self.criteria = criteria
        self.gold = gold
        self.pad_id = pad_id
        self.pad_to = pad_to
        for loss in criteria.values():
            if isinstance(loss, nn.Module):
                loss.to(self.accelerator.device)

    def losses_status(self) -> str:
        """Which way the kit's own losses are computed on this engine's device, and why."""
        with kernels.fused(self.fused):
            return kernels.status(self.accelerator.device)

    def fit(
        self, train: Sequence[TokenPair], validation: Sequence[TokenPair], recipe: Recipe, *, seed: int
    ) -> Iterator[Step | Epoch]:
        """Train, and yield after every step and every epoch; once exhausted, the model holds the best epoch's weights.

        The seed orders the batches; dropout draws from torch's global state, which the caller seeds before building the model.

        Raises:
            KitError: a loss that is not finite, or not one value a pair.
        """
        objective = Objective(self.criteria, recipe.rationale_weight)
        trained = nn.ModuleList([self._unwrapped(), objective.learnt])
        optimizer, schedule = self._optimizer(objective, recipe, steps=-(-len(train) // recipe.batch_size) * recipe.epochs)
        generator = torch.Generator().manual_seed(seed)
        lengths = [pair.tokens for pair in train]
        average = None if recipe.average is None else _Average(trained, recipe.average)
        best: tuple[float, int, dict[str, Tensor]] | None = None
        pairs, training_seconds = 0, 0.0
        for epoch in range(1, recipe.epochs + 1):
            started, training_before, loss_sum = time.perf_counter(), training_seconds, 0.0
            order = training_order(lengths, recipe.batch_size, generator)
            for step, batch in enumerate(order, start=1):
                at = time.perf_counter()
                loss = self._step([train[index] for index in batch], objective, optimizer, schedule, recipe.clip)
                if average is not None:
                    average.update()
                if not np.isfinite(loss):
                    raise KitError(f"the loss became {loss} in epoch {epoch}, step {step}; try a smaller --lr or another loss")
                training_seconds += time.perf_counter() - at
                pairs += len(batch)
                loss_sum += loss * len(batch)
                yield Step(epoch, step, len(order), loss, pairs, training_seconds)
            if average is not None:
                average.swap()  # what is validated is what would be kept
            predictions = self.predict(validation)
            if not np.isfinite(predictions.loss):
                raise KitError(
                    f"the validation loss became {predictions.loss} in epoch {epoch}; try a smaller --lr or another loss"
                )
            true = _levels(validation)
            guess = predictions.levels()
            f1 = {
                name: macro_f1(true[:, index], guess[name], predictions.probabilities[name].shape[1])
                for index, name in enumerate(self.criteria)
            }
            merit = -predictions.loss if recipe.select == "loss" else sum(f1.values()) / len(f1)
            better = best is None or merit > best[0]
            if better:
                best = merit, epoch, {key: value.detach().clone() for key, value in trained.state_dict().items()}
            if average is not None:
                average.swap()
            yield Epoch(
                epoch=epoch,
                train_loss=loss_sum / len(train),
                validation_loss=predictions.loss,
                validation_macro_f1=f1,
                validation_accuracy={
                    name: float((true[:, index] == guess[name]).mean()) for index, name in enumerate(self.criteria)
                },
                best=better,
                pairs_per_second=len(train) / (training_seconds - training_before),
                seconds=time.perf_counter() - started,
            )
            if best is not None and epoch - best[1] >= recipe.patience:
                break
        if best is not None:
            trained.load_state_dict(best[2])

    def predict(self, pairs: Sequence[TokenPair], batch_size: int = 64) -> Predictions:
        """Predict without gradient, dropout or randomness; the answer does not depend on the order of the pairs."""
        self.model.eval()
        probabilities: dict[str, list[Tensor]] = {name: [torch.empty(0)] * len(pairs) for name in self.criteria}
        spans: list[list[list[bool]]] = [[] for _ in pairs]
        loss_sum, has_spans = 0.0, False
        heads = self._unwrapped().heads
        for batch in inference_order([pair.tokens for pair in pairs], batch_size):
            texts, targets = self._collate([pairs[index] for index in batch])
            with torch.inference_mode(), kernels.fused(self.fused):
                output: Output = self.model(texts, targets.gold if self.gold == "always" else None)
                for index, (name, criterion) in enumerate(self.criteria.items()):
                    loss_sum += float(criterion(output.logits[name], targets.levels[:, index]).sum())
                    rows = heads[name].probabilities(output.logits[name]).float().cpu()  # type: ignore[operator]
                    for place, row in zip(batch, rows, strict=True):
                        probabilities[name][place] = row
            if output.span_logits is not None:
                has_spans = True
                marked = (output.span_logits > 0).cpu().tolist()
                for place, row in zip(batch, marked, strict=True):
                    length = len(pairs[place].response)
                    spans[place] = [mechanism[:length] for mechanism in row]
        return Predictions(
            probabilities={name: torch.stack(rows).double().numpy() for name, rows in probabilities.items()},
            loss=loss_sum / len(pairs),
            spans=spans if has_spans else None,
        )

    def _unwrapped(self) -> Model:
        model: Model = self.accelerator.unwrap_model(self.model)
        return model

    def _parameters(self, objective: Objective) -> list[nn.Parameter]:
        """Each once, though a head's own criterion is in the model and in the objective."""
        every = dict.fromkeys((*self._unwrapped().parameters(), *objective.learnt.parameters()))
        return [parameter for parameter in every if parameter.requires_grad]

    def _collate(self, pairs: Sequence[TokenPair]) -> tuple[Texts, Targets]:
        texts, targets = collate(pairs, self.pad_id, self.pad_to)
        return texts.to(self.accelerator.device), targets.to(self.accelerator.device)

    def _optimizer(
        self, objective: Objective, recipe: Recipe, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        known = {id(parameter) for parameter in self._unwrapped().trunk.encoder.parameters()}
        encoder = [parameter for parameter in self._parameters(objective) if id(parameter) in known]
        rest = [parameter for parameter in self._parameters(objective) if id(parameter) not in known]
        optimizer = torch.optim.Adam(
            [{"params": encoder, "lr": recipe.encoder_lr}, {"params": rest, "lr": recipe.lr}], fused=True
        )
        rising = round(recipe.warmup * steps)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            return 1.0 if recipe.schedule == "constant" else max(0.0, (steps - step) / max(1, steps - rising))

        # Ours steps the schedule once an optimiser step; accelerate's wrapper would step it once a process.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return self.accelerator.prepare_optimizer(optimizer), schedule

    def _step(
        self,
        pairs: Sequence[TokenPair],
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        clip: float | None,
    ) -> float:
        self.model.train()
        texts, targets = self._collate(pairs)
        output: Output = self.model(texts, None if self.gold == "never" else targets.gold)
        with kernels.fused(self.fused):
            loss = objective(output, targets, texts.response_mask)
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        if clip is not None:
            self.accelerator.clip_grad_norm_(self._parameters(objective), clip)
        optimizer.step()
        schedule.step()
        return float(loss.detach())


def _levels(pairs: Sequence[TokenPair]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.array([pair.levels for pair in pairs], dtype=np.int64)
