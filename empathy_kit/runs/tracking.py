"""Training as experiment trackers show it: while it goes on, or afterwards from the history of a finished run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from empathy_kit.config import RunConfig, configure
from empathy_kit.errors import KitError, visible
from empathy_kit.files import PARTIAL
from empathy_kit.runs.differences import as_given
from empathy_kit.runs.inventory import scores_of
from empathy_kit.runs.record import Record, read, read_history
from empathy_kit.runs.train import Finished, Opened

PROJECT = "empathy-kit"  # what trackers that group runs call the group
SECONDS = 1.0  # between two steps that are logged
# What each one calls the name of a run; one that is not here gives it a name of its own.
_RUN = {"mlflow": "run_name", "wandb": "name", "trackio": "name", "swanlab": "experiment_name", "clearml": "task_name"}


@dataclass(frozen=True)
class Untracked:
    """The tracker failed, and gets nothing more of this run; training continues. Yielded once per run."""

    tracker: str
    reason: str

    def __str__(self) -> str:
        return f"--tracker {self.tracker}: {self.reason}; the run continues, and `empathy-kit runs export` can log it later"


class Tracker:
    """One run in one tracker, by accelerate's interface to all of them."""

    def __init__(self, name: str, folder: Path) -> None:
        """Prepare to log a run.

        Args:
            name: of the tracker, as accelerate has it: tensorboard, mlflow, trackio, wandb, ...
            folder: the run directory, which need not exist. Its name is the run's name. A tracker that writes files gets
                the folder NAME next to it, any other one writes where its own settings say.

        Raises:
            KitError: accelerate or the tracker is not installed, or there is none of this name.
        """
        self.name, self.folder = name, folder
        self._class = _installed(name)
        self._opened: Any = None

    @property
    def files(self) -> Path | None:
        """Where the tracker writes this run; None where it keeps that to itself."""
        return self.folder.parent / self.name / self.folder.name if self._class.requires_logging_directory else None

    def start(self, config: RunConfig, *, oracle: bool) -> None:
        """Begin the run, with its settings, and whether it is an oracle."""
        _be_one_process()
        run = self.folder.name
        if self._class.requires_logging_directory:
            self._opened = self._class(run, str(self.folder.parent / self.name))
        else:
            named = {_RUN[self.name]: run} if self.name in _RUN else {}
            self._opened = self._class(PROJECT, **named)
        self._opened.start()
        given = {name.removeprefix("--").removeprefix("-o "): value for name, value in as_given(config).items()}
        self._opened.store_init_configuration({"oracle": oracle, **{name: _plain(value) for name, value in given.items()}})

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values at a step of the optimizer."""
        self._opened.log(dict(values), step=step)

    def finish(self) -> None:
        """End the run, if it was begun."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            opened.finish()


def track(events: Generator[Any, None, None], tracker: Tracker) -> Generator[Any, None, None]:
    """The events of `runs.train.run`, logged as they pass. A tracker that fails is left out from there on, with `Untracked`."""
    log = _Log(tracker)
    try:
        for event in events:
            failed = log.take(event)
            if failed is not None:
                yield failed
            yield event
    finally:
        events.close()
        log.attempt(tracker.finish)  # where the run has failed or was stopped, its own message is the one that counts


class _Log:
    """What of a run's events is logged, and where."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.device: Any = None
        self.works = True
        self._oracle = False
        self._logged, self._steps = float("-inf"), 0

    def take(self, event: Any) -> Untracked | None:
        """Log an event; how the tracker failed, if it did."""
        if isinstance(event, Opened):
            import torch

            self.device = torch.device(event.device)
            if event.partial is not None:
                self.tracker.folder = event.partial.with_name(event.partial.name.removesuffix(PARTIAL))
            self._oracle = event.oracle
            return self.attempt(lambda: self.tracker.start(event.config, oracle=event.oracle))
        if self.device is None:  # the run only lacked its name: nothing was begun, and `runs export` can log it
            return None
        if isinstance(event, Finished):
            return self.attempt(lambda: self._end(event.record))
        from empathy_kit.core.state import Epoch
        from empathy_kit.core.trainer import Step

        if isinstance(event, Epoch):
            return self.attempt(lambda: self._epoch(event))
        if isinstance(event, Step) and time.monotonic() - self._logged >= SECONDS:
            self._logged = time.monotonic()
            return self.attempt(lambda: self.tracker.log({"train/step_loss": event.loss}, event.taken))
        return None

    def attempt(self, action: Callable[[], None]) -> Untracked | None:
        """Let the tracker do something. Whatever it raises concerns the tracker alone, and random numbers stay as they were."""
        if not self.works:
            return None
        try:
            with self._same_randomness(), redirect_stdout(sys.stderr):  # results alone go to stdout
                action()
        except Exception as error:
            self.works = False
            return Untracked(self.tracker.name, visible(f"{type(error).__name__}: {error}")[:200])
        return None

    def _epoch(self, epoch: Any) -> None:
        self._steps = epoch.steps
        self.tracker.log(epoch_values(asdict(epoch), oracle=self._oracle), epoch.steps)

    def _end(self, record: Record) -> None:
        self.tracker.log(test_values(record), self._steps)
        self.tracker.finish()

    @contextmanager
    def _same_randomness(self) -> Iterator[None]:
        """A tracker that draws a name must not move dropout."""
        if self.device is None:
            yield
            return
        from empathy_kit.core.state import random_state, restore_random_state

        before = random_state(self.device)
        try:
            yield
        finally:
            restore_random_state(before, self.device)


class Logged(KitError):  # noqa: N818
    """A tracker has a run already."""


def export(folder: Path, name: str) -> Path | None:
    """Log a finished run from its record and history, as `track` would have done, but for the losses of single steps.

    Returns:
        Where the tracker has written it, if it writes files.

    Raises:
        Logged: the tracker has the run already.
        KitError: there is no finished run, or the tracker is not installed, or failed.
    """
    record = read(folder, model=False)
    history = read_history(folder, record.tasks.names)
    tracker = Tracker(name, folder.resolve())
    if tracker.files is not None and tracker.files.exists():
        raise Logged(f"{tracker.files}: exists already; delete it to log {folder} again")
    try:
        with redirect_stdout(sys.stderr):
            _replay(tracker, record, history)
    except Exception as error:
        raise KitError(f"--tracker {name}: {folder} is not logged: {visible(f'{type(error).__name__}: {error}')[:200]}") from None
    return tracker.files


def _replay(tracker: Tracker, record: Record, history: Sequence[Mapping[str, Any]]) -> None:
    tracker.start(configure(RunConfig(), record.config), oracle=record.oracle)
    steps = 0
    for epoch in history:
        steps = epoch.get("steps", epoch["epoch"])  # the runs of earlier versions have no steps
        tracker.log(epoch_values(epoch, oracle=record.oracle), steps)
    tracker.log(test_values(record), steps)
    tracker.finish()


def epoch_values(epoch: Mapping[str, Any], *, oracle: bool) -> dict[str, float]:
    """What is logged at the end of an epoch."""
    validation = _part("validation", oracle=oracle)
    return {
        "epoch": epoch["epoch"],
        "train/loss": epoch["train_loss"],
        "train/pairs_per_second": epoch["pairs_per_second"],
        f"{validation}/loss": epoch["validation_loss"],
        **{f"{validation}/{task}/accuracy": value for task, value in epoch["validation_accuracy"].items()},
        **{f"{validation}/{task}/macro_f1": value for task, value in epoch["validation_macro_f1"].items()},
    }


def test_values(record: Record) -> dict[str, float]:
    """What is logged at the end of a run: the scores of the test part that are defined."""
    test = _part("test", oracle=record.oracle)
    return {
        f"{test}/{task}/{name}": value
        for task, scores in scores_of(record).items()
        for name, value in scores.items()
        if value is not None
    }


def _part(name: str, *, oracle: bool) -> str:
    """What the values of a part begin with: an oracle's are drawn apart from those of runs that see no annotated spans.

    Of letters and underscores, because trackers refuse or replace other signs, and not the same ones.
    """
    return f"{name}_ORACLE" if oracle else name


def _be_one_process() -> None:
    """Tell accelerate that this process is alone: it wants to know before some of the trackers write messages.

    Variables that a launcher left behind would have it wait for other processes, and set threads and variables of this one.
    """
    from accelerate import PartialState
    from accelerate.utils import clear_environment

    with clear_environment():
        PartialState(cpu=True)


def _plain(value: Any) -> bool | int | float | str:
    """A setting as every tracker takes it."""
    return value if isinstance(value, bool | int | float | str) else "none" if value is None else str(value)


def _installed(name: str) -> Any:
    """Accelerate's class for a tracker."""
    try:
        from accelerate import tracking
    except ImportError:
        raise KitError(
            f"--tracker {name}: the package accelerate is not installed; pip install 'empathy-kit[track]' {name}"
        ) from None
    known: Iterable[str] = tracking.LOGGER_TYPE_TO_CLASS
    if name not in known:
        raise KitError(f"--tracker {name}: unknown, expected one of {', '.join(sorted(known))}")
    if name not in map(str, tracking.get_available_trackers()):
        raise KitError(f"--tracker {name}: the package {name.replace('_', '-')} is not installed; install it, or name another")
    return tracking.LOGGER_TYPE_TO_CLASS[name]
