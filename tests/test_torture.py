"""A few trials of every experiment of benchmarks/torture, in which whatever is injected must be survived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NAMES = (
    "kill-run", "kill-writing", "terminate", "interrupt", "flip", "damage", "full-disk", "clock", "read-only", "two-at-once",
    "tables", "settings", "plans", "run-folders", "encoder-folders",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and takes rights as Linux has them")


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each experiment has counted: in a process of its own, because a fork of one that has used torch may hang."""
    out = tmp_path_factory.mktemp("torture")
    command = [sys.executable, "-m", "benchmarks.torture", "all", "--few", "--out", str(out)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONPATH": path})
    assert ended.returncode in (0, 1), ended.stderr
    return {path.stem: json.loads(path.read_text("utf-8")) for path in out.iterdir()}


def test_every_experiment_is_tried(counts: dict[str, Any]) -> None:
    assert sorted(counts) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_trial_is_survived(counts: dict[str, Any], name: str) -> None:
    found = counts[name]
    assert found["lost"] == []
    assert found["tried"] == found["survived"] == sum(found["endings"].values()) > 0
