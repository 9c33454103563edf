"""Warnings of a comparison's runs and splits, and of an audit's folds, reach the user: each once, without text of posts."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from invented import one_task, two_tasks, write_one_task, write_table, write_two_tasks

from empathy_kit import KitError
from empathy_kit.cli import cli
from empathy_kit.comparison.cluster import RayWorker
from empathy_kit.comparison.execute import execute, prepare
from empathy_kit.comparison.plan import Plan
from empathy_kit.comparison.worker import Failed, Order, Warned, Worker
from empathy_kit.config import RunConfig, configure
from empathy_kit.plugins import load_registry
from empathy_kit.runs.train import Opened

PADDED = "encoder: posts are padded"
LARGE = "warning: 54 of 90 pairs share a seeker id or seeker post and stay in one part; is every seeker_id one person's?"


@pytest.fixture
def warning_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that open with two warnings, one of them their own, and then fail."""

    def events(order: Order) -> Iterator[Any]:
        warnings = (PADDED, f"the state of {order.name} is damaged")
        yield Opened(order.config, {}, {}, None, False, "cpu", "torch", 1, warnings)  # type: ignore[arg-type]
        raise KitError("it is stopped")

    monkeypatch.setattr(Order, "events", events)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that does its tasks here."""

    def remote(**_: object) -> Any:
        return lambda work: SimpleNamespace(remote=lambda order: lambda: work(order))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(remote=remote, get=lambda task: task()))


@pytest.mark.usefixtures("in_threads", "ray", "warning_runs")
@pytest.mark.parametrize("worker", [Worker, RayWorker])
def test_a_run_sends_its_warnings_from_its_process_and_from_a_cluster(tmp_path: Path, worker: type[Worker]) -> None:
    registry = load_registry()
    prepared = prepare(Plan({"T1": RunConfig()}, (0,), False), tmp_path / "out", registry)
    events = execute(prepared, tmp_path / "out", registry, jobs=1, keep_models=False, worker=worker)
    assert [event for event in events if isinstance(event, Warned | Failed)] == [
        Warned("T1", 0, PADDED),
        Warned("T1", 0, "the state of T1 is damaged"),
        Failed("T1", 0, "it is stopped"),
    ]


@pytest.mark.usefixtures("in_threads", "warning_runs")
def test_a_warning_of_many_runs_is_printed_once_and_names_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("empathy_kit.cli.compare"), "_write_report", lambda *_: None)
    monkeypatch.setattr("empathy_kit.comparison.yardsticks.measure", lambda *_: None)
    given = ["compare", "T1", "T3", "--seeds", "2", "--jobs", "1", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("warning")] == [
        f"warning: {PADDED} (first in T1, seed 0)",
        "warning: the state of T1 is damaged (first in T1, seed 0)",
        "warning: the state of T3 is damaged (first in T3, seed 0)",
    ]
    assert result.stderr.count("failed: it is stopped") == 4


@pytest.mark.usefixtures("in_threads")
def test_a_comparison_on_few_spans_tells_it_without_a_word_of_the_posts(tiny_roberta: Path, tmp_path: Path) -> None:
    data, schema = write_two_tasks(tmp_path)
    settings = {"encoder": str(tiny_roberta), "epochs": 1, "max_tokens": 12, "threads": 1, "options": {"trunk.hidden": 8}}
    given = {**settings, "data": str(data), "schema": str(schema), "rationale": "predicted"}
    registry = load_registry()
    prepared = prepare(Plan({"T2": configure(RunConfig(), given)}, (0,), False), tmp_path / "out", registry)
    events = execute(prepared, tmp_path / "out", registry, jobs=1, keep_models=False)
    told = [event for event in events if isinstance(event, Warned)]
    assert told == [
        Warned("T2", 0, "the training part has no annotated span of advice: rationale predicted learns nothing of it")
    ]
    assert not any(row[column] in told[0].text for row in two_tasks() for column in ("seeker_post", "response_post"))


def of_unknown_seekers(folder: Path) -> list[str]:
    """A table with one seeker id in 60 % of its rows."""
    data, schema = write_one_task(folder)
    write_table(data, [{**row, "seeker_id": "unknown" if at % 5 < 3 else f"s{at}"} for at, row in enumerate(one_task())])
    return ["--data", str(data), "--schema", str(schema)]


def invoked(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    assert str(result.exception) == "nothing is trained"
    return result


def refuse(*_: object, **__: object) -> Any:
    raise KitError("nothing is trained")


def test_a_comparison_of_which_one_group_is_most_is_warned_of_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empathy_kit.comparison.execute.execute", refuse)
    given = (*of_unknown_seekers(tmp_path), "--out", str(tmp_path / "out"))
    assert invoked("compare", "T1", "T3", "--seeds", "3", "--resplit", *given).stderr.splitlines() == [LARGE]
    assert not invoked("compare", "T1", "--split", "paper", *given[:-1], str(tmp_path / "paper")).stderr


def test_an_audit_of_which_one_group_is_most_is_warned_of_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empathy_kit.comparison.out_of_fold.train", refuse)
    assert invoked("data", "audit", *of_unknown_seekers(tmp_path)).stderr.splitlines() == [LARGE]
