"""Many configurations x seeds: planned, run several at once, continued where they stopped, and read again when finished."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import secrets
import shlex
import time
import tomllib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empathy_kit import record
from empathy_kit.config import COMPARISON, FOUR, RunConfig, configure, flag, routes, settings, to_dict
from empathy_kit.contracts import NAME_PATTERN
from empathy_kit.data.pairs import LEVELS, MECHANISMS, Corpus
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take
from empathy_kit.errors import KitError
from empathy_kit.plugins import Registry, load_registry, one_line
from empathy_kit.recipes import choose_plugins, run
from empathy_kit.statistics import Answers

FORMAT = 1
PLAN, RUNS, YARDSTICKS, LOCK = "comparison.json", "runs", "yardsticks", ".lock"
NOT_COMPARED = ("seed", "split_seed", "device", "fused", "threads")  # may differ between runs of one configuration
MAJORITY, SWAPPED = "majority", "-swapped"  # yardsticks in the tables, as are
TFIDF = {"tfidf": False, "tfidf-balanced": True}  # yardstick to whether it weighs classes

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What is to be compared."""

    configurations: Mapping[str, RunConfig]  # by name, in the order of the tables; the first is what others are compared with
    seeds: tuple[int, ...]
    resplit: bool  # each seed draws a split of its own

    def config(self, name: str, seed: int) -> RunConfig:
        """One run's configuration."""
        base = self.configurations[name]
        return replace(base, seed=seed, split_seed=seed if self.resplit else base.split_seed)

    def runs(self) -> list[tuple[str, int]]:
        """Every run: all configurations of a seed before the next seed, so that a comparison that is cut short is balanced."""
        return [(name, seed) for seed in self.seeds for name in self.configurations]


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
    """One run ended without a result; the others go on."""

    name: str
    seed: int
    reason: str


def parse_configurations(given: Sequence[str], file: Path | None, base: RunConfig) -> dict[str, RunConfig]:
    """Configurations by name: known names, ``NAME=FLAGS`` with the flags of `run`, and the tables of a TOML file.

    Raises:
        KitError: a name that is unknown, given twice or is none; a flag or a file that cannot be read.
    """
    found: dict[str, RunConfig] = {}

    def add(name: str, changes: Mapping[str, Any]) -> None:
        if not NAME_PATTERN.fullmatch(name.lower()):
            raise KitError(f"compare {name!r}: expected a name of letters, digits and hyphens")
        if name in found:
            raise KitError(f"compare {name}: given twice, expected each name once")
        if name.lower() in (MAJORITY, *TFIDF) or name.lower().endswith(SWAPPED):
            raise KitError(f"compare {name}: the name of a yardstick, expected another")
        try:
            found[name] = configure(base, changes)
        except KitError as error:
            raise KitError(f"compare {name}: {error}") from None

    for text in given or (() if file else FOUR):
        name, equals, flags = text.partition("=")
        if equals:
            add(name, _read_flags(name, flags))
        elif name in COMPARISON:
            add(name, COMPARISON[name])
        else:
            raise KitError(f"compare {name}: unknown, expected {', '.join(COMPARISON)} or NAME=FLAGS")
    if file is not None:
        for name, changes in _read_tables(file).items():
            if not isinstance(changes, Mapping):
                raise KitError(f"--file {file}: {name} is a {type(changes).__name__}, expected a table of settings")
            add(name, changes)
    lower = [name.lower() for name in found]
    twin = next((name for name in found if lower.count(name.lower()) > 1), None)
    if twin is not None:
        raise KitError(f"compare {twin}: another name differs in capitals alone, which some file systems cannot tell apart")
    return found


def _read_flags(name: str, text: str) -> dict[str, Any]:
    """``--loss focal -o loss.gamma 3`` -> settings."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise KitError(f"compare {name}={text}: {error}, expected flags of `empathy-kit run`") from None
    known = {flag(setting): setting for setting in settings()}
    changes: dict[str, Any] = {}
    options: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word == "--no-rationale":
            changes["rationale"] = "none"
        elif word in ("-o", "--option") and len(words) >= 2:
            route, value = words.pop(0), words.pop(0)
            options[route] = value
        elif word in known and words:
            changes[known[word]] = words.pop(0)
        else:
            what = "needs a value" if word in known or word in ("-o", "--option") else "unknown"
            raise KitError(f"compare {name}: {word}: {what}, expected flags of `empathy-kit run`, such as --loss focal")
    return {**changes, **({"options": options} if options else {})}


def _read_tables(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise KitError(f"--file {file}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KitError(f"--file {file}: not valid TOML: {error}") from None


def parse_seeds(text: str) -> tuple[int, ...]:
    """``5`` -> 0 to 4; ``3,7`` -> these.

    Raises:
        KitError: not whole numbers, none, or one twice.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise KitError(f"--seeds {text}: expected how many, or a list such as 0,1,7") from None
    seeds = tuple(range(numbers[0])) if "," not in text else tuple(numbers)
    if not seeds or min(numbers) < 0 or max(seeds) >= 2**32 or len(seeds) > 10_000:
        raise KitError(f"--seeds {text}: expected at least one seed, none negative")
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise KitError(f"--seeds {text}: {twice} given twice, expected each seed once")
    return seeds


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold a comparison's folder: two calls that go on with it would both run what is missing, and one of them for nothing.

    A process that is killed lets go of it; the runs that it had begun end with their next message to it. Folders that were made
    for it and hold nothing at the end are taken away again.

    Raises:
        KitError: another process holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(out / LOCK, timeout=0)
    try:
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise KitError(
            f"--out {out}: another process goes on with this comparison; expected it to end first, or another --out"
        ) from None
    except OSError as error:
        raise KitError(f"--out {out}: cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove what is open, and then it stays
            (out / LOCK).unlink()  # who has opened it meanwhile does not get it: filelock looks whether it is still there
        lock.release()
        with suppress(OSError):  # the first that holds something
            for folder in made:
                folder.rmdir()


def prepare(plan: Plan, out: Path, registry: Registry) -> tuple[Plan, Corpus]:
    """Check everything that can be checked before the first run, and write the plan; what an earlier call planned stays in it.

    Raises:
        KitError: a plugin, split or setting that cannot be, other data than before, or a folder that cannot be written.
    """
    first = next(iter(plan.configurations.values()))
    for name, config in plan.configurations.items():
        try:
            choose_plugins(config, registry)
        except KitError as error:
            raise KitError(f"compare {name}: {error}") from None
        for setting in ("data", "split", *(() if plan.resplit else ("split_seed",))):
            if getattr(config, setting) != getattr(first, setting):
                raise KitError(
                    f"compare {name}: {flag(setting)} {getattr(config, setting)} found, {getattr(first, setting)} before; "
                    "what is compared must be tested on the same pairs"
                )
    if (out / PLAN).exists():
        plan = _merged(read_plan(out), plan, out)
    corpus = load_corpus(first.data)
    for name, seed in plan.runs():
        config = plan.config(name, seed)
        make_split(corpus, config.split, config.split_seed)
    try:
        (out / RUNS).mkdir(parents=True, exist_ok=True)
        (out / YARDSTICKS).mkdir(exist_ok=True)
        content = {
            "format": FORMAT,
            "configurations": {name: to_dict(config) for name, config in plan.configurations.items()},
            "seeds": list(plan.seeds),
            "resplit": plan.resplit,
        }
        write_whole(out / PLAN, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise KitError(f"--out {out}: cannot be written: {error.strerror}") from None
    return plan, corpus


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is never seen half-written.

    Raises:
        OSError: it cannot be written.
    """
    staging = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        staging.write_text(text, encoding="utf-8")
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def read_plan(folder: Path) -> Plan:
    """The plan of a comparison's folder.

    Raises:
        KitError: there is none, or it cannot be read.
    """
    try:
        content = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise KitError(f"{folder / PLAN}: format {content['format']!r} found, expected {FORMAT}")
        configurations = {name: configure(RunConfig(), changes) for name, changes in content["configurations"].items()}
        return Plan(configurations, tuple(content["seeds"]), bool(content["resplit"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise KitError(f"{folder}: not a comparison: {PLAN} is missing or unreadable") from None


def _merged(before: Plan, now: Plan, out: Path) -> Plan:
    """What was planned and what is added; a name keeps its configuration."""
    if before.resplit != now.resplit:
        raise KitError(
            f"--out {out}: was begun {'with' if before.resplit else 'without'} --resplit, expected the same or another --out"
        )
    for name, config in now.configurations.items():
        known = before.configurations.get(name)
        changed = [] if known is None else _differences(known, config)
        if changed:
            raise KitError(f"compare {name}: {out} has it with {changed[0]}; expected the same, another name or another --out")
    first = next(iter(before.configurations.values()))
    for name, config in now.configurations.items():
        for setting in ("data", "split", *(() if now.resplit else ("split_seed",))):
            if getattr(config, setting) != getattr(first, setting):
                raise KitError(
                    f"compare {name}: {flag(setting)} {getattr(config, setting)} found, but {out} was begun with "
                    f"{getattr(first, setting)}; expected the same or another --out"
                )
    seeds = (*before.seeds, *(seed for seed in now.seeds if seed not in before.seeds))
    return Plan({**before.configurations, **now.configurations}, seeds, now.resplit)


def _differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Settings of ``one`` that differ in ``other``, as they would be given."""
    left, right = to_dict(one), to_dict(other)
    return [
        f"{flag(name)} {left[name]}, not {right[name]}" for name in left if name not in NOT_COMPARED and left[name] != right[name]
    ]


def execute(
    plan: Plan, corpus: Corpus, out: Path, registry: Registry, *, jobs: int, keep_models: bool
) -> Generator[Progress | Done | Failed, None, None]:
    """Run what is not there yet, several at once in processes of their own, each with its share of the cores.

    A run that is there is compared with its manifest and with what is planned, and not repeated.

    Raises:
        KitError: a finished run that was changed, or is another than the one planned.
    """
    waiting = []
    for name, seed in plan.runs():
        folder = run_folder(out, name, seed)
        if folder.exists():
            _check(plan, corpus, registry, name, seed, record.read(folder, model=False), folder)
            yield Done(name, seed, True, 0.0)
        else:
            waiting.append((name, seed))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    active: dict[Connection, _Worker] = {}
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                name, seed = waiting.pop(0)
                config = plan.config(name, seed)
                if config.threads is None:
                    config = replace(config, threads=threads)
                worker = _Worker.start(name, seed, config, run_folder(out, name, seed), keep_models)
                active[worker.connection] = worker
                yield Progress(name, seed, 0.0, "starting", 0.0)
            for ready in wait(list(active), timeout=1.0):
                assert isinstance(ready, Connection)
                worker = active[ready]
                event = worker.receive()
                if not isinstance(event, Progress):
                    worker.stop()
                    del active[ready]
                yield event
    finally:
        for worker in active.values():
            worker.stop()


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Where a run lies."""
    return out / RUNS / f"{name}-{seed}"


def _check(plan: Plan, corpus: Corpus, registry: Registry, name: str, seed: int, found: record.Record, folder: Path) -> None:
    config = plan.config(name, seed)
    # As a record writes options, but for those that the plugins have got since and nobody has set.
    whole, default = (dict(routes(choose_plugins(one, registry).options)) for one in (config, replace(config, options={})))
    options = {name: value for name, value in whole.items() if name in found.config["options"] or value != default[name]}
    changed = _differences(configure(RunConfig(), found.config), replace(config, options=options))
    if (found.config["seed"], found.config["split_seed"]) != (seed, config.split_seed):
        changed.append(f"seed {found.config['seed']} on split {found.config['split_seed']}")
    if changed:
        raise KitError(f"{folder}: is a run with {changed[0]}; expected {name} as it is planned")
    wanted = {"data": corpus.sha256(), "split": make_split(corpus, config.split, config.split_seed).sha256()}
    for what, value in wanted.items():
        known = getattr(found, what)["sha256"]
        if known != value:
            raise KitError(
                f"{folder}: was made on another {what} (sha256 {known[:12]}... found, expected {value[:12]}...); "
                "its scores cannot be compared"
            )


@dataclass
class _Worker:
    """A process that does one run, and what it says through its pipe."""

    name: str
    seed: int
    connection: Connection
    process: Any
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, name: str, seed: int, config: RunConfig, folder: Path, keep_model: bool) -> _Worker:
        # Spawned: a fork would inherit torch's threads, in whatever state they are.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        before = os.environ.get("OMP_NUM_THREADS")
        # In the environment too: OpenMP counts its threads when torch is imported, before --threads is read.
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
        try:
            process = context.Process(target=_work, args=(theirs, config, folder, keep_model), daemon=True)
            process.start()
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
        theirs.close()
        return cls(name, seed, ours, process)

    def receive(self) -> Progress | Done | Failed:
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
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def _work(connection: Connection, config: RunConfig, folder: Path, keep_model: bool) -> None:
    """One run, in a process of its own; ends when nobody listens any more."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        _report(connection, run(config, load_registry(), folder, keep_model=keep_model), config)
    except (BrokenPipeError, KeyboardInterrupt):
        return
    except KitError as error:
        connection.send(("failed", 0.0, str(error)))
    except Exception as error:
        connection.send(("failed", 0.0, f"{type(error).__name__}: {one_line(error)}"))
        raise  # the process prints where


def _report(connection: Connection, events: Iterable[Any], config: RunConfig) -> None:
    from empathy_kit.core.engine import Epoch, Step

    said = 0.0
    for event in events:
        if isinstance(event, Step):
            if time.monotonic() - said > 0.5:
                said = time.monotonic()
                done = (event.epoch - 1) * event.steps + event.step
                connection.send(("step", done / (event.steps * config.epochs), f"epoch {event.epoch}, loss {event.loss:.3f}"))
        elif isinstance(event, Epoch):
            connection.send(
                ("step", event.epoch / config.epochs, f"epoch {event.epoch} validated, macro F1 {event.mean_macro_f1:.3f}")
            )
    connection.send(("done", 1.0, ""))


def measure_yardsticks(plan: Plan, corpus: Corpus, out: Path) -> None:
    """What a model has to beat, on each split: TF-IDF and logistic regression on the responses; written beside the runs.

    Raises:
        KitError: the folder cannot be written.
    """
    ids = record.hashed_ids(corpus)
    first = next(iter(plan.configurations))
    for seed in sorted({plan.config(first, seed).split_seed for seed in plan.seeds}):
        split = make_split(corpus, plan.configurations[first].split, seed)
        for name, balanced in TFIDF.items():
            path = out / YARDSTICKS / f"{name}-{seed}.csv"
            if path.exists():
                continue
            from empathy_kit.core.baselines import tfidf_logistic

            train, test = take(corpus, split.train), take(corpus, split.test)
            columns = [["id", *(ids[position] for position in split.test)]]
            for index, mechanism in enumerate(MECHANISMS):
                predicted = tfidf_logistic(
                    [pair.response for pair in train],
                    np.array([pair.levels[index] for pair in train]),
                    [pair.response for pair in test],
                    balanced=balanced,
                )
                columns.append([f"{mechanism}_true", *(str(pair.levels[index]) for pair in test)])
                columns.append([f"{mechanism}_predicted", *map(str, predicted.tolist())])
            try:
                write_whole(path, "".join(",".join(row) + "\n" for row in zip(*columns, strict=True)))
            except OSError as error:
                raise KitError(f"{path}: cannot be written: {error.strerror}") from None


@dataclass(frozen=True)
class Run:
    """One finished run, as a report needs it."""

    name: str
    seed: int
    record: record.Record
    history: list[dict[str, Any]]
    answers: dict[str, Answers]  # mechanism to what was said
    swapped: dict[str, Answers] | None  # what was said with another pair's seeker post; None where it was not asked
    probabilities: dict[str, Floats]  # mechanism to (N, C)


@dataclass(frozen=True)
class Finished:
    """All of a comparison that is there."""

    plan: Plan
    runs: dict[str, list[Run]]  # configuration to its runs, in the order of the seeds; some may have more than others
    yardsticks: dict[str, dict[int, dict[str, Answers]]]  # yardstick to seed to mechanism to answers
    missing: list[tuple[str, int]]  # runs that are planned and not there


def read_finished(folder: Path) -> Finished:
    """Read a comparison's runs; no torch, no data.

    Raises:
        KitError: no comparison, no finished run, a run that was changed, or runs on other data or splits than the first.
    """
    plan = read_plan(folder)
    there = {
        name: [read_run(folder, name, seed) for seed in plan.seeds if run_folder(folder, name, seed).exists()]
        for name in plan.configurations
    }
    there = {name: runs for name, runs in there.items() if runs}
    if not there:
        raise KitError(f"{folder}: no finished run, expected at least one in {folder / RUNS}")
    every = [found for runs in there.values() for found in runs]
    _assert_alike(folder, every)
    splits = {found.seed: found.record.split["seed"] for found in every}
    files = {name: {seed: folder / YARDSTICKS / f"{name}-{split}.csv" for seed, split in splits.items()} for name in TFIDF}
    read = {
        name: {seed: _read_answers(file)[0] for seed, file in sorted(by_seed.items()) if file.exists()}
        for name, by_seed in files.items()
    }
    finished = {(found.name, found.seed) for found in every}
    return Finished(
        plan,
        there,
        {name: answers for name, answers in read.items() if answers},
        [run for run in plan.runs() if run not in finished],
    )


def read_run(folder: Path, name: str, seed: int) -> Run:
    """Read one finished run of a comparison.

    Raises:
        KitError: a run that was changed.
    """
    where = run_folder(folder, name, seed)
    found = record.read(where, model=False)
    history = [json.loads(line) for line in (where / record.HISTORY).read_text(encoding="utf-8").splitlines()]
    answers, swapped, probabilities = _read_answers(where / record.PREDICTIONS)
    return Run(name, seed, found, history, answers, swapped, probabilities)


def _read_answers(path: Path) -> tuple[dict[str, Answers], dict[str, Answers] | None, dict[str, Floats]]:
    with path.open(encoding="utf-8", newline="") as stream:
        header, *rows = list(csv.reader(stream))
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    ids = tuple(columns["id"])

    def levels(name: str) -> Ints:
        return np.array(columns[name], dtype=np.int64)

    def answers(what: str) -> dict[str, Answers]:
        return {name: Answers(ids, levels(f"{name}_true"), levels(f"{name}_{what}")) for name in MECHANISMS}

    probabilities = {
        name: np.stack([np.array(columns[f"{name}_p{level}"], dtype=np.float64) for level in LEVELS], axis=1)
        for name in MECHANISMS
        if f"{name}_p0" in columns
    }
    return answers("predicted"), answers("swapped") if f"{MECHANISMS[0]}_swapped" in columns else None, probabilities


def _assert_alike(folder: Path, runs: Sequence[Run]) -> None:
    """Runs that are compared have the same data, and those of one seed the same split."""
    splits: dict[int, str] = {}
    for found in runs:
        where = run_folder(folder, found.name, found.seed)
        data, split = found.record.data["sha256"], found.record.split["sha256"]
        if data != runs[0].record.data["sha256"]:
            raise KitError(
                f"{where}: was made on other data than {run_folder(folder, runs[0].name, runs[0].seed)} "
                f"(sha256 {data[:12]}... and {runs[0].record.data['sha256'][:12]}...); they cannot be compared"
            )
        if splits.setdefault(found.seed, split) != split:
            raise KitError(
                f"{where}: was made on another split than the others of seed {found.seed} "
                f"(sha256 {split[:12]}... and {splits[found.seed][:12]}...); they cannot be compared"
            )
