"""A run's folder as the first house wrote it, in format 1: no schema, samplers, trunks, ranked levels or temperatures."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empathy_kit.runs import record

LATER_SETTINGS = ("schema", "tasks", "sampler", "trunk")
OF_THE_TRUNK = ("hidden", "layers", "dropout")  # settings then, the trunk's options now


def as_format_1(run: Path, folder: Path) -> Path:
    """Copy a run, and take from it what format 1 did not have. It must be of the three tasks, `gru` and `all`."""
    shutil.copytree(run, folder)
    content = json.loads((folder / record.RUN).read_text(encoding="utf-8"))
    config = _without(content["config"], *LATER_SETTINGS)
    options = config["options"]
    config |= {name: options.pop(f"trunk.{name}") for name in OF_THE_TRUNK}
    changed = {
        "format": 1,
        "config": config,
        "plugins": _without(content["plugins"], "sampler", "trunk"),
        "data": _without(content["data"], "columns"),
        "split": _without(content["split"], "groups", "largest_group"),
        "scores": {task: _without(each, "average_precision", "batch_macro_f1") for task, each in content["scores"].items()},
    }
    old = _without({**content, **changed}, "encoder", *record.LATER)
    (folder / record.RUN).write_text(json.dumps(old), encoding="utf-8")
    (folder / record.VALIDATION).unlink(missing_ok=True)
    if (folder / record.MODEL).is_dir():
        _old_model(folder / record.MODEL)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name != record.MANIFEST}
    (folder / record.MANIFEST).write_text(json.dumps({"format": 1, "sha256": hashes}), encoding="utf-8")
    return folder


def _without(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


def _old_model(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = model / "model.safetensors"
    tensors = {name.replace("trunk.encoder.model.", "trunk.encoder."): tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    (model / record.CALIBRATION).unlink(missing_ok=True)
