"""Runs of format 1, from before there were schemas, samplers and trunks: read, reported, repeated and loaded as today's."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_world import read_json
from safetensors.torch import load_file, save_file

from empathy_kit.config import RunConfig, configure, read_config, to_dict
from empathy_kit.core.scored import Scored
from empathy_kit.data.schema import EPITOME
from empathy_kit.data.sources import load_corpus
from empathy_kit.plugins import load_registry
from empathy_kit.runs import record, report
from empathy_kit.runs.choose import all_options, choose_plugins
from empathy_kit.runs.load import load

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
COMMITTED = {
    "reddit-grouped/runs/T4g-0": "focal + gold (ORACLE)",
    "reddit-grouped/runs/response-0": "ce + response only",
    "reddit-grouped/runs/weighted-0": "weighted",
    "reddit-paper/runs/T2-0": "ce + predicted",
}


@pytest.mark.parametrize(("name", "title"), COMMITTED.items())
def test_a_committed_run_is_read_with_every_setting_and_reported(name: str, title: str) -> None:
    folder = RESULTS / name
    content, found = read_json(folder), record.read(folder, model=False)
    assert (content["format"], found.format) == (1, record.FORMAT)
    assert (found.title, found.schema, found.tasks) == (title, EPITOME, EPITOME)
    unknown = {"average_precision": [], "batch_macro_f1": None}
    assert found.scores == {task: {**scores, **unknown} for task, scores in content["scores"].items()}
    assert (found.spans, found.split) == (None, content["split"])
    old = content["config"]
    assert found.config["options"] == {
        **old["options"],
        **{f"trunk.{setting}": old[setting] for setting in ("hidden", "layers", "dropout")},
    }
    # Nothing is left to a default of today: what is repeated is what was run.
    config = configure(RunConfig(), read_config(folder / "run.json"))
    assert to_dict(config) == found.config
    assert all_options(choose_plugins(config, load_registry())) == config.options

    stream = io.StringIO()
    console = Console(file=stream, width=80)
    for shown in (report.score_table(found), *report.class_tables(found), report.part_table(found.split, found.schema)):
        console.print(shown)
    text = stream.getvalue()
    assert all(report.estimate(scores["macro_f1"]) in text for scores in content["scores"].values())
    assert list(report.split_warnings(found.split)) == []
    assert next(report.data_lines(found.data)).startswith("data reddit: 3,084 pairs, ")


def as_format_1(run: Path, folder: Path) -> Path:
    """The run as the first house would have written it."""
    shutil.copytree(run, folder)
    content = read_json(folder)
    config = {name: value for name, value in content["config"].items() if name not in ("schema", "tasks", "sampler", "trunk")}
    options = config["options"]
    config |= {name: options.pop(f"trunk.{name}") for name in ("hidden", "layers", "dropout")}
    plugins = {kind: entry for kind, entry in content["plugins"].items() if kind not in ("sampler", "trunk")}
    data = {name: value for name, value in content["data"].items() if name != "columns"}
    split = {name: value for name, value in content["split"].items() if name != "largest_group"}
    changed = {"format": 1, "config": config, "plugins": plugins, "data": data, "split": split}
    (folder / record.RUN).write_text(json.dumps({**content, **changed}), encoding="utf-8")
    weights = folder / record.MODEL / "model.safetensors"
    save_file(
        {name.replace("trunk.encoder.model.", "trunk.encoder."): tensor for name, tensor in load_file(weights).items()}, weights
    )
    written = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in written.items() if name != record.MANIFEST}
    (folder / record.MANIFEST).write_text(json.dumps({"format": 1, "sha256": hashes}), encoding="utf-8")
    return folder


def test_a_model_of_format_1_predicts_what_it_did(first: tuple[Path, list[Any]], tmp_path: Path) -> None:
    def said(folder: Path) -> list[Scored]:
        loaded = load(folder, load_registry())
        assert loaded.warnings == ()
        return list(loaded.predictor.predict(loaded.tokenization.encode(load_corpus("sample").pairs[:20])))

    old = as_format_1(first[0], tmp_path / "old")
    for one, other in zip(said(old), said(first[0]), strict=True):
        assert {name: rows.tolist() for name, rows in one.probabilities.items()} == {
            name: rows.tolist() for name, rows in other.probabilities.items()
        }
    assert record.read(old).config == record.read(first[0]).config
