"""A job's parts on a Ray cluster or a local one: the same bytes as in one process, even if workers die."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from empathy_kit.errors import KitError
from empathy_kit.inference.model import HUB, EmpathyModel, load
from empathy_kit.inference.scoring import Job, Part, Request, Write, write_part

AHEAD = 2  # parts per worker that are read ahead; the driver holds no others in memory


def write_on_ray(
    job: Job,
    model: EmpathyModel,
    source: str,
    workers: int,
    plugins: Sequence[Path] = (),
    device: Literal["auto", "cpu"] | None = None,
) -> Write:
    """Workers that each load the model once and write parts, into the folder that the driver and all of them share.

    A worker that dies is restarted with its part. A part appears whole or not at all, and every worker would write
    the same bytes.

    Args:
        job: the job; its output must be on storage that every machine sees under the same name.
        model: the model as it was loaded here; a worker that loads another one, or computes otherwise, writes nothing.
        source: where it was loaded from, which every machine must see under the same name too.
        workers: how many at once.
        plugins: of a run's model: its plugins that are one Python file each, on that storage too.
        device: as of `load`.
    """
    job = replace(job, out=job.out.absolute())
    # A branch may have moved since the model was loaded here, and a worker's working folder is another.
    source = f"{HUB}{model.about['hub']}" if source.startswith(HUB) else str(Path(source).absolute())
    plugins = [path.absolute() for path in plugins]

    def write(missing: Iterator[Request]) -> Iterator[Part]:
        import ray

        scorer = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Scorer)
        actors = [scorer.remote(job, source, model.identity, plugins, device) for _ in range(workers)]
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

    def __init__(
        self,
        job: Job,
        source: str,
        expected: Mapping[str, str],
        plugins: Sequence[Path] = (),
        device: Literal["auto", "cpu"] | None = None,
    ) -> None:
        self.job = job
        self.source = source
        self.expected = expected
        self.plugins = plugins
        self.device = device
        self.model: EmpathyModel | None = None

    def write(self, request: Request) -> Part:
        """Predict one part and write it.

        Raises:
            KitError: the model cannot be loaded, or is not the driver's.
        """
        if self.model is None:  # and not in __init__, whose errors reach the driver as a worker's death
            self.model = self._load()
        return write_part(self.job, request, self.model)

    def _load(self) -> EmpathyModel:
        model = load(self.source, device=self.device, threads=1, plugins=self.plugins)
        for name, expected in self.expected.items():
            if (found := model.identity[name]) != expected:
                raise KitError(
                    f"{self.source}: a worker has {name} {found}, expected {expected} as where the command was given; "
                    "every machine needs the same model, libraries and --device"
                )
        return model
