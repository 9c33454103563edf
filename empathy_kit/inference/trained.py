"""A run's folder -> a model that predicts with torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from empathy_kit.errors import KitError
from empathy_kit.inference.model import EmpathyModel, digest, read_temperatures
from empathy_kit.plugins import load_registry
from empathy_kit.runs import record
from empathy_kit.runs.load import load
from empathy_kit.runs.seen import read_seen


def load_run(folder: Path, *, device: Literal["auto", "cpu"] | None = None, plugins: Sequence[Path] = ()) -> EmpathyModel:
    """The model of a finished run, with its calibration.

    Raises:
        KitError: there is no run, it was changed or has no model, or its plugins are missing.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - Path's own raises for names that cannot be
        raise KitError(f"{folder}: no such folder; expected a run, an exported model, or hub:user/name")
    try:
        loaded = load(folder, load_registry(plugins), device=device)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers", "safetensors"):
            raise
        raise KitError(
            f"{folder}: a run's model needs {error.name}: pip install 'empathy-kit[train]', or export the model where it is"
        ) from None
    return EmpathyModel(
        schema=loaded.record.tasks,
        tokenization=loaded.tokenization,
        engine=loaded.predictor,
        temperatures=read_temperatures(folder / record.MODEL / record.CALIBRATION),
        digest=digest(folder),
        about=asdict(loaded.record),
        warnings=loaded.warnings,
        seen=read_seen(folder / record.MODEL),
        code=loaded.code,
    )
