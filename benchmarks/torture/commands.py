"""The kit's command line in processes: forked from this one, which has imported torch already, or started cold."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

HELD = (signal.SIGINT, signal.SIGTERM)
LONGEST = 120.0  # seconds that any command may take


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int  # negative: the signal that ended it
    text: str  # all that it printed
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether it ended with one line that says why."""
        errors = [line for line in self.text.splitlines() if line.startswith("Error: ")]
        return self.code == 2 and len(errors) == 1 and not self.broken

    @property
    def broken(self) -> bool:
        """Whether it ended with a traceback."""
        return "Traceback (most recent call last)" in self.text


def expect(held: object, why: str) -> None:
    """End a trial as lost unless this holds."""
    from benchmarks.torture.trials import LostError

    if not held:
        raise LostError(why)


class Started:
    """A command's process."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log
        self.began = time.monotonic()
        self._code: int | None = None

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; whether it was still running."""
        if not self.is_running():
            return False
        os.kill(self.pid, number)
        return True

    def wait(self, longest: float = LONGEST) -> Ended:
        """Wait until it has ended; one that never ends is a loss."""
        while self.is_running():
            if time.monotonic() - self.began > longest:
                self.send(signal.SIGKILL)
                expect(False, f"hangs for {longest:.0f} s")
            time.sleep(0.002)
        assert self._code is not None
        return Ended(self._code, self.log.read_text(errors="replace"), time.monotonic() - self.began)


def start(
    arguments: Sequence[str], log: Path, *, before: Callable[[], Any] | None = None, after: Callable[[], Any] | None = None
) -> Started:
    """Fork this process and run a command in the child, its output in a file; ``before`` and ``after`` are called there."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Until the command begins, a signal waits: in a process that a user starts, there is no such time.
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    child = os.fork()
    if not child:
        _command(arguments, log, before, after)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    return Started(child, log)


def in_child(work: Callable[[], Any]) -> int:
    """Call something in a forked process, so that this one never uses torch itself; the exit code."""
    child = os.fork()
    if not child:
        code = 99
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def cold(arguments: Sequence[str], log: Path) -> Started:
    """Start a command as a user does, in a new process."""
    to_log = [(os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    command = [sys.executable, "-m", "empathy_kit", *arguments]
    return Started(os.posix_spawn(sys.executable, command, os.environ, file_actions=to_log, setsigdef=[signal.SIGINT]), log)


def call(arguments: Sequence[str], log: Path, **how: Any) -> Ended:
    """A command in a forked process, to its end."""
    return start(arguments, log, **how).wait()


def _command(arguments: Sequence[str], log: Path, before: Callable[[], Any] | None, after: Callable[[], Any] | None) -> NoReturn:
    code = 99
    try:
        _print_to(log)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where this was started in the background
        _fork_workers()
        if before is not None:
            before()
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
            code = here(arguments)
            signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        except KeyboardInterrupt:  # before the command has begun, or just after it
            code = 130
        if after is not None:
            after()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code & 0xFF)


def here(arguments: Sequence[str]) -> int:
    """A command in this process; its exit code."""
    from empathy_kit.__main__ import main

    sys.argv = ["empathy-kit", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    return 0


def told(arguments: Sequence[str]) -> Ended:
    """A command in this process, with all that it prints."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        kept = os.dup(1), os.dup(2)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                code = here(arguments)
            except Exception:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            for descriptor, number in zip(kept, (1, 2), strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
        log.seek(0)
        return Ended(code, log.read().decode(errors="replace"), time.monotonic() - began)


def _print_to(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _fork_workers() -> None:
    """Have a comparison fork its runs from this process too: it has used torch for nothing yet, so no thread is left behind."""
    real = multiprocessing.get_context
    multiprocessing.get_context = lambda _=None: real("fork")  # type: ignore[assignment]
