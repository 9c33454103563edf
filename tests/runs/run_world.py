"""What the tests of runs share: small settings, and ways to read what a run leaves behind."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from empathy_kit.config import RunConfig, configure

SMALL = {"epochs": 1, "threads": 1, "max_tokens": 16, "batch_size": 64}
OPTIONS = {"trunk.hidden": 16, "trunk.layers": 1}
FILES = {"run.json", "manifest.json", "history.jsonl", "predictions.csv", "validation.csv"}


class Said(NamedTuple):
    """How a command ended, and all that it printed."""

    code: int
    out: str
    err: str


def configuration(encoder: Path, **changes: Any) -> RunConfig:
    options = {**OPTIONS, **changes.pop("options", {})}
    return configure(RunConfig(), {**SMALL, "encoder": str(encoder), **changes, "options": options})


def flags(encoder: Path) -> list[object]:
    settings = [part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", value)]
    return ["--encoder", encoder, *settings, *(part for name, value in OPTIONS.items() for part in ("-o", name, value))]


def warnings(said: Said) -> list[str]:
    start = "warning: "
    return [line.removeprefix(start) for line in said.err.splitlines() if line.startswith(start)]


def read_json(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return content


def read_predictions(folder: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def words(text: str) -> set[str]:
    return set(re.findall(r"\b[a-z]{5,}\b", text.lower()))


def assert_tells_nothing(folder: Path, post_words: set[str]) -> None:
    """No file of a run but its tokenizer and weights holds a word of a post."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    told = [path for path in files if path.parent != folder / "model" or path.name == "config.json"]
    assert {path.name for path in told} == {*FILES, "config.json"}
    for path in told:
        assert not words(path.read_text(encoding="utf-8")) & post_words, path.name
