"""Small finished runs on the sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from empathy_kit.config import RunConfig, configure
from empathy_kit.plugins import load_registry
from empathy_kit.runs.train import run

SMALL: dict[str, Any] = {"epochs": 1, "threads": 1, "max_tokens": 16, "batch_size": 64}


def train(folder: Path, encoder: Path, *, plugins: Sequence[Path] = (), **changes: Any) -> Path:
    """A finished run of one epoch on the sample; plugins are files."""
    options = {"trunk.hidden": 16, **changes.pop("options", {})}
    config = configure(RunConfig(), {**SMALL, "encoder": str(encoder), **changes, "options": options})
    list(run(config, load_registry(plugins), folder))
    return folder
