"""`empathy-kit` in several processes, some of which fail, as torchrun runs this file.

Usage: faulty.py killed|missing ARGUMENTS
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from empathy_kit.cli import main
from empathy_kit.core.trainer import Trainer

_step = Trainer.step


def _killed(trainer: Trainer, *arguments: Any) -> float:
    """The second process dies in the second step."""
    if arguments[1].step == 1:
        sys.stderr.write(f"dies at {time.monotonic()}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return _step(trainer, *arguments)


how = sys.argv.pop(1)
if how == "killed" and os.environ["RANK"] == "1":
    Trainer.step = _killed  # type: ignore[method-assign]
if how == "missing" and os.environ["RANK"] != "0":
    sys.argv += ["--data", "missing.csv"]
try:
    main()
finally:
    if how == "killed":
        sys.stderr.write(f"ends at {time.monotonic()}\n")
        sys.stderr.flush()
