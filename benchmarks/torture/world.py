"""What the trials work on: a tiny random encoder, runs, a comparison and an exported model on invented pairs, made once."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.torture.commands import call, expect, in_child
from tests.conftest import make_tiny_roberta

CLOCKS = ("seconds", "pairs_per_second", "training_seconds")
ROWS = 24  # of the table that is predicted
SMALL = {"--epochs": "2", "--threads": "1", "--max-tokens": "16", "--batch-size": "64"}
OPTIONS = ("-o", "trunk.hidden", "16", "-o", "trunk.layers", "1")


@dataclass
class World:
    """A folder with all that trials need, each made when it is first asked for."""

    folder: Path
    few: bool = False  # for the tests: no comparison and no exported model, which take longest to make
    times: dict[str, float] = field(default_factory=dict)  # seconds of an undisturbed command

    @cached_property
    def encoder(self) -> Path:
        """A random RoBERTa, two layers of 32."""
        path = self.folder / "encoder"
        if not path.exists():
            expect(in_child(lambda: make_tiny_roberta(path)) == 0, "no encoder could be made")
        return path

    @property
    def flags(self) -> list[str]:
        """The settings of every run."""
        return [part for pair in SMALL.items() for part in pair] + ["--encoder", str(self.encoder), *OPTIONS]

    @cached_property
    def run(self) -> Path:
        """A finished run."""
        return self._made("run", self.run_command(self.folder / "run"))

    @cached_property
    def comparison(self) -> Path:
        """A finished comparison of two configurations and two seeds."""
        return self._made("comparison", self.compare_command(self.folder / "comparison"))

    @cached_property
    def exported(self) -> Path:
        """The run as an exported model."""
        return self._made("exported", self.export_command(self.folder / "exported"))

    @cached_property
    def predictions(self) -> Path:
        """The table, predicted."""
        return self._made("predictions.csv", self.predict_command(self.folder / "predictions.csv"))

    @cached_property
    def table(self) -> Path:
        """A table of invented pairs."""
        from empathy_kit.data.sources import load_corpus

        path = self.folder / "table.jsonl"
        pairs = load_corpus("sample").pairs[:ROWS]
        path.write_text(
            "".join(json.dumps({"seeker_post": pair.seeker, "response_post": pair.response}) + "\n" for pair in pairs)
        )
        return path

    def run_command(self, out: Path) -> list[str]:
        """Train one configuration."""
        return ["run", *self.flags, "--loss", "focal", "--out", str(out)]

    def compare_command(self, out: Path) -> list[str]:
        """Compare two configurations."""
        flags = [part for part in self.flags if part != "2"]  # one epoch
        flags.insert(flags.index("--epochs") + 1, "1")
        return ["compare", "T1", "T3", *flags, "--seeds", "2", "--jobs", "2", "--out", str(out)]

    def export_command(self, out: Path) -> list[str]:
        """Export the run."""
        return ["export", str(self.run), "--out", str(out)]

    def predict_command(self, out: Path) -> list[str]:
        """Predict the table with the run."""
        return ["predict", str(self.run), str(self.table), "--evidence", "--out", str(out)]

    def fresh(self, name: str) -> Path:
        """An empty folder for one trial."""
        path = self.folder / "trials" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def _made(self, name: str, command: list[str]) -> Path:
        path = self.folder / name
        if not path.exists():
            ended = call(command, self.folder / f"{name}.log")
            expect(ended.code == 0, f"the undisturbed {command[0]} failed: {ended.text[-400:]}")
            self.times[command[0]] = ended.seconds
        return path


def run_content(folder: Path) -> dict[str, Any]:
    """Every file of a run by its name, as bytes, but for what clocks have written."""
    found: dict[str, Any] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}
    lines = [json.loads(line) for line in found["history.jsonl"].splitlines()]
    record, manifest = json.loads(found["run.json"]), json.loads(found["manifest.json"])
    for name in ("history.jsonl", "run.json"):
        manifest["sha256"].pop(name)
    return {
        **found,
        "history.jsonl": _without_clocks(lines),
        "run.json": _without_clocks(record),
        "manifest.json": manifest,
    }


def comparison_content(folder: Path) -> dict[str, Any]:
    """The same of a comparison: its plan, runs, yardsticks and report."""
    found: dict[str, Any] = {f"runs/{path.name}": run_content(path) for path in sorted((folder / "runs").iterdir())}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("runs/") and path.name != ".lock":
            found[name] = "" if path.suffix == ".html" else path.read_bytes()  # its pictures have random identifiers
    lines = re.sub(rb"^## Size and time\n.*?(?=^## )", b"", found["report.md"], flags=re.DOTALL | re.MULTILINE).splitlines()
    return {**found, "report.md": [line for line in lines if b" minutes of training " not in line]}


def plain_content(path: Path) -> dict[str, Any]:
    """Every file of a folder, or one file, as bytes."""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in (_files(path) if path.is_dir() else [path])}


CONTENT = {"run": run_content, "compare": comparison_content, "predict": plain_content, "export": plain_content}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _without_clocks(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_clocks(value) for name, value in content.items() if name not in CLOCKS}
    return [_without_clocks(each) for each in content] if isinstance(content, list) else content
