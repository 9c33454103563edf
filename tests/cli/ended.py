"""`empathy-kit`, which is terminated once it has kept a state of its training.

Usage: ended.py FOLDER ARGUMENTS. In the folder are then ``told``, its stderr, and ``workers``, the processes that it had begun.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread

from empathy_kit.cli import main
from empathy_kit.runs.checkpoints import TENSORS


def descendants(pid: int) -> list[int]:
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


def _end(folder: Path, line: bytes) -> None:
    while not any(folder.glob(f"**/*.partial/checkpoint-*/{TENSORS}")) or line not in (folder / "told").read_bytes():
        time.sleep(0.05)
    (folder / "workers").write_text(" ".join(map(str, descendants(os.getpid()))))
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":  # not in a worker, which imports this file
    place = Path(sys.argv.pop(1))
    os.dup2(os.open(place / "told", os.O_WRONLY | os.O_CREAT), 2)
    first = b"epoch 1:" if sys.argv[1] == "run" else b""  # another thread than that which tells it keeps the state
    Thread(target=_end, args=(place, first), daemon=True).start()
    main()
