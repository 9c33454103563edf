"""What the tests of stopped runs share: a run that is stopped after some events, and a run's files without their clocks."""

from __future__ import annotations

import json
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from run_world import configuration
from torch import Tensor, nn

from empathy_kit import Head, Loss, Task
from empathy_kit.config import RunConfig
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.plugins import Provided, Registry, load_registry
from empathy_kit.runs.train import run

CLOCKS = ("seconds", "pairs_per_second")
STEPS = 4  # per epoch, each of which is followed by its validation
Run = tuple[Path, list[Any]]


def stop(config: RunConfig, out: Path, events: int, registry: Registry | None = None, **how: Any) -> Path:
    """Stop a run after its first events, the first of which is `Opened`; returns the folder with its state."""
    going = run(config, registry or load_registry(), out, **how)
    list(islice(going, events))
    going.close()
    return out.with_name(f"{out.name}.partial")


def finish(config: RunConfig, out: Path, registry: Registry | None = None, **how: Any) -> list[Any]:
    return list(run(config, registry or load_registry(), out, **how))


def without_clocks(folder: Path) -> dict[str, Any]:
    """Every file of a run by its name, as bytes, but for what clocks have written."""
    found: dict[str, Any] = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    lines = [json.loads(line) for line in found["history.jsonl"].splitlines()]
    record, manifest = json.loads(found["run.json"]), json.loads(found["manifest.json"])
    for part in (record["training"], *lines):
        assert all(part.pop(clock) > 0 for clock in CLOCKS)
    assert record["model"].pop("pairs_per_second") > 0
    for name in ("history.jsonl", "run.json"):
        manifest["sha256"].pop(name)
    return {**found, "history.jsonl": lines, "run.json": record, "manifest.json": manifest}


def focal(encoder: Path, **changes: Any) -> RunConfig:
    """The configuration of the fixture ``first``."""
    options = {"loss.gamma": 1.5, "loss.ER.gamma": 3}
    return configuration(encoder, **{"loss": "focal", "epochs": 2, "seed": 7, "options": options, **changes})


class Learnt(nn.Module):
    """Cross-entropy with a learnt temperature and noise, which sends this process a signal in the midst of a step."""

    interrupted_at = -1  # calls from now

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.training:
            Learnt.interrupted_at -= 1
            if Learnt.interrupted_at == 0:
                signal.raise_signal(signal.SIGINT)
            logits = logits + 1e-3 * torch.rand_like(logits)
        return cross_entropy(logits * self.log_scale.exp(), target)


class Own(LinearHead):
    """A head that learns through a criterion of its own."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 3)
        self.criterion = Learnt()


def with_plugins() -> Registry:
    def loss(task: Task) -> Learnt:
        return Learnt()

    def head(task: Task, width: int) -> Own:
        return Own(width)

    own = (Provided("loss", Loss("learnt", loss), "mine", "1"), Provided("head", Head("own", head), "mine", "1"))
    return Registry((*load_registry().provided, *own))
