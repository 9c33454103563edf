"""A comparison's runs as tasks of a Ray cluster, each on one core of any machine."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from typing import Any

from empathy_kit.comparison.worker import Order, Worker
from empathy_kit.errors import KitError
from empathy_kit.plugins import one_line
from empathy_kit.runs.quiet import quiet_libraries
from empathy_kit.runs.train import Opened

RETRIES = 3  # of a run whose worker died; it continues from its last checkpoint


class RayWorker(Worker):
    """One run on a cluster. It reports its warnings when it ends, and its folder must be on storage that every machine sees."""

    @classmethod
    def start(cls, order: Order) -> Worker:
        """Start a run."""
        import ray

        ours, theirs = Pipe(duplex=False)
        there = replace(order, folder=order.folder.absolute(), files=tuple(path.absolute() for path in order.files))
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(cls.work)
        task = _Task(theirs, remote.remote(there))
        task.start()
        return cls(order.name, order.seed, ours, task)

    @staticmethod
    def work(order: Order) -> tuple[tuple[str, ...], str | None]:
        """Do one run in a worker; returns its warnings, and why it failed, or None."""
        quiet_libraries()
        warnings: tuple[str, ...] = ()
        try:
            for event in order.events():
                if isinstance(event, Opened):
                    warnings = event.warnings
        except KitError as error:
            return warnings, str(error)
        return warnings, None


class _Task(threading.Thread):
    """Waits for a task, and reports its warnings and its end through the pipe that the comparison reads."""

    exitcode = None

    def __init__(self, connection: Any, reference: Any) -> None:
        super().__init__(daemon=True)
        self.connection, self.reference = connection, reference

    def run(self) -> None:
        import ray

        warnings: tuple[str, ...] = ()
        try:
            warnings, fault = ray.get(self.reference)
        except ray.exceptions.RayError as error:
            fault = f"{type(error).__name__}: {one_line(error)}"
        with suppress(OSError):  # the comparison has ended
            for text in warnings:
                self.connection.send(("warning", 0.0, text))
            self.connection.send(("failed", 0.0, fault) if fault else ("done", 1.0, ""))
            self.connection.close()

    def terminate(self) -> None:
        """Cancel the run; its last checkpoint stays."""
        import ray

        ray.cancel(self.reference, force=True)

    kill = terminate
