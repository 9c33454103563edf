"""A process that does one run, and what it reports through its pipe."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from empathy_kit.config import RunConfig
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry, one_line
from empathy_kit.runs.train import run

GRACE = 10.0  # seconds that a run has to clean up when nobody listens any more


@dataclass(frozen=True)
class Progress:
    """How far one run has come."""

    name: str
    seed: int
    share: float  # of its steps, 0 to 1
    text: str
    seconds: float  # since it was started


@dataclass(frozen=True)
class Done:
    """One run is there: just finished, or found finished."""

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


@dataclass
class Worker:
    """One run's process, as its parent sees it."""

    name: str
    seed: int
    connection: Any  # what multiprocessing's Pipe gives: one class on Windows, another elsewhere
    process: Any
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, name: str, seed: int, config: RunConfig, folder: Path, *, keep_model: bool, files: Sequence[Path]) -> Worker:
        """Begin a run."""
        # Spawned: a fork would inherit torch's threads, in whatever state they are.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        # In the environment too: OpenMP counts its threads when torch is imported, before --threads is read.
        with _environment("OMP_NUM_THREADS", str(config.threads)):
            process = context.Process(target=_work, args=(theirs, config, folder, keep_model, tuple(files)), daemon=True)
            process.start()
        theirs.close()
        return cls(name, seed, ours, process)

    def receive(self) -> Progress | Done | Failed:
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
        return Failed(self.name, self.seed, text) if kind == "failed" else Progress(self.name, self.seed, share, text, seconds)

    def stop(self) -> None:
        """End the process, wherever it is."""
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


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


def _work(connection: Any, config: RunConfig, folder: Path, keep_model: bool, files: Sequence[Path]) -> None:
    """One run, in a process of its own; ends when nobody listens any more."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _report(connection, run(config, load_registry(files), folder, keep_model=keep_model), config)
    except (BrokenPipeError, KeyboardInterrupt):
        return
    except KitError as error:
        connection.send(("failed", 0.0, str(error)))
    except Exception as error:
        connection.send(("failed", 0.0, f"{type(error).__name__}: {one_line(error)}"))
        raise  # the process prints where


def _end_with_parent() -> None:
    """Interrupt the run when the process that started it is gone: it would train for nobody, and hold the cores."""
    import _thread

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        _thread.interrupt_main()
        time.sleep(GRACE)
        os._exit(1)


def _report(connection: Any, events: Iterable[Any], config: RunConfig) -> None:
    from empathy_kit.core.state import Epoch
    from empathy_kit.core.trainer import Step

    reported = 0.0
    for event in events:
        if isinstance(event, Step):
            if time.monotonic() - reported > 0.5:
                reported = time.monotonic()
                done = (event.epoch - 1) * event.steps + event.step
                connection.send(("step", done / (event.steps * config.epochs), f"epoch {event.epoch}, loss {event.loss:.3f}"))
        elif isinstance(event, Epoch):
            text = f"epoch {event.epoch} validated, macro F1 {event.mean_macro_f1:.3f}"
            connection.send(("step", event.epoch / config.epochs, text))
    connection.send(("done", 1.0, ""))
