"""All that a training step changes, in one value that can be saved and loaded."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from empathy_kit.core.model import Model
from empathy_kit.core.objective import Objective
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.processes import Processes


@dataclass(frozen=True)
class Epoch:
    """One epoch is done and validated."""

    epoch: int  # from 1
    train_loss: float  # mean over the epoch's pairs
    validation_loss: float
    validation_macro_f1: dict[str, float]  # per task
    validation_accuracy: dict[str, float]
    best: bool  # better than every epoch before it
    pairs_per_second: float  # in this epoch's training steps
    seconds: float  # of this epoch, validation included
    steps: int  # of the optimizer, all epochs so far

    @property
    def mean_macro_f1(self) -> float:
        """The mean over tasks: what ``select="macro-f1"`` goes by."""
        return sum(self.validation_macro_f1.values()) / len(self.validation_macro_f1)


@dataclass(frozen=True)
class _Best:
    """The epoch that is kept so far."""

    merit: float
    epoch: int
    weights: dict[str, Tensor]


class _Average:
    """An exponential moving average of weights, with a shorter memory at the start (Polyak and Juditsky, 1992).

    A few hundred steps on rare labels end at another place each time; their average moves less than any of them.
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


_NUMBERS = ("epoch", "step", "pairs", "loss_sum", "training_seconds", "training_seconds_before", "epoch_seconds", "done")


class TrainState:
    """The model, what losses have learnt, optimiser, schedule, average, best epoch, random numbers, and how far training is.

    `Trainer.start` makes it and `Trainer.fit` changes it. It may be saved whenever `fit` has yielded; a fresh state of the same
    run that loads it continues with the same bits.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        *,
        seed: int,
        epoch_pairs: int,
        encoder_lr: float,
        lr: float,
        factor: Callable[[int], float],
        average: float | None,
        scaled: bool,
        device: torch.device,
    ) -> None:
        self.model = model
        self.objective = objective
        self.device = device
        self.epoch_pairs = epoch_pairs  # that an epoch shows, about
        self._trained = nn.ModuleList([model, objective.losses])
        known = {id(weight) for part in model.modules() if isinstance(part, PostEncoder) for weight in part.parameters()}
        encoder = [weight for weight in self.parameters() if id(weight) in known]
        rest = [weight for weight in self.parameters() if id(weight) not in known]
        self.optimizer = torch.optim.Adam([{"params": encoder, "lr": encoder_lr}, {"params": rest, "lr": lr}], fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self._average = None if average is None else _Average(self._trained, average)
        self._best: _Best | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch_start = self.generator.get_state()  # the generator's, at the beginning of this epoch
        self.epoch = 1
        self.step = 0  # done in this epoch
        self.pairs = 0  # trained on, all epochs
        self.loss_sum = 0.0  # over this epoch's pairs
        self.training_seconds = 0.0  # in steps, all epochs
        self.training_seconds_before = 0.0  # at the beginning of this epoch
        self.epoch_seconds = 0.0
        self.done = False
        self.history: list[Epoch] = []

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, each once, though a head's own criterion is in the model and in the objective."""
        every = dict.fromkeys((*self.model.parameters(), *self.objective.losses.parameters()))
        return [parameter for parameter in every if parameter.requires_grad]

    def advance(self, loss: Tensor | None, clip: float | None, processes: Processes) -> float:
        """One step of the optimiser, the schedule and the average; without a loss, no weight moves.

        Returns the loss, of all processes together.
        """
        self.optimizer.zero_grad()
        if loss is not None:
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        value = None
        if processes.count > 1:
            if loss is None:
                self.scaler.scale(torch.zeros((), device=self.device))  # or the scaler would not know its scale below
            value = processes.sum_gradients(self.parameters(), loss)
        if loss is None and value is None:
            self.optimizer.step()  # Adam leaves alone what has no gradient; at a gradient of 0 it would follow its momentum
        else:
            if clip is not None:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.parameters(), clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.schedule.step()
        if self._average is not None:
            self._average.update()
        if value is None:
            return 0.0 if loss is None else float(loss.detach())
        return value

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The weights' average in place of the weights, where one is kept."""
        if self._average is None:
            yield
            return
        self._average.swap()
        try:
            yield
        finally:
            self._average.swap()

    def keep_if_best(self, merit: float) -> bool:
        """Keep a copy of the weights where no epoch before this was as good."""
        better = self._best is None or merit > self._best.merit
        if better:
            weights = {key: value.detach().clone() for key, value in self._trained.state_dict().items()}
            self._best = _Best(merit, self.epoch, weights)
        return better

    def end_epoch(self, epoch: Epoch, *, epochs: int, patience: int) -> None:
        """Take an epoch into the history, and go to the next or end."""
        self.history.append(epoch)
        assert self._best is not None
        self.done = self.epoch >= epochs or self.epoch - self._best.epoch >= patience
        self.epoch += 1
        self.step, self.loss_sum, self.epoch_seconds = 0, 0.0, 0.0
        self.training_seconds_before = self.training_seconds
        self.epoch_start = self.generator.get_state()

    def restore_best(self) -> None:
        """Put the best epoch's weights back."""
        if self._best is not None:
            self._trained.load_state_dict(self._best.weights)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors, numbers, text, lists and mappings; tensors are the state's own, not copies."""
        return {
            "trained": self._trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch, "_step_count": self.schedule._step_count},
            "scaler": self.scaler.state_dict(),
            "average": None if self._average is None else {"means": self._average.means, "steps": self._average.steps},
            "best": None if self._best is None else vars(self._best),
            "generator": self.generator.get_state(),
            "epoch_start": self.epoch_start,
            "random": random_state(self.device),
            "position": {name: getattr(self, name) for name in _NUMBERS},
            "history": [asdict(epoch) for epoch in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go where another state of the same run was, the process's random numbers included."""
        self._trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it would take the tensors themselves
        self.schedule.load_state_dict({**self.schedule.state_dict(), **state["schedule"]})
        self.scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            for mean, saved in zip(self._average.means, state["average"]["means"], strict=True):
                mean.copy_(saved)
            self._average.steps = state["average"]["steps"]
        best = state["best"]
        self._best = (
            None if best is None else _Best(best["merit"], best["epoch"], {k: v.clone() for k, v in best["weights"].items()})
        )
        self.generator.set_state(state["generator"])
        self.epoch_start = state["epoch_start"]
        for name in _NUMBERS:
            setattr(self, name, state["position"][name])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        restore_random_state(state["random"], self.device)


def seed_process(seed: int) -> None:
    """Seed the process's sources of random numbers: torch's, and those of numpy and Python, from which a plugin may draw."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """The process's sources of random numbers: dropout, and whatever a plugin draws from."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.get_device_module(device).get_rng_state(device) if device.type != "cpu" else None,
        "numpy": {"kind": kind, "keys": torch.from_numpy(np.asarray(keys, np.int64)), "rest": list(rest)},
        "python": _plain(random.getstate()),
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Set what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state["device"], device)
    numpy = state["numpy"]
    np.random.set_state((numpy["kind"], numpy["keys"].numpy().astype(np.uint32), *numpy["rest"]))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
