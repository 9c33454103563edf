"""A process that does one run for a comparison."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_a_process_whose_parent_is_killed_ends_soon_whatever_it_is_doing(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, os, time\n"
        "from empathy_kit.comparison.worker import _work\n"
        "from empathy_kit.runs.signals import held\n"
        "class Order:\n"
        "    def events(self):\n"
        "        with held():\n"  # a step that takes long
        "            print(os.getpid(), flush=True)\n"
        "            while True: time.sleep(0.05)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=_work, args=(None, Order()))\n"
        "    process.start(); process.join()\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        killed = time.monotonic()
        parent.stdout.read()  # until the child, too, has closed it
    assert time.monotonic() - killed < 2 + 3  # the promise, and a busy machine
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return  # ended, and nobody has asked for its exit code
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived its parent")
