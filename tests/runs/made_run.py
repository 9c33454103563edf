"""A run of invented content: what a run directory needs, without a model."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from empathy_kit.config import RunConfig, to_dict
from empathy_kit.runs.record import FORMAT, Record, write
from empathy_kit.runs.reservation import reserved


def make_record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "format": FORMAT,
        "kit": "0.1.0",
        "oracle": False,
        "config": to_dict(RunConfig(loss="focal")),
        "plugins": {"loss": {"name": "focal", "distribution": "empathy-kit", "version": "0.1.0"}},
        "versions": {"python": "3.11.7"},
        "machine": {"device": "cpu"},
        "data": {"name": "sample", "sha256": "d" * 64},
        "split": {"kind": "grouped", "sha256": "5" * 64},
        "encoder": {"name": "minilm", "sha256": "0" * 64},
        "truncation": {"max_tokens": 64},
        "training": {"epochs": 5},
        "scores": {"ER": {"n": 3}},
        "spans": None,
    }
    return Record(**{**values, **changes})


def written(folder: Path, model: bool, record: Record | None = None) -> None:
    """What a run writes; its model is by far the largest part."""
    if model:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_bytes(bytes(range(256)) * 8000)
    write(
        folder,
        record or make_record(),
        [{"epoch": 1}, {"epoch": 2}],
        predictions=[["id", "ER_true"], ["ab", "1"], ["cd", "0"]],
        validation=[["id", "ER_true"], ["ef", "2"]],
    )


def make_run(out: Path, record: Record | None = None) -> Path:
    with reserved(out) as place:
        return place.leave(lambda folder, model: written(folder, model, record))


def scored(value: float = 0.5, **changes: Any) -> Any:
    """A record with headline scores."""
    estimate = {"value": value, "low": value, "high": value}
    scores = {"n": 3, "accuracy": estimate, "weighted_f1": estimate, "macro_f1": None}
    return make_record(scores={"ER": scores}, **changes)


def age(folder: Path, days: float) -> None:
    then = time.time() - days * 24 * 3600
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))
