"""`pytest --benchmark` in a plugin author's own repository, and what it costs everybody else's pytest: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import empathy_kit

MINE = '''
from empathy_kit import Loss, hookimpl

def mine(task, *, alpha: float = 0.3):
    """Cross-entropy, smoothed."""
    import torch.nn.functional as F
    return lambda logits, target: F.cross_entropy(logits, target, reduction="none", label_smoothing=alpha)

def asking(task, *, alpha: float): ...

@hookimpl
def empathy_kit_losses():
    yield Loss("mine", mine)
    yield Loss("asking", asking)
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An author's folder: a loss that is installed, a test and a benchmark of their own."""
    (tmp_path / "empathy_kit_mine.py").write_text(MINE)
    installed = tmp_path / "empathy_kit_mine-0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: empathy-kit-mine\nVersion: 0.1\n")
    (installed / "entry_points.txt").write_text("[empathy_kit]\nmine = empathy_kit_mine\n")
    for folder, name in (("tests", "test_mine"), ("benchmarks", "test_speed")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(f"def {name}(): pass\n")
    return tmp_path


def author_runs(repository: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of pytest in the author's folder."""
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments],  # slow to import
        cwd=repository,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(Path(empathy_kit.__file__).parents[1])])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return process.returncode, process.stdout + process.stderr


def test_with_the_flag_the_authors_benchmarks_run_and_every_loss_is_timed(repository: Path) -> None:
    # Disabled, each benchmark runs once and is not timed: what runs is what is asked here.
    code, said = author_runs(repository, "--benchmark", "--benchmark-disable", "-v", "-k", "test_speed or 32x3")
    assert code == 0
    assert "benchmarks/test_speed.py::test_speed PASSED" in said
    for name in ("ce", "focal", "weighted", "mine"):
        assert f"test_forward_and_backward[{name}-32x3] PASSED" in said
    assert "test_forward_and_backward[asking-32x3] SKIPPED" in said  # of an option without a default
    assert "test_mine.py" not in said


def test_without_the_flag_nothing_is_added(repository: Path) -> None:
    code, said = author_runs(repository, "tests", "-v")
    assert code == 0
    assert "tests/test_mine.py::test_mine PASSED" in said
    assert "1 passed" in said


def test_files_that_are_named_are_what_runs(repository: Path) -> None:
    code, said = author_runs(repository, "--benchmark", "benchmarks/test_speed.py", "-v")
    assert code == 0
    assert "1 passed" in said


def test_without_pytest_benchmark_the_flag_says_what_is_missing(repository: Path) -> None:
    code, said = author_runs(repository, "--benchmark", "-p", "no:benchmark")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert said.strip().splitlines()[-1] == (
        "ERROR: --benchmark needs pytest-benchmark, expected it to be installed: pip install pytest-benchmark"
    )


def test_the_kit_costs_every_other_pytest_next_to_nothing() -> None:
    code = "import pytest, sys; before = set(sys.modules); import empathy_kit.pytest_plugin; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    others = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert others == {"empathy_kit"}  # and pluggy, which is pytest's own
    kits = {name for name in loaded if name.startswith("empathy_kit.")}
    assert kits == {f"empathy_kit.{name}" for name in ("contracts", "errors", "hookspecs", "pytest_plugin")}
