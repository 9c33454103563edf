"""A process that does one run, and the events that it reports through a pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from empathy_kit.config import RunConfig
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry, one_line
from empathy_kit.runs.quiet import quiet_libraries
from empathy_kit.runs.repeat import Original
from empathy_kit.runs.train import Opened, run

GRACE = 1.5  # seconds that a run has to end when its parent has died
KEEPING = 20.0  # seconds that an interrupted run has to write its state
PATIENCE = 30.0  # seconds to wait for a process of an earlier call, which should end within GRACE


@dataclass(frozen=True)
class Progress:
    """The progress of one run."""

    name: str
    seed: int
    share: float  # of its steps, 0 to 1
    text: str
    seconds: float  # since it was started


@dataclass(frozen=True)
class Warned:
    """One run has a warning for the user."""

    name: str
    seed: int
    text: str


@dataclass(frozen=True)
class Done:
    """One run is complete: just finished, or found complete."""

    name: str
    seed: int
    found: bool
    seconds: float


@dataclass(frozen=True)
class Failed:
    """One run ended without a result; the others continue."""

    name: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Order:
    """A run to do, in whatever process."""

    name: str
    seed: int
    config: RunConfig
    folder: Path
    keep_model: bool
    files: tuple[Path, ...]  # plugins, each one Python file
    expected: Mapping[str, str]  # hashes of what it must share with finished runs

    def events(self) -> Generator[Any, None, None]:
        """Do it in this process."""
        registry = load_registry(self.files)
        return run(
            self.config, registry, self.folder, wait=PATIENCE, keep_model=self.keep_model, original=Original(self.expected)
        )


@dataclass
class Worker:
    """One run's process, as its parent sees it."""

    name: str
    seed: int
    connection: Any  # returned by multiprocessing's Pipe; its class differs on Windows
    process: Any
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, order: Order) -> Worker:
        """Start a run."""
        # Spawned: a fork would inherit torch's threads in an undefined state.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        # In the environment too: OpenMP counts its threads when torch is imported, before --threads is read.
        with _environment("OMP_NUM_THREADS", str(order.config.threads)):
            process = context.Process(target=_work, args=(theirs, order), daemon=True)
            process.start()
        theirs.close()
        return cls(order.name, order.seed, ours, process)

    def receive(self) -> Progress | Warned | Done | Failed:
        """The next event; blocks until there is one."""
        seconds = time.monotonic() - self.started
        try:
            kind, share, text = self.connection.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            return Failed(self.name, self.seed, f"its process ended with {how}")
        if kind == "done":
            return Done(self.name, self.seed, False, seconds)
        if kind == "warning":
            return Warned(self.name, self.seed, text)
        return Failed(self.name, self.seed, text) if kind == "failed" else Progress(self.name, self.seed, share, text, seconds)

    def interrupt(self) -> None:
        """Ask the run to end; it writes its state first, where it is training."""
        self.connection.close()
        self.process.terminate()

    def stop(self, seconds: float = GRACE) -> None:
        """End the process, whatever it is doing, after some time to end by itself."""
        self.connection.close()
        self.process.join(timeout=seconds)
        for end in ("terminate", "kill"):
            if self.process.is_alive():
                getattr(self.process, end)()
                self.process.join(timeout=GRACE)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _work(connection: Any, order: Order) -> None:
    """Do one run in this process; ends when the parent has ended."""
    quiet_libraries()
    try:
        end_with_parent()
        with closing(order.events()) as events:
            _report(connection, events, order.config)
    except (BrokenPipeError, KeyboardInterrupt):
        if multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread():
            os._exit(1)  # all is cleaned up; to unload torch can take seconds, in which no thread of Python's could end this
    except KitError as error:
        _send(connection, "failed", 0.0, str(error))
    except Exception as error:
        _send(connection, "failed", 0.0, f"{type(error).__name__}: {one_line(error)}")
        raise  # the process prints where


def _send(connection: Any, *event: object) -> None:
    with suppress(OSError):  # the parent has ended
        connection.send(event)


def end_with_parent() -> None:
    """Interrupt this process when it is terminated or when its parent has ended.

    Otherwise the run would continue in vain and use the cores.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread has signals
        return
    signal.signal(signal.SIGTERM, _interrupt)
    parent = multiprocessing.parent_process()
    if parent is not None:
        _signalled_by_the_system(parent.pid)
        threading.Thread(target=_watch, args=(parent.sentinel, threading.main_thread().ident), daemon=True).start()


def _signalled_by_the_system(parent: int | None) -> None:
    """Have Linux send SIGTERM when the parent ends: at once, and without a thread that must be given its turn."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it has ended before this was asked for
        signal.raise_signal(signal.SIGTERM)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # only once: it is cleaning up
    raise KeyboardInterrupt


def _watch(parent: int, main: int) -> None:
    wait([parent])
    if sys.platform == "win32":
        import _thread

        _thread.interrupt_main()
    else:
        signal.pthread_kill(main, signal.SIGTERM)  # a signal also interrupts waiting for a child, such as a compiler
    time.sleep(GRACE)
    os._exit(1)  # without cleaning up; the next writer removes the leftovers


def _report(connection: Any, events: Iterable[Any], config: RunConfig) -> None:
    from empathy_kit.core.state import Epoch
    from empathy_kit.core.trainer import Step
    from empathy_kit.runs.keeping import Unkept

    reported = reached = 0.0
    for event in events:
        if isinstance(event, Step):
            if time.monotonic() - reported > 0.5:
                reported = time.monotonic()
                reached = event.taken / (event.steps * config.epochs)
                connection.send(("step", reached, f"epoch {event.epoch}, loss {event.loss:.3f}"))
        elif isinstance(event, Unkept):
            connection.send(("step", reached, str(event)))
        elif isinstance(event, Epoch):
            text = f"epoch {event.epoch} validated, macro F1 {event.mean_macro_f1:.3f}"
            reached = event.epoch / config.epochs
            connection.send(("step", reached, text))
        elif isinstance(event, Opened):
            for text in event.warnings:
                connection.send(("warning", reached, text))
    connection.send(("done", 1.0, ""))
