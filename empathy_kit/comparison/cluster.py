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

RETRIES = 3  # of a run whose worker died; it continues from its last checkpoint


class RayWorker(Worker):
    """One run on a cluster. It reports only its end, and its folder must be on storage that every machine sees."""

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

    def interrupt(self) -> None:
        """Cancel the run; its last checkpoint stays."""
        super().interrupt()
        self.process.terminate()

    @staticmethod
    def work(order: Order) -> str | None:
        """Do one run in a worker; returns why it failed, or None."""
        quiet_libraries()
        try:
            for _ in order.events():
                pass
        except KitError as error:
            return str(error)
        return None


class _Task(threading.Thread):
    """Waits for a task, and reports its end through the pipe that the comparison reads."""

    exitcode = None

    def __init__(self, connection: Any, reference: Any) -> None:
        super().__init__(daemon=True)
        self.connection, self.reference = connection, reference

    def run(self) -> None:
        import ray

        try:
            fault = ray.get(self.reference)
        except ray.exceptions.RayError as error:
            fault = f"{type(error).__name__}: {one_line(error)}"
        with suppress(OSError):  # the comparison has ended
            self.connection.send(("failed", 0.0, fault) if fault else ("done", 1.0, ""))
            self.connection.close()

    def terminate(self) -> None:
        """Cancel the task."""
        import ray

        ray.cancel(self.reference, force=True)

    kill = terminate
