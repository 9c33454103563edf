"""Copies of a run's folder that were changed before their manifest was written, and what a folder holds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from empathy_kit.runs import record


def altered(folder: Path, out: Path, change: Callable[[Path], None]) -> Path:
    """A copy of a folder that was changed before its manifest was written."""
    shutil.copytree(folder, out)
    change(out)
    found = sorted(path for path in out.rglob("*") if path.is_file() and path.name != record.MANIFEST)
    hashes = {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
    (out / record.MANIFEST).write_text(json.dumps({"format": record.FORMAT, "sha256": hashes}))
    return out


def rewritten(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        told = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**told, **changes}))

    return change


def exported(run: Path, out: Path) -> Path:
    """What an export looks like to whoever publishes it."""

    def change(folder: Path) -> None:
        shutil.rmtree(folder / "model")
        told = {"format": 1, "schema": {}, "record": json.loads((folder / "run.json").read_text()), "int8": True}
        for path in filter(Path.is_file, list(folder.iterdir())):
            path.unlink()
        (folder / "export.json").write_text(json.dumps(told))
        (folder / "model.onnx").write_bytes(b"graph" * 1000)
        (folder / "tokenizer.json").write_text("{}")

    return altered(run, out, change)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def data(run: Path) -> set[str]:
    """The files of a run that are published as they are: all but its tables."""
    return {name for name in files(run) if not name.endswith(".csv")}
