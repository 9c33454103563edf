"""A job's parts on a Ray cluster, or on one that is started here: the same bytes as in one process, whatever worker dies."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from empathy_kit.errors import KitError
from empathy_kit.inference.scoring import Job, Part, Request, Write, write_part

LOCAL = "local"
AHEAD = 2  # parts per worker that are read before they are needed: all that the driver keeps in memory


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[int]:
    """A Ray cluster, and how many workers it gives; ``local`` starts one on this machine, and ends it.

    Raises:
        KitError: Ray is not installed, or does not answer at the address.
    """
    try:
        import ray
    except ImportError:
        raise KitError("--on ray: Ray is not installed; pip install 'empathy-kit[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    local = address == LOCAL
    settings: dict[str, Any] = {"num_cpus": workers} if local else {"address": address}
    if local:
        settings["include_dashboard"] = False
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(logging_level="error", log_to_driver=False, **settings)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise KitError(f"--ray-address {address}: no Ray cluster answers there ({type(error).__name__})") from None
    try:
        yield workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if started:
            ray.shutdown()


def write_on_ray(job: Job, source: str, workers: int) -> Write:
    """Workers that each load the model once and write parts, into the folder that the driver and all of them share.

    A worker that dies is started again, and its part with it: a part appears whole or not at all, and whoever writes it writes
    the same bytes.

    Args:
        job: whose parts they are; its output must lie on storage that every machine sees under the same name.
        source: the model, which every machine must see too.
        workers: how many at once.
    """
    job = replace(job, out=job.out.absolute())

    def write(missing: Iterator[Request]) -> Iterator[Part]:
        import ray

        scorer = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Scorer)
        actors = [scorer.remote(job, source) for _ in range(workers)]
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
    """One worker: a model, and the parts that it is given."""

    def __init__(self, job: Job, source: str) -> None:
        from empathy_kit.inference.model import load

        self.job = job
        self.model = load(source, threads=1)

    def write(self, request: Request) -> Part:
        """Predict one part and leave it."""
        return write_part(self.job, request, self.model)
