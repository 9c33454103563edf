"""A job's parts on a Ray cluster or a local one: the same bytes as in one process, even if workers die."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from empathy_kit.errors import KitError
from empathy_kit.inference.scoring import Job, Part, Request, Write, write_part

AHEAD = 2  # parts per worker that are read ahead; the driver holds no others in memory


def write_on_ray(job: Job, source: str, workers: int, plugins: Sequence[Path] = ()) -> Write:
    """Workers that each load the model once and write parts, into the folder that the driver and all of them share.

    A worker that dies is restarted with its part. A part appears whole or not at all, and every worker would write
    the same bytes.

    Args:
        job: the job; its output must be on storage that every machine sees under the same name.
        source: the model, which every machine must see under the same name too.
        workers: how many at once.
        plugins: of a run's model: its plugins that are one Python file each, on that storage too.
    """
    job = replace(job, out=job.out.absolute())

    def write(missing: Iterator[Request]) -> Iterator[Part]:
        import ray

        scorer = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Scorer)
        actors = [scorer.remote(job, source, [path.absolute() for path in plugins]) for _ in range(workers)]
        waiting: deque[Any] = deque()
        try:
            for turn, request in enumerate(missing):
                waiting.append(actors[turn % workers].write.remote(request))
                if len(waiting) >= AHEAD * workers:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            for actor in actors:
                ray.kill(actor)

    return write


def _result(reference: Any) -> Part:
    import ray

    try:
        found: Part = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, KitError | OSError):
            raise error.cause from None
        raise
    return found


class Scorer:
    """One worker, which loads the model once and predicts the parts that it gets."""

    def __init__(self, job: Job, source: str, plugins: Sequence[Path]) -> None:
        from empathy_kit.inference.model import load

        self.job = job
        self.model = load(source, threads=1, plugins=plugins)

    def write(self, request: Request) -> Part:
        """Predict one part and write it."""
        return write_part(self.job, request, self.model)
