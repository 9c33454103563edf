"""Runs of format 1, from before there were schemas, samplers and trunks: read, reported, repeated and loaded as today's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_runs import LATER_SETTINGS, OF_THE_TRUNK, as_format_1
from rich.console import Console
from run_world import read_json

from empathy_kit.config import RunConfig, configure, read_config, to_dict
from empathy_kit.core.scored import Scored
from empathy_kit.data.schema import EPITOME
from empathy_kit.data.sources import load_corpus
from empathy_kit.plugins import load_registry
from empathy_kit.runs import record, report
from empathy_kit.runs.choose import all_options, choose_plugins
from empathy_kit.runs.load import load


@pytest.fixture
def old(first: tuple[Path, list[Any]], tmp_path: Path) -> Path:
    return as_format_1(first[0], tmp_path / "old")


def test_it_is_read_with_every_setting_and_reported(old: Path, first: tuple[Path, list[Any]]) -> None:
    content, found, new = read_json(old), record.read(old), record.read(first[0])
    assert (content["format"], found.format) == (1, record.FORMAT)
    assert set(content["config"]).isdisjoint(LATER_SETTINGS)
    assert set(content["config"]).issuperset(OF_THE_TRUNK)
    assert (found.title, found.schema, found.tasks) == (new.title, EPITOME, EPITOME)
    unknown = {"average_precision": [], "batch_macro_f1": None}
    assert found.scores == {task: {**scores, **unknown} for task, scores in content["scores"].items()}
    assert (found.spans, found.calibration, found.model, found.split) == (None, None, None, content["split"])
    assert found.config == new.config
    # Nothing is left to a default of today: what is repeated is what was run.
    config = configure(RunConfig(), read_config(old / "run.json"))
    assert to_dict(config) == found.config
    assert all_options(choose_plugins(config, load_registry())) == config.options

    stream = io.StringIO()
    console = Console(file=stream, width=80)
    for shown in (report.score_table(found), *report.class_tables(found), report.part_table(found.split, found.schema)):
        console.print(shown)
    text = stream.getvalue()
    assert all(report.estimate(scores["macro_f1"]) in text for scores in content["scores"].values())
    assert list(report.split_warnings(found.split)) == []
    assert next(report.data_lines(found.data)).startswith("data sample: 300 pairs, ")


def test_its_model_predicts_what_it_did(old: Path, first: tuple[Path, list[Any]]) -> None:
    def said(folder: Path) -> list[Scored]:
        loaded = load(folder, load_registry())
        assert loaded.warnings == ()
        return list(loaded.predictor.predict(loaded.tokenization.encode(load_corpus("sample").pairs[:20])))

    for one, other in zip(said(old), said(first[0]), strict=True):
        assert one.probabilities.keys() == other.probabilities.keys()
        assert all(np.array_equal(one.probabilities[name], rows) for name, rows in other.probabilities.items())
