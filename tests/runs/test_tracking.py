"""`run --tracker` and `runs export`: what a tracker gets, and that none can harm a run."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from made_run import make_run
from run_world import Said, configuration, flags

from empathy_kit import Sampler
from empathy_kit.config import RunConfig
from empathy_kit.errors import KitError
from empathy_kit.plugins import Provided, Registry, load_registry
from empathy_kit.runs import record, tracking
from empathy_kit.runs.train import Finished, run

tracking_of = pytest.importorskip("accelerate.tracking", reason="the extra track is not installed")
Command = Callable[..., Said]
TASKS = ("ER", "EX", "IP")
SCORES = {f"{task}/{score}" for task in TASKS for score in ("accuracy", "macro_f1")}
TEST = {f"test/{name}" for name in (*SCORES, *(f"{task}/weighted_f1" for task in TASKS))}
EPOCH = {"epoch", "train/loss", "train/pairs_per_second", "validation/loss", *(f"validation/{name}" for name in SCORES)}


class Logged(NamedTuple):
    """What one run's tracker got."""

    run: str
    settings: dict[str, Any]
    values: list[tuple[int, dict[str, float]]]  # by the optimiser's step
    calls: list[str]


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> list[Logged]:
    """A tracker called ``listed`` that keeps what it gets, and draws random numbers as some do for a name."""
    made: list[Logged] = []

    class Listed(tracking_of.GeneralTracker):
        name, requires_logging_directory, tracker = "listed", True, None

        def __init__(self, run_name: str, logging_dir: str) -> None:
            self.kept = Logged(run_name, {}, [], [])
            made.append(self.kept)

        def start(self) -> None:
            self.kept.calls.append("start")
            random.random(), np.random.random(), torch.rand(1)

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.kept.settings.update(values)

        def log(self, values: dict[str, float], step: int) -> None:
            self.kept.values.append((step, values))
            torch.rand(1)

        def finish(self) -> None:
            self.kept.calls.append("finish")

    offer(monkeypatch, Listed)
    return made


def offer(monkeypatch: pytest.MonkeyPatch, tracker: Any) -> None:
    monkeypatch.setitem(tracking_of.LOGGER_TYPE_TO_CLASS, tracker.name, tracker)
    monkeypatch.setattr(tracking_of, "get_available_trackers", lambda: [tracker.name])


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard draws of a run."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def bytes_of(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("predictions.csv", "model/model.safetensors")}


def test_a_tracker_gets_settings_steps_epochs_and_scores_and_moves_no_number(
    trackers: list[Logged], tiny_roberta: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.0)
    both = [*flags(tiny_roberta), "--epochs", 2]
    assert command("run", *both, "--out", tmp_path / "plain").code == 0
    assert command("run", *both, "--out", tmp_path / "seen", "--tracker", "listed").code == 0
    assert bytes_of(tmp_path / "plain") == bytes_of(tmp_path / "seen")
    (kept,) = trackers
    assert (kept.run, kept.calls) == ("seen", ["start", "finish"])
    assert kept.settings["epochs"] == 2
    assert kept.settings["trunk.hidden"] == "16"
    assert all(type(value) in (bool, int, float, str) for value in kept.settings.values())
    history = record.read_history(tmp_path / "seen", TASKS)
    steps = history[0]["steps"]
    assert [at for at, values in kept.values if "train/step_loss" in values] == list(range(1, 2 * steps + 1))
    epochs = [(at, values) for at, values in kept.values if "epoch" in values]
    assert [(at, set(values)) for at, values in epochs] == [(steps, EPOCH), (2 * steps, EPOCH)]
    assert [values["train/loss"] for _, values in epochs] == [epoch["train_loss"] for epoch in history]
    at, last = kept.values[-1]
    assert (at, set(last)) == (2 * steps, TEST)
    assert kept.settings["oracle"] is False


def test_an_oracles_scores_are_never_drawn_with_those_of_a_run_that_sees_no_spans(
    trackers: list[Logged], tiny_roberta: Path, tmp_path: Path, command: Command
) -> None:
    both = [*flags(tiny_roberta), "--rationale", "gold", "--out", tmp_path / "oracle"]
    assert command("run", *both, "--tracker", "listed").code == 0
    assert command("runs", "export", tmp_path / "oracle", "--tracker", "listed").code == 0
    for kept in trackers:
        assert kept.settings["oracle"] is True
        names = {name for _, values in kept.values for name in values if name.partition("/")[0] not in ("train", "epoch")}
        assert names == {
            name.replace("test/", "test_ORACLE/").replace("validation/", "validation_ORACLE/")
            for name in (TEST | EPOCH)
            if name.startswith(("test", "validation"))
        }
        assert all(re.fullmatch(r"[\w/]+", name) for name in names)  # what no tracker refuses or replaces
    assert len(trackers) == 2


def test_the_x_axis_counts_the_optimizers_steps_where_epochs_differ_in_length(
    trackers: list[Logged], tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.0)
    sizes = iter((130, 130, 64))  # the first before training; then an epoch of three batches, and one of a single batch
    uneven = Sampler("uneven", lambda tasks, labels: lambda generator: torch.arange(next(sizes)))
    registry = Registry((*load_registry().provided, Provided("sampler", uneven, "mine", "1")))
    events = run(configuration(tiny_roberta, sampler="uneven", epochs=2), registry, tmp_path / "run")
    list(tracking.track(events, tracking.Tracker("listed", tmp_path / "run")))
    (kept,) = trackers
    assert [at for at, values in kept.values if "train/step_loss" in values] == [1, 2, 3, 4]
    assert [at for at, values in kept.values if "epoch" in values] == [3, 4]


def test_a_run_that_is_exported_later_has_the_curves_of_one_that_was_watched(
    tiny_roberta: Path, tmp_path: Path, command: Command
) -> None:
    watched = tmp_path / "watched"
    assert command("run", *flags(tiny_roberta), "--out", watched, "--tracker", "tensorboard").code == 0
    seen = curves(tmp_path / "tensorboard" / "watched")
    assert {tag for tag in seen if "/" in tag} >= {"train/step_loss", "validation/loss", "test/ER/accuracy"}
    (tmp_path / "tensorboard").rename(tmp_path / "before")
    said = command("runs", "export", tmp_path, "--tracker", "tensorboard")
    assert said.out.splitlines() == [f"{watched}: logged to tensorboard in {tmp_path / 'tensorboard' / 'watched'}"]
    del seen["train/step_loss"]
    assert curves(tmp_path / "tensorboard" / "watched") == seen
    again = command("runs", "export", watched, "--tracker", "tensorboard")
    assert (again.code, again.out) == (2, "")
    assert "exists already; delete it to log" in again.err
    shutil.copytree(watched, tmp_path / "younger")  # one that is new is logged, and the other is left alone
    both = command("runs", "export", tmp_path, "--tracker", "tensorboard")
    new = tmp_path / "younger"
    assert (both.code, both.out) == (0, f"{new}: logged to tensorboard in {tmp_path / 'tensorboard' / 'younger'}\n")
    assert both.err.splitlines()[-1].startswith(f"left alone: {tmp_path / 'tensorboard' / 'watched'}: exists already; ")


@pytest.mark.parametrize("broken", ["start", "store_init_configuration", "log", "finish"])
def test_a_tracker_that_fails_costs_one_line_and_nothing_else(
    broken: str, trackers: list[Logged], tiny_roberta: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **named: object) -> None:
        raise ConnectionError("no answer\x1b[2J")

    listed = tracking_of.LOGGER_TYPE_TO_CLASS["listed"]
    monkeypatch.setattr(listed, broken, fail)
    said = command("run", *flags(tiny_roberta), "--out", tmp_path / "run", "--tracker", "listed")
    assert said.code == 0
    (warning,) = [line for line in said.err.splitlines() if "listed" in line]
    assert warning.startswith(r"warning: --tracker listed: ConnectionError: no answer\x1b[2J; the run continues")
    record.verify(tmp_path / "run")


def test_a_run_that_fails_ends_in_the_tracker_too(trackers: list[Logged]) -> None:
    def events() -> Iterator[Any]:
        raise KitError("no such data")
        yield

    with pytest.raises(KitError, match="no such data"):
        list(tracking.track(events(), tracking.Tracker("listed", Path("run"))))
    assert not trackers  # it was never begun


def test_a_run_that_only_lacked_its_name_is_not_begun_anew_in_the_tracker(trackers: list[Logged], tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    event = Finished(record.read(folder), folder)
    assert list(tracking.track((each for each in [event]), tracking.Tracker("listed", folder))) == [event]
    assert not trackers


def test_what_is_not_there_is_refused_before_anything_is_trained(
    trackers: list[Logged], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, wrong in (("nosuch", "unknown, expected one of aim, "), ("wandb", "the package wandb is not installed")):
        said = command("run", "--out", tmp_path / "run", "--tracker", name)
        assert (said.code, said.out) == (2, "")
        assert f"--tracker {name}: {wrong}" in said.err
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    said = command("run", "--out", tmp_path / "run", "--tracker", "tensorboard")
    assert "pip install 'empathy-kit[track]' tensorboard" in said.err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def unasked() -> Iterator[Any]:
    """Accelerate before anybody has asked it which process this is."""
    from accelerate import PartialState

    PartialState._reset_state()
    yield PartialState
    PartialState._reset_state()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOCAL_RANK", "0"),
        ("PMI_SIZE", "2"),
        ("OMPI_COMM_WORLD_SIZE", "2"),
        ("MV2_COMM_WORLD_SIZE", "2"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
        ("ACCELERATE_USE_SAGEMAKER", "true"),
        ("ACCELERATE_CPU_AFFINITY", "true"),
    ],
)
def test_no_variable_of_a_launcher_or_of_accelerate_reaches_a_run_by_its_tracker(
    trackers: list[Logged], unasked: Any, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("waits for processes that do not exist, or moves this one")

    monkeypatch.setattr(torch.distributed, "init_process_group", refuse)
    monkeypatch.setattr("accelerate.state.set_numa_affinity", refuse)
    monkeypatch.setattr(torch, "set_num_threads", refuse)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    tracking.Tracker("listed", Path("run")).start(RunConfig(), oracle=False)
    assert (unasked().num_processes, unasked().device.type) == (1, "cpu")
    assert dict(os.environ) == before
    assert trackers[0].calls == ["start"]


def test_a_setting_reaches_a_tracker_as_a_plain_value(trackers: list[Logged]) -> None:
    for clip, told in ((1.0, 1.0), (None, "none")):
        tracking.Tracker("listed", Path("run")).start(RunConfig(clip=clip), oracle=False)
        assert trackers[-1].settings["clip"] == told
        assert trackers[-1].settings["schema"] == "ER: 0, 1, 2; EX: 0, 1, 2; IP: 0, 1, 2"
