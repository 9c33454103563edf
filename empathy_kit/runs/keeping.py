"""When a run's state is written while it trains, and what is left of it, however it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_kit.errors import KitError
from empathy_kit.runs import checkpoints
from empathy_kit.runs.reservation import Elsewhere
from empathy_kit.runs.signals import held

if TYPE_CHECKING:
    from empathy_kit.core.state import Epoch, TrainState
    from empathy_kit.core.trainer import Step

SHARE = 0.01  # of a run's time that epochs' ends may spend on checkpoints


@dataclass(frozen=True)
class Unkept:
    """The state of the run cannot be written at present; training continues. Yielded once per run."""

    reason: str

    def __str__(self) -> str:
        return f"the run's state cannot be written: {self.reason}; training continues, and what was written before is kept"


class Keeper:
    """Keeps a run's state: every few minutes, at an epoch's end, and whenever the run is stopped between two steps.

    Where epochs are so short that writing at each one's end would take more than 1 % of the time, some are passed over, never
    the first.
    """

    def __init__(
        self,
        partial: Path,
        found: checkpoints.Checkpoint | None,
        identity: Mapping[str, Any],
        state: TrainState,
        *,
        minutes: float,
    ) -> None:
        """Load what was found, if anything."""
        self.writer = checkpoints.Writer(partial, found)
        self.identity, self.state, self.minutes = identity, state, minutes
        self._written = time.monotonic()
        self._kept: tuple[int, int] | None = None  # the position of the last checkpoint
        self._owed = False
        self._whole = True  # not in the midst of a step
        if found is None:
            self._write(None, complete=True)  # from now on --resume knows what the run is
        elif found.packed is not None:
            state.load_state_dict(found.state())
            self._kept = self._position()

    @contextmanager
    def until_finished(self) -> Iterator[None]:
        """Keep the state where the context ends with an exception, unless it would only end with the same one again."""
        try:
            yield
        except BaseException as error:
            with held():
                self._end(error)
            left = (self._whole and not isinstance(error, Elsewhere)) or _is_lost(error)
            if isinstance(error, KitError) and left and self._has_state():
                raise KitError(f"{error}; the run's state is in {self.writer.partial}, for --resume") from None
            raise

    def _has_state(self) -> bool:
        """Whether any checkpoint that is there holds more than the settings of the run."""
        return any((folder / checkpoints.TENSORS).is_file() for folder in checkpoints.folders(self.writer.partial))

    def _end(self, error: BaseException) -> None:
        """What is left on disk."""
        # Whatever a step has raised, its state is half-changed. A fault in the loss would come back: the bits are the same.
        fault = isinstance(error, Elsewhere) or (isinstance(error, KitError) and not self._whole and not _is_lost(error))
        self.writer.wait()
        missing = self.writer.failed or not checkpoints.folders(self.writer.partial)  # removed, to make room
        if self._whole and not fault and self.state.pairs and (missing or self._kept != self._position()):
            self._save(complete=True)
        if fault or self._kept is None:
            checkpoints.clear(self.writer.partial)

    def steps(self, events: Iterator[Step | Epoch]) -> Iterator[Step | Epoch | Unkept]:
        """The events of training, with the state written between them."""
        while True:
            with held():
                self._whole = False
                event = next(events, None)
                self._whole = True
                if event is not None and self._is_due(event):
                    self._save()
            if event is None:
                return
            yield event
            reason = self.writer.fault()
            if reason is not None:
                yield Unkept(reason)

    def _is_due(self, event: Step | Epoch) -> bool:
        from empathy_kit.core.state import Epoch

        if not self.minutes:  # after every step
            return True
        passed = time.monotonic() - self._written
        ends = isinstance(event, Epoch) and (self._kept is None or passed * SHARE >= self.writer.seconds)
        self._owed = self._owed or ends or passed >= 60 * self.minutes
        return self._owed and not self.writer.busy

    def _save(self, *, complete: bool = False) -> None:
        self._write(self.state.state_dict(), complete=complete)
        self._written, self._kept, self._owed = time.monotonic(), self._position(), False

    def _write(self, state: Mapping[str, Any] | None, *, complete: bool) -> None:
        epoch, step = self._position()
        done = f"epoch {epoch}, step {step}" if step else f"epoch {epoch - 1}"
        self.writer.save({**self.identity, "position": done}, state, complete=complete)

    def _position(self) -> tuple[int, int]:
        return self.state.epoch, self.state.step


def _is_lost(error: BaseException) -> bool:
    """Whether another process has ended: nothing is wrong with this one's state but that a step was begun."""
    from empathy_kit.core.processes import Lost

    return isinstance(error, Lost)
