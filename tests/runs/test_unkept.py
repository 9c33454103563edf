"""A run whose state cannot be written: it goes on, and what is finished is not lost."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from resume_world import STEPS, Run, finish, focal, without_clocks

from empathy_kit.contracts import Loss
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.processes import Lost
from empathy_kit.core.trainer import Step, Trainer
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry
from empathy_kit.runs import checkpoints
from empathy_kit.runs.keeping import Unkept
from empathy_kit.runs.reservation import Reservation
from empathy_kit.runs.train import run


def test_a_lost_process_keeps_the_state_whoever_made_the_plugins(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step raises would come back, and clears the state; that another process has gone would not."""
    registry = load_registry().with_specs(Loss("mine", lambda task: cross_entropy))
    step, left = Trainer.step, [3]

    def lost(self: Trainer, *arguments: Any) -> float:
        left[0] -= 1
        if left[0] < 0:
            raise Lost("rank 1 has ended")
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", lost)
    with pytest.raises(KitError) as error:
        list(run(focal(tiny_roberta, loss="mine", options={}), registry, tmp_path / "run", minutes=0))
    assert str(error.value) == f"rank 1 has ended; the run's state is in {tmp_path / 'run.partial'}, for --resume"
    assert checkpoints.folders(tmp_path / "run.partial")


def test_a_full_disk_stops_no_training_and_is_told_once(
    first: Run, tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = checkpoints._write, [3]

    def write(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, os.strerror(28))
        real(*arguments)

    monkeypatch.setattr(checkpoints, "_write", write)
    kept, told, steps = [], [], 0
    for event in run(focal(tiny_roberta), load_registry(), tmp_path / "run", minutes=0):
        told += [str(event)] if isinstance(event, Unkept) else []
        steps += isinstance(event, Step)
        if steps == STEPS:
            kept = [folder.name for folder in checkpoints.folders(tmp_path / "run.partial")]
    assert told == [
        "the run's state cannot be written: No space left on device; training continues, and what was written before is kept"
    ]
    assert kept == ["checkpoint-2", "checkpoint-1"]
    assert without_clocks(tmp_path / "run") == without_clocks(first[0])


def test_a_finished_run_that_can_be_written_nowhere_keeps_its_state(
    first: Run, tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **how: Any) -> Path:
        raise OSError(28, os.strerror(28))

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        patch.setattr(Reservation, "_finish", full)
        with pytest.raises(KitError) as error:
            finish(focal(tiny_roberta), out)
    assert str(error.value) == (
        f"--out {out}: cannot be written: No space left on device; the run's state is in {out}.partial, for --resume"
    )
    assert len(finish(focal(tiny_roberta), out)) == 2  # nothing is left to train
    assert without_clocks(out) == without_clocks(first[0])


@pytest.mark.parametrize("written", [0, 1])  # the second checkpoint is the first with a state
def test_a_state_that_could_not_be_written_is_not_told_of(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    real, left = checkpoints._write, [written]

    def write(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, os.strerror(28))
        real(*arguments)

    def full(*arguments: Any, **how: Any) -> Path:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoints, "_write", write)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Reservation, "_finish", full)
    with pytest.raises(KitError) as error:
        finish(focal(tiny_roberta, epochs=1), tmp_path / "run")
    assert str(error.value) == f"--out {tmp_path / 'run'}: cannot be written: No space left on device"
