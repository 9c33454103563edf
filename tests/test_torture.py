"""A few trials of every experiment of benchmarks/torture, in which whatever is injected must be survived."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NAMES = (
    "kill-run", "kill-writing", "interrupt", "flip", "damage", "full-disk", "clock", "read-only", "two-at-once",
    "tables", "settings", "plans", "run-folders", "encoder-folders",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and takes rights as Linux has them")


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each experiment has counted: in a process of its own, because a fork of one that has used torch may hang."""
    out = tmp_path_factory.mktemp("torture")
    command = [sys.executable, "-m", "benchmarks.torture", "all", "--few", "--out", str(out)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, env={**os.environ, "PYTHONPATH": path})
    assert ended.returncode in (0, 1), ended.stderr
    return {path.stem: json.loads(path.read_text("utf-8")) for path in out.iterdir()}


def test_every_experiment_is_tried(counts: dict[str, Any]) -> None:
    assert sorted(counts) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_trial_is_survived(counts: dict[str, Any], name: str) -> None:
    found = counts[name]
    assert found["lost"] == []
    assert found["tried"] == found["survived"] == sum(found["endings"].values()) > 0


def test_a_trial_that_is_lost_dies_or_never_ends_is_counted_and_the_rest_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.torture import trials
    from benchmarks.torture.world import World

    def trial(world: World, number: int, dice: random.Random) -> str:
        if number == 1:
            raise trials.LostError("other bytes")
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        while number == 3:
            pass
        if number == 4:
            os.read(os.pipe()[0], 1)
        return "held"

    monkeypatch.setattr(trials, "SECONDS", 0)
    experiment = trials.Experiment(trial, 6, "what", "survived", inside=True)
    found = trials.Count()
    for numbers, patience in ((range(4), 180.0), (range(4, 5), 0.2), (range(5, 6), 180.0)):
        monkeypatch.setattr(trials, "PATIENCE", patience)
        for number, ending, lost in trials.conduct("name", experiment, World(tmp_path), 0, numbers):
            found.add(number, ending, lost)
    assert found.as_value() == {
        "tried": 6,
        "survived": 2,
        "endings": {"held": 2},
        "lost": [
            "trial 1: other bytes",
            "trial 2: it waits for ever",
            "trial 3: it computes for more than 0 s",
            "trial 4: it waits for ever",
        ],
    }
