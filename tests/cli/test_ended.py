"""Commands that are ended from outside: by SIGTERM, by Ctrl-C, and by the death of the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from empathy_kit.runs.checkpoints import folders

LONG = [
    "--epochs",
    "500",
    "--patience",
    "500",
    "--threads",
    "1",
    "--max-tokens",
    "16",
    "-o",
    "trunk.hidden",
    "16",
    "-o",
    "trunk.layers",
    "1",
]


def begin(encoder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command that would train for many minutes."""
    command = [sys.executable, "-m", "empathy_kit", *arguments, "--encoder", str(encoder), *LONG]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def until(done: Callable[[], object], what: str) -> None:
    for _ in range(1200):
        if done():
            return
        time.sleep(0.1)
    pytest.fail(f"{what} did not happen within two minutes")


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    _, err = process.communicate(timeout=60)
    return err.splitlines()


def test_a_run_that_is_terminated_keeps_its_state_and_says_how_it_is_continued(tiny_roberta: Path, tmp_path: Path) -> None:
    partial = tmp_path / "runs" / "run.partial"
    with begin(tiny_roberta, "run", "--out", str(tmp_path / "runs" / "run")) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch 1:"))
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run.partial"]
        process.terminate()
        left = [line for line in lines_of(process) if line and not line.startswith("epoch ")]
    said = f"stopped; `empathy-kit run --resume {partial}` continues it"
    assert (process.returncode, left) == (143, [said, "Aborted!"])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run.partial"]
    assert 1 <= len(folders(partial)) <= 2


def alive(pids: Sequence[int]) -> list[int]:
    found = []
    for pid in pids:
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
            found.append(pid)
    return found


def descendants(pid: int) -> list[int]:
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_comparison_that_is_ended_takes_its_run_along(tiny_roberta: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    arguments = ("compare", "T1", "--seeds", "1", "--jobs", "1", "--out", str(out))
    with begin(tiny_roberta, *arguments) as process:
        until(lambda: len(list(out.glob("runs/*.partial"))) == 1, "the beginning of its run")
        until(lambda: any(folders(partial) for partial in out.glob("runs/*.partial")), "its training")
        workers = descendants(process.pid)
        assert workers
        os.kill(process.pid, number)
        ended = time.monotonic()
        told = lines_of(process)  # until the last of them has closed stderr
    assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    assert [line for line in told if line] == ([] if number == signal.SIGKILL else ["Aborted!"])
    until(lambda: not alive(workers), "the end of the workers")
    if number == signal.SIGKILL:
        assert time.monotonic() - ended < 5  # 2 on a machine that has nothing else to do
    assert {path.name for path in (out / "runs").iterdir()} <= {"T1-0.partial"}
