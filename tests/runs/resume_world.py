"""What the tests of stopped runs share: a run that is stopped after some events, and a run's files without their clocks."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from run_world import configuration

from empathy_kit.config import RunConfig
from empathy_kit.plugins import Registry, load_registry
from empathy_kit.runs.train import run

CLOCKS = ("seconds", "pairs_per_second")


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
    for name in ("history.jsonl", "run.json"):
        manifest["sha256"].pop(name)
    return {**found, "history.jsonl": lines, "run.json": record, "manifest.json": manifest}


def focal(encoder: Path, **changes: Any) -> RunConfig:
    """The configuration of the fixture ``first``."""
    options = {"loss.gamma": 1.5, "loss.ER.gamma": 3}
    return configuration(encoder, **{"loss": "focal", "epochs": 2, "seed": 7, "options": options, **changes})
