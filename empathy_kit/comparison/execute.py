"""Execute a plan: missing runs are trained in parallel processes; existing runs are checked and kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from empathy_kit import locks
from empathy_kit.comparison.buildable import check_built
from empathy_kit.comparison.plan import (
    PLAN,
    RUNS,
    Plan,
    check_same,
    differences,
    merge,
    read_plan,
    run_folder,
    write_plan,
)
from empathy_kit.comparison.worker import KEEPING, Done, Failed, Order, Progress, Warned, Worker
from empathy_kit.config import RunConfig, configure
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import Split
from empathy_kit.errors import KitError
from empathy_kit.plugins import OURS, Registry, fingerprint
from empathy_kit.processor import cores
from empathy_kit.runs import record
from empathy_kit.runs.choose import all_options, choose_plugins
from empathy_kit.runs.differences import listed
from empathy_kit.runs.identity import threads_of_stopped


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock a comparison's folder: two calls that continue it would both train the missing runs.

    A killed process lets go of it, where there are locks, and its runs end soon after it. Folders that were created for it and
    are empty at the end are removed.

    Raises:
        KitError: another process holds the lock, or the folder cannot be written.
    """
    made: list[Path] = []
    try:
        with ExitStack() as stack:
            try:
                made = [folder for folder in (out, *out.parents) if not folder.exists()]
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locks.alone(out / locks.LOCK, wait=False))
            except BlockingIOError:
                raise KitError(
                    f"--out {out}: another process continues this comparison; wait until it ends, or use another --out"
                ) from None
            except OSError as error:
                raise KitError(f"--out {out}: cannot be written: {error.strerror}") from None
            yield
    finally:
        with suppress(OSError):  # stops at the first folder that is not empty
            for folder in made:
                folder.rmdir()


@dataclass(frozen=True)
class Prepared:
    """A checked plan with its data and splits."""

    plan: Plan
    corpus: Corpus
    splits: dict[int, Split]  # by their seeds

    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the splits before the first run, each once."""
        from empathy_kit.runs.report import group_warnings

        largest = dict.fromkeys(split.largest for split in self.splits.values())
        return tuple(text for size in largest for text in group_warnings(len(self.corpus), size))


def prepare(plan: Plan, out: Path, registry: Registry) -> Prepared:
    """Check everything that can be checked before the first run, and write the plan, merged with that of earlier calls.

    Raises:
        KitError: a plugin, split or setting is not valid, the data is not that of before, or the folder cannot be written.
    """
    first = next(iter(plan.configurations.values()))
    check_same(plan.configurations, first, plan.resplit)
    before = read_plan(out) if (out / PLAN).exists() else None
    if before is not None:
        plan = merge(before, plan, out)
    for name, config in plan.configurations.items():
        try:
            choose_plugins(config, registry)  # the options of each task too, which may have a model of its own
        except KitError as error:
            raise KitError(f"compare {name}: {error}") from None
    corpus = load_corpus(first.data, first.schema)
    splits = plan.splits(corpus)
    new = {name: config for name, config in plan.configurations.items() if before is None or name not in before.configurations}
    check_built(new, plan.separate, registry, corpus, next(iter(splits.values())))
    try:
        (out / RUNS).mkdir(parents=True, exist_ok=True)
        write_plan(plan, out)
    except OSError as error:
        raise KitError(f"--out {out}: cannot be written: {error.strerror}") from None
    return Prepared(plan, corpus, splits)


def execute(
    prepared: Prepared,
    out: Path,
    registry: Registry,
    *,
    jobs: int,
    keep_models: bool,
    files: Sequence[Path] = (),
    worker: type[Worker] = Worker,
    threads: int | None = None,
) -> Generator[Progress | Warned | Done | Failed, None, None]:
    """Train the missing runs in parallel processes, each with its share of the cores.

    An existing run is checked against its manifest and the plan, and not repeated.

    Args:
        prepared: what to run.
        out: the comparison's folder.
        registry: the loaded plugins.
        jobs: how many runs at once.
        keep_models: leave every run's model in its folder.
        files: the single-file plugins that the registry was loaded with.
        worker: the class that does a run: in a process of this machine, or on a cluster.
        threads: of each run whose configuration sets none; None takes its share of this machine's cores.

    Raises:
        KitError: a finished run was changed, or is not the planned one.
    """
    plan = prepared.plan
    check = _Check(prepared, out, registry)
    waiting = []
    encoders: dict[tuple[str, float | None], str] = {}  # sha256 by what it follows from; no file of one is read here
    for name, seed in plan.runs():
        if run_folder(out, name, seed).exists():
            found = check(name, seed)
            encoders.setdefault(_encoder(plan.config(name, seed)), found.encoder["sha256"])
            yield Done(name, seed, True, 0.0)
        else:
            waiting.append((name, seed))
    threads = threads or max(1, cores() // jobs)
    active: dict[Any, Worker] = {}
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                name, seed = waiting.pop(0)
                config = plan.config(name, seed)
                if config.threads is None:
                    config = replace(config, threads=threads_of_stopped(run_folder(out, name, seed)) or threads)
                known = encoders.get(_encoder(config))
                expected = {} if known is None else {"encoder": known}
                begun = worker.start(Order(name, seed, config, run_folder(out, name, seed), keep_models, tuple(files), expected))
                active[begun.connection] = begun
                yield Progress(name, seed, 0.0, "starting", 0.0)
            for ready in wait(list(active), timeout=1.0):
                event = active[ready].receive()
                if isinstance(event, Done | Failed):
                    active[ready].stop()
                    del active[ready]
                if isinstance(event, Failed) and run_folder(out, event.name, event.seed).exists():
                    # A process of a killed call still held its name, and finished it.
                    check(event.name, event.seed)
                    event = Done(event.name, event.seed, True, 0.0)
                if isinstance(event, Done):  # what it was trained with, the other runs of this call must be too
                    done = record.read(run_folder(out, event.name, event.seed), model=False)
                    encoders.setdefault(_encoder(plan.config(event.name, event.seed)), done.encoder["sha256"])
                yield event
    finally:
        for begun in active.values():  # all at once: each writes its state and ends
            begun.interrupt()
        for begun in active.values():
            begun.stop(KEEPING)


def _encoder(config: RunConfig) -> tuple[str, float | None]:
    return config.encoder, config.attention_dropout


class _Check:
    """Checks that an existing run is the planned one."""

    def __init__(self, prepared: Prepared, out: Path, registry: Registry) -> None:
        self.plan, self.out, self.registry = prepared.plan, out, registry
        self.data = prepared.corpus.sha256()
        self.splits = {seed: split.sha256() for seed, split in prepared.splits.items()}

    def __call__(self, name: str, seed: int) -> record.Record:
        """Check one run, and return its record.

        Raises:
            KitError: it was changed, or its settings, data, split or plugins' versions are not the planned ones.
        """
        folder, config = run_folder(self.out, name, seed), self.plan.config(name, seed)
        found = record.read(folder, model=False)
        changed = differences(configure(RunConfig(), found.config), self._with_options(config, found.config["options"]))
        if (found.config["seed"], found.config["split_seed"]) != (seed, config.split_seed):
            changed.append(f"seed {found.config['seed']} on split {found.config['split_seed']}")
        if changed:
            raise KitError(f"{folder}: is a run with {listed(changed)}; expected {name} as it is planned")
        for what, value in (("data", self.data), ("split", self.splits[config.split_seed])):
            known = getattr(found, what)["sha256"]
            if known != value:
                raise KitError(
                    f"{folder}: was made on another {what} (sha256 {known[:12]}... found, expected {value[:12]}...); "
                    "its scores cannot be compared"
                )
        self._check_providers(folder, config, found)
        return found

    def _with_options(self, config: RunConfig, recorded: dict[str, Any]) -> RunConfig:
        """The options as in a record, without those that newer versions of the plugins added and nobody set."""
        whole = all_options(choose_plugins(config, self.registry))
        try:
            default = all_options(choose_plugins(replace(config, options={}), self.registry))
        except KitError:  # an option has no default
            default = {}
        missing = object()
        options = {name: value for name, value in whole.items() if name in recorded or value != default.get(name, missing)}
        return replace(config, options=options)

    def _check_providers(self, folder: Path, config: RunConfig, found: record.Record) -> None:
        """Runs of one configuration are averaged, so all must use the same version of third-party plugins."""
        for kind, now in choose_plugins(config, self.registry).chosen.items():
            then = found.plugins.get(kind)
            if then is None or {then["distribution"], now.distribution} == {OURS}:  # a released name keeps its numbers
                continue
            code = fingerprint(now)
            if (then["distribution"], then["version"]) == (now.distribution, now.version) and then.get("sha256", code) != code:
                raise KitError(
                    f"{folder}: the files of {kind} {then['name']} from {now.distribution} were changed since; runs of two "
                    "versions cannot be averaged: restore the earlier files, or use another --out"
                )
            if (then["distribution"], then["version"]) != (now.distribution, now.version):
                raise KitError(
                    f"{folder}: {kind} {then['name']} was from {then['distribution']} {then['version']}, and is now from "
                    f"{now.distribution} {now.version}; runs of two versions cannot be averaged: install the earlier one, or use "
                    "another --out"
                )
