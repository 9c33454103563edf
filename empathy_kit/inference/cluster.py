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
DEATHS = 3  # of one worker, or on one part: a part that always ends its worker, for want of memory, must end the job
STARTING = 600  # seconds until the first worker has started; a busy cluster lets jobs wait


def write_on_ray(
    job: Job,
    model: EmpathyModel,
    source: str,
    workers: int,
    plugins: Sequence[Path] = (),
    device: Literal["auto", "cpu"] | None = None,
) -> Write:
    """Workers that each load the model once and write parts, into the folder that the driver and all of them share.

    A worker that dies is restarted with its part, a few times. A part appears whole or not at all, and every worker would write
    the same bytes. Parts go to workers that have started, and more to those that are quicker.

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

        each = {"num_cpus": 1, "num_gpus": int(model.identity["device"] == "cuda")}
        scorer = ray.remote(**each, max_restarts=DEATHS, max_task_retries=DEATHS)(Scorer)
        crew = _Crew([scorer.remote(job, source, model.identity, plugins, device) for _ in range(workers)])
        try:
            for request in missing:
                while not crew.free:
                    yield from crew.finished()
                crew.give(request)
            while crew.busy:
                yield from crew.finished()
        finally:
            crew.dismiss()

    return write


class _Crew:
    """Workers, what each of them has been asked, and who may be asked more."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self.actors = actors
        self.free: deque[Any] = deque()  # those that have started, once for each part that they may still be given
        self._starting = {actor.start.remote(): actor for actor in actors}
        self._writing: dict[Any, Any] = {}

    @property
    def busy(self) -> bool:
        return bool(self._writing)

    def give(self, request: Request) -> None:
        actor = self.free.popleft()
        self._writing[actor.write.remote(request)] = actor

    def finished(self) -> Iterator[Part]:
        """Wait until something is done: a part, or the start of a worker, after which there is none.

        Raises:
            KitError: no worker starts, or one dies again and again.
        """
        import ray

        known = {**self._starting, **self._writing}
        begun = len(self._starting) < len(self.actors)
        done, _ = ray.wait(list(known), timeout=None if begun else STARTING)
        if not done:
            raise KitError(
                f"--on ray: none of {len(self.actors)} workers could start within {STARTING} seconds, expected a free CPU "
                "for each (and a GPU each, where the model computes on one); wait until the cluster has some"
            )
        (reference,) = done
        part = _result(reference)
        self.free.extend([known[reference]] * (AHEAD if part is None else 1))
        self._starting.pop(reference, None)
        self._writing.pop(reference, None)
        if part is not None:
            yield part

    def dismiss(self) -> None:
        """End the workers."""
        import ray

        for actor in self.actors:
            ray.kill(actor)


def _result(reference: Any) -> Part | None:
    import ray

    try:
        found: Part | None = ray.get(reference)
    except ray.exceptions.RayActorError:
        raise KitError(
            f"--on ray: a worker died {DEATHS + 1} times, perhaps for want of memory; give its machine more. What is finished is "
            "kept, and the same command continues"
        ) from None
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

    def start(self) -> None:
        """Do nothing; the answer says that this worker runs."""

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
