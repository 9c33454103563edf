"""benchmarks/questions.py: its plans are ones that `compare` takes, and no run is trained that another comparison has."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from made_up import made_up_run, rewrite_record

from empathy_kit.comparison.plan import Plan
from empathy_kit.config import RunConfig, configure, preset
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry
from empathy_kit.runs.choose import all_options, choose_plugins


@pytest.fixture(scope="module")
def questions() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module("questions")


def finished(folder: Path, name: str, seed: int, **changes: object) -> Path:
    """A run of the Reddit data as `run` records it: with every option."""
    config = configure(RunConfig(), {"data": "reddit", "freeze_layers": 2, **changes})
    whole = replace(config, options=all_options(choose_plugins(config, load_registry())))
    made_up_run(folder / "runs" / f"{name}-{seed}", whole, 0, seed, seed, 0.0)
    return folder


def test_every_question_is_a_plan_of_three_splits_or_says_how_many(questions: ModuleType) -> None:
    plans = {name: question.plan for name, question in questions.QUESTIONS.items()}
    counts = {name: len(plan.seeds) for name, plan in plans.items() if len(plan.seeds) != 3}
    assert counts == {"tuning": 1, "predecessor-size": 2, "best": 5}
    assert [name for name, plan in plans.items() if not plan.resplit] == ["best"]
    assert {config.freeze_layers for config in plans["size"].configurations.values()} == {2, 8}
    assert {config.freeze_layers for config in plans["tuning"].configurations.values()} == {4}
    assert {config.split for config in plans["size-paper"].configurations.values()} == {"paper"}
    assert len(plans["sharing"].runs()) == 3 * (2 + 2 * 3)  # T1s and T3s have a model for each task


def test_the_best_recipe_is_the_preset_on_a_split_that_no_other_question_has(questions: ModuleType) -> None:
    plans = {name: question.plan for name, question in questions.QUESTIONS.items()}
    best = plans.pop("best")
    split = best.config("best", 0).split_seed
    faster = {"precision": "bf16"}  # as the larger encoder of the other questions
    expected = configure(preset("best"), {"data": "reddit", "split_seed": split, "seed": 3, **faster})
    written = {route: str(value) for route, value in expected.options.items()}  # as flags are
    assert best.config("best", 3) == replace(expected, options=written)
    used = {plan.config(*run).split_seed for plan in plans.values() for run in plan.runs()}
    assert split not in used


def test_a_preset_is_written_with_its_options_as_compare_takes_them(questions: ModuleType) -> None:
    settings = {"loss": "focal", "encoder": "minilm", "options": {"loss.gamma": 1.0, "loss.ER.gamma": 3}}
    plan = questions.Question((f"best={questions.as_flags(settings)}",)).plan
    written = {**settings, "options": {"loss.gamma": "1.0", "loss.ER.gamma": "3"}}
    assert plan.configurations["best"] == configure(RunConfig(), {**written, "data": "reddit", "freeze_layers": 2})


def test_what_compare_is_asked_for_is_the_question(
    questions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []
    kept: list[bool] = []
    compare = importlib.import_module("empathy_kit.cli.compare")

    def planned(plan: Plan, *_: object) -> None:
        plans.append(plan)
        raise KitError("that is all")

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        assert command[1:4] == ["-m", "empathy_kit", "compare"]
        kept.append("--keep-models" in command)
        CliRunner().invoke(compare.compare, command[4:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(questions, "finished", lambda _: True)
    monkeypatch.setattr(questions, "is_preset", lambda: True)
    for looks in ("known_runs", "prepare"):  # for runs to copy, with plugins that are not installed here
        monkeypatch.setattr(questions, looks, lambda *_: None)
    monkeypatch.setattr(questions.subprocess, "run", run)
    monkeypatch.setattr("empathy_kit.comparison.execute.prepare", planned)
    found = CliRunner().invoke(questions.main, [*questions.QUESTIONS, "--out", str(tmp_path)])
    assert found.exit_code == 0
    assert plans == [question.plan for question in questions.QUESTIONS.values()]
    assert kept == [question.keep_models for question in questions.QUESTIONS.values()]


def test_a_run_that_depends_on_the_same_is_copied_whatever_it_is_called(
    questions: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = finished(tmp_path / "reddit-there", "T3", 0, loss="focal")
    finished(there, "T3", 1, loss="focal", options={"loss.gamma": 3})
    finished(there, "wide", 1, loss="focal", max_tokens=128)
    finished(there, "frozen", 1, loss="focal", freeze_layers=3)
    question = questions.Question(("T3", "same=--loss focal -o loss.gamma 2", "three=--loss focal -o loss.gamma 3"), seeds=2)
    out = tmp_path / "out"
    for _ in range(2):  # what is there is not copied again
        questions.prepare(question, out, load_registry(), questions.known_runs([there]))
    assert {path.name for path in (out / "runs").iterdir()} == {"T3-0", "same-0", "three-1"}
    assert (out / "runs" / "three-1" / "run.json").read_bytes() == (there / "runs" / "T3-1" / "run.json").read_bytes()
    assert capsys.readouterr().err.splitlines() == [
        "T3-0 is a copy of reddit-there's T3-0",
        "same-0 is a copy of reddit-there's T3-0",
        "three-1 is a copy of reddit-there's T3-1",
    ]


def test_a_run_of_another_version_of_a_plugin_is_not_copied(questions: ModuleType, tmp_path: Path) -> None:
    there = finished(tmp_path / "reddit-there", "T3", 0, loss="focal")
    mine = {"name": "focal", "distribution": "empathy-kit-mine", "version": "1"}
    known = []
    for digit in "01":
        rewrite_record(
            there / "runs" / "T3-0", lambda content, code=digit * 64: content["plugins"].update(loss={**mine, "sha256": code})
        )
        known += questions.known_runs([there])
    one, other = known
    assert one != other
    questions.prepare(questions.Question(("T3",), seeds=1), tmp_path / "out", load_registry(), questions.known_runs([there]))
    assert list((tmp_path / "out" / "runs").iterdir()) == []


def test_the_best_recipe_is_not_tested_before_all_of_its_parts_are_chosen(
    questions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "RESULTS", tmp_path)
    found = CliRunner().invoke(questions.main, ["best", "--out", str(tmp_path)])
    said = f"Error: best: imbalance chooses a part of it, and lacks runs in {tmp_path}; measure it, "
    said += "and put what docs/paper.md then says into the preset\n"
    assert (found.exit_code, found.output) == (1, said)
    assert list(tmp_path.iterdir()) == []
    plan = questions.QUESTIONS["imbalance"].plan
    for name, seed in plan.runs():
        (tmp_path / "reddit-imbalance" / "runs" / f"{name}-{seed}").mkdir(parents=True)
        (tmp_path / "reddit-imbalance" / "runs" / f"{name}-{seed}" / "run.json").touch()
    assert questions.finished("imbalance")
    monkeypatch.setattr(questions, "preset", lambda _: RunConfig())
    found = CliRunner().invoke(questions.main, ["best", "--out", str(tmp_path / "out")])
    said = "Error: best: --preset best is not what imbalance chose; put what docs/paper.md says into it\n"
    assert (found.exit_code, found.output) == (1, said)


def test_a_copy_that_is_stopped_is_no_run(questions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = questions.known_runs([finished(tmp_path / "reddit-there", "T3", 0, loss="focal")])
    question, out = questions.Question(("T3",), seeds=1), tmp_path / "reddit-out"

    def stopped(there: Path, folder: Path, **how: object) -> None:
        shutil.copy(there / "run.json", folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(questions.shutil, "copytree", stopped)
        with pytest.raises(KeyboardInterrupt):
            questions.prepare(question, out, load_registry(), known)
    assert questions.known_runs([out]) == {}
    questions.prepare(question, out, load_registry(), known)
    assert list(questions.known_runs([out]).values()) == [out / "runs" / "T3-0"]


def test_the_runs_whose_time_is_compared_are_made_together(
    questions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path / "reddit-there", "T3", 0, loss="focal")
    for name in ("learning", "sharing"):
        monkeypatch.setitem(questions.QUESTIONS, name, replace(questions.QUESTIONS[name], seeds=1))
    monkeypatch.setattr(questions, "RESULTS", tmp_path / "none")
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(questions.subprocess, "run", run)
    found = CliRunner().invoke(questions.main, ["learning", "sharing", "--out", str(tmp_path)])
    assert found.exit_code == 0
    assert [path.name for path in (tmp_path / "reddit-learning" / "runs").iterdir()] == ["T3-0"]
    assert list((tmp_path / "reddit-sharing" / "runs").iterdir()) == []
    assert [command[4] for command in asked] == ["T3", "T1"]
