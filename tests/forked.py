"""Runs scripts in processes that are forked from this one, which has imported torch: that takes longer than most of them do.

A line of stdin is a command as JSON: the script, or a module's name before it, its arguments, and variables of the environment; a
line of stdout is its exit code. What it prints is in the two files that are named as this is started.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from importlib import import_module
from pathlib import Path

BEFOREHAND = (
    "torch.distributed.run",
    "transformers.models.roberta.modeling_roberta",
    "empathy_kit.core.trainer",
    "empathy_kit.runs.train",
)
LONGEST = 300  # seconds, after which a command is terminated


def begin(arguments: list[str], environment: dict[str, str], outputs: list[str]) -> None:
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(environment)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))  # which torchrun passes on
    signal.alarm(LONGEST)
    sys.argv = arguments
    (script,) = [part for part in arguments if part.endswith(".py")]
    sys.path.insert(0, str(Path(script).parent))
    if arguments[0] == script:
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def main(outputs: list[str]) -> None:
    def reset() -> None:
        """As in a process that is started: without torchrun's handlers, and without what a shell makes its background ignore."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=reset)
    for name in BEFOREHAND:
        import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            begin(*json.loads(line), outputs)
            return
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
