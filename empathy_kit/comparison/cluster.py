"""A comparison's runs as tasks of a Ray cluster, each on one core of any machine."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from empathy_kit.comparison.worker import PATIENCE, Worker
from empathy_kit.config import RunConfig
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry, one_line

RETRIES = 3  # of a run whose worker died; it continues from its last checkpoint


class RayWorker(Worker):
    """One run on a cluster. It reports only its end, and its folder must be on storage that every machine sees."""

    @classmethod
    def start(
        cls,
        name: str,
        seed: int,
        config: RunConfig,
        folder: Path,
        *,
        keep_model: bool,
        files: Sequence[Path],
        expected: Mapping[str, str],
    ) -> Worker:
        """Start a run."""
        import ray

        ours, theirs = Pipe(duplex=False)
        places = tuple(path.absolute() for path in files)
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(cls.work)
        task = _Task(theirs, remote.remote(config, folder.absolute(), keep_model, places, dict(expected)))
        task.start()
        return cls(name, seed, ours, task)

    def interrupt(self) -> None:
        """Cancel the run; its last checkpoint stays."""
        super().interrupt()
        self.process.terminate()

    @staticmethod
    def work(config: RunConfig, folder: Path, keep_model: bool, files: Sequence[Path], expected: Mapping[str, str]) -> str | None:
        """Do one run in a worker; returns why it failed, or None."""
        from empathy_kit.runs.quiet import quiet_libraries
        from empathy_kit.runs.train import run

        quiet_libraries()
        try:
            for _ in run(config, load_registry(files), folder, wait=PATIENCE, keep_model=keep_model, expected=expected):
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
