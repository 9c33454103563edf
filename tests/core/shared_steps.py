"""Steps of several processes, as torchrun runs this file: the gradients, losses and scores that each of them has in the end.

Usage: shared_steps.py FOLDER, in three processes. The first two of them do all of it again, as a pair.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from small import NAMES, RECIPE, TRAIN, VALIDATION, Small, make_model, weights, without_labels
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from empathy_kit.core.batch import Examples
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.losses.focal import FocalLoss
from empathy_kit.core.processes import Processes
from empathy_kit.core.rationales import PredictedRationale
from empathy_kit.core.state import Epoch
from empathy_kit.runs.torchrun import joined

# 8 pairs, 5 (unequal shares of 2 and of 3 processes), 2 and 1 (empty shares).
BATCHES = (range(8), range(8, 13), range(13, 15), range(15, 16))
# Of the first batch the second process has no EX, whether of 2 or of 3; the second batch has no EX, and the fourth no label.
MISSING = {1: (1,), 3: (1,), 4: (1,), 5: (1,), 7: (1,), **dict.fromkeys(range(8, 13), (1,)), 15: (0, 1)}


class Scaled(nn.Module):
    """Cross-entropy with a learnt temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((), 0.3))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits * self.log_scale.exp(), target)


class Own(LinearHead):
    """A head that learns through a criterion of its own."""

    def __init__(self) -> None:
        super().__init__(12, 2)
        self.criterion = Scaled()


def own_criteria(**how: Any) -> Small:
    heads = {name: Own() for name in NAMES}
    return Small(model=make_model(heads=heads), criteria={name: head.criterion for name, head in heads.items()}, **how)


MADE: dict[str, Callable[..., Small]] = {
    "ce": lambda **how: Small(RECIPE, **how),
    "focal": lambda **how: Small(RECIPE, criteria={name: FocalLoss(1.5) for name in NAMES}, **how),
    "a learnt loss": lambda **how: Small(RECIPE, criteria={name: Scaled() for name in NAMES}, **how),
    "a head's own criterion": own_criteria,
    "a span head": lambda **how: Small(RECIPE, model=make_model(injector=PredictedRationale(2, 16)), gold="train", **how),
    "clipped": lambda **how: Small(replace(RECIPE, clip=0.01), **how),
}
KINDS = [(name, missing) for name in MADE for missing in (False, True)]


def made(name: str, train: Examples, processes: Processes) -> Small:
    """The same model in every process, without dropout, whose masks differ between them."""
    torch.manual_seed(1)
    small = MADE[name](train=train, processes=processes)
    trunk = small.model.trunk.eval()
    trunk.train = lambda mode=True: trunk  # type: ignore[method-assign]
    return small


def steps(name: str, missing: bool, processes: Processes) -> tuple[dict[str, Tensor], list[float]]:
    """The gradients of each step as the optimiser has them, and the losses."""
    small = made(name, without_labels(TRAIN, MISSING) if missing else TRAIN, processes)
    found: dict[str, Tensor] = {}
    named = dict(small.model.named_parameters()) | dict(small.objective.named_parameters())
    losses: list[float] = []

    def look(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        grads = {key: weight.grad for key, weight in named.items() if weight.grad is not None}
        found.update({f"{len(losses)} {key}": grad.clone() for key, grad in grads.items()})

    hook = register_optimizer_step_pre_hook(look)
    try:
        for batch in map(small.trainer.train.take, BATCHES):
            losses.append(small.trainer.step(batch, small.state))  # noqa: PERF401 - their number names the step
    finally:
        hook.remove()
    return found, losses


def fitted(processes: Processes) -> tuple[dict[str, Tensor], list[dict[str, Any]], dict[str, Any]]:
    """A whole training with spans: the weights, the epochs without their clocks, and what is predicted in the end."""
    small = made("a span head", without_labels(TRAIN, MISSING), processes)
    if processes.rank:  # which the first process's weights replace
        nn.init.zeros_(next(small.model.parameters()).data)
    epochs = [replace(event, seconds=0.0, pairs_per_second=0.0) for event in small.fit() if isinstance(event, Epoch)]
    found = small.evaluate(without_labels(VALIDATION, {0: (0,)}))
    spans = None if found.spans is None else [rows.tolist() for rows in found.spans]
    rows = {name: rows.tolist() for name, rows in found.probabilities.items()}
    return weights(small.model), [asdict(epoch) for epoch in epochs], {"loss": found.loss, "spans": spans, **rows}


def write(processes: Processes, folder: Path) -> None:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for name, missing in KINDS:
        grads, losses = steps(name, missing, processes)
        tensors.update({f"{name} {missing} {key}": grad for key, grad in grads.items()})
        numbers[f"{name} {missing}"] = losses
    last, numbers["epochs"], numbers["predicted"] = fitted(processes)
    tensors.update({f"fitted {key}": weight for key, weight in last.items()})
    out = folder / f"{processes.rank}-of-{processes.count}"
    save_file(tensors, out.with_suffix(".safetensors"))
    out.with_suffix(".json").write_text(json.dumps(numbers))


def main(folder: Path) -> None:
    with joined("cpu") as processes:
        assert processes is not None
        write(processes, folder)
    if processes.rank < 2:
        store = dist.PrefixStore("pair", processes._store)
        dist.init_process_group("gloo", store=store, rank=processes.rank, world_size=2)
        pair = Processes(processes.rank, 2, store)
        write(pair, folder)
        pair.close()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
