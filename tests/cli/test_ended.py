"""Commands that are ended from outside: they keep what they have, and take along what they have begun."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from empathy_kit.runs.checkpoints import folders

Forked = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")

SMALL = "--threads 1 --max-tokens 16 -o trunk.hidden 16 -o trunk.layers 1"
FOR_MINUTES = [*SMALL.split(), "--epochs", "500", "--patience", "500"]


def ended(forked: Forked, folder: Path, encoder: Path, *arguments: object) -> list[str]:
    """What a command told that was terminated while it trained."""
    script = Path(__file__).with_name("ended.py")
    assert forked(script, folder, *arguments, "--encoder", encoder, *FOR_MINUTES).returncode == 128 + signal.SIGTERM
    return [line for line in (folder / "told").read_text("utf-8").splitlines() if line]


def test_a_run_that_is_terminated_keeps_its_state_and_says_how_it_is_continued(
    forked: Forked, tiny_roberta: Path, tmp_path: Path
) -> None:
    out, partial = tmp_path / "runs" / "run", tmp_path / "runs" / "run.partial"
    told = ended(forked, tmp_path, tiny_roberta, "run", "--out", out)
    at = next(at for at, line in enumerate(told) if line.startswith("epoch 1:"))
    left = [line for line in told[at:] if not line.startswith("epoch ")]
    assert left == [f"stopped; `empathy-kit run --resume {partial}` continues it", "Aborted!"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run.partial"]
    assert 1 <= len(folders(partial)) <= 2


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_comparison_that_is_terminated_takes_its_run_along(forked: Forked, tiny_roberta: Path, tmp_path: Path) -> None:
    """As does one that is killed: tests/comparison/test_worker.py."""
    out = tmp_path / "out"
    told = ended(forked, tmp_path, tiny_roberta, "compare", "T1", "--seeds", 1, "--jobs", 1, "--out", out)
    assert told == ["Aborted!"]
    workers = [int(pid) for pid in (tmp_path / "workers").read_text().split()]
    assert workers
    latest = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < latest
        time.sleep(0.05)
    assert [path.name for path in (out / "runs").iterdir()] == ["T1-0.partial"]


# Ctrl-C while the named module is loaded: at a statement of its own, and while it builds a class.
INTERRUPTED = """
import sys
from empathy_kit.__main__ import main

class CtrlC:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            exec(statement)

_, module, statement = sys.argv
sys.meta_path.insert(0, Finder())
sys.argv = ["empathy-kit", "plugins", "list"]
main()
"""


@pytest.mark.parametrize("statement", ["raise KeyboardInterrupt", "type('Config', (), {'field': CtrlC()})"])
@pytest.mark.parametrize("module", ["empathy_kit.cli.run", "empathy_kit.discovery"], ids=["command line", "command"])
def test_ctrl_c_while_modules_are_loaded_is_one_line(module: str, statement: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, statement],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (1, "", "Aborted!")
