"""A run's name, reserved before the work until its directory exists; finished work is never deleted."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from empathy_kit import files
from empathy_kit.errors import KitError
from empathy_kit.runs import checkpoints
from empathy_kit.runs.record import Damaged, Unreadable, seal, verify

RESULT = "result"  # in the folder that reserves a name: the run, until all of it is there


class Elsewhere(KitError):  # noqa: N818 - a KitError like any other
    """A finished run is not where it was to be; the message names where it is."""


class Recovered(KitError):  # noqa: N818 - a KitError like any other
    """The run that was stopped here had been finished and only lacked its name; it has its name now."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"--out {folder}: holds the run that was stopped here, which was finished; use another --out")
        self.folder = folder


@dataclass(frozen=True)
class Reservation:
    """The name of a run in training, locked against all other processes."""

    out: Path  # the run's final place
    partial: Path  # next to it, until it is finished

    def leave(self, write: Callable[[Path, bool], None], *, model: bool = True) -> Path:
        """Move a finished run to its place, or to any other place before it is lost.

        Args:
            write: writes the run into a folder, with its model or without.
            model: whether to write the model too.

        Raises:
            Elsewhere: the name was taken meanwhile, or the run cannot be written there (for example on a full disk).
            KitError: it cannot be written anywhere.
        """
        checkpoints.clear(self.partial, keep=1)  # room for the run itself
        reason: OSError | None = None
        for at, (there, whole) in enumerate(self._places(model)):
            if at == 2:
                checkpoints.clear(self.partial)  # it is several times as large as the model
            try:
                folder = self._finish(there or Path(tempfile.mkdtemp(prefix="empathy-kit-")), write, whole, anew=not there)
            except OSError as error:
                reason = reason or error
                continue
            if folder == self.out and whole == model:
                return folder
            why = "was taken by something else" if reason is None else f"cannot be written: {_why(reason)}"
            without = ", without its model" if model and not whole else ""
            raise Elsewhere(f"--out {self.out}: {why}; the finished run is in {folder}{without}")
        raise KitError(f"--out {self.out}: cannot be written: {_why(reason)}")

    def _places(self, model: bool) -> list[tuple[Path | None, bool]]:
        """Where to write, and whether with the model, best first; None: a temporary folder, whose file system may have room."""
        once = [(self.partial, model), (None, model), (self.partial, model)]
        return [*once, (self.partial, False), (None, False)] if model else once

    def _finish(self, home: Path, write: Callable[[Path, bool], None], model: bool, *, anew: bool) -> Path:
        staging = home / RESULT
        try:
            if not anew:  # who deleted it deleted no finished run
                home.mkdir(exist_ok=True)
            staging.mkdir()
            write(staging, model)
            seal(staging)
            files.sync(staging)
            if not anew:
                checkpoints.clear(home)  # where this process ends here, the next one gives the run its name
            return _named(staging, home / self.out.name if anew else self.out)
        except BaseException:
            shutil.rmtree(home if anew else staging, ignore_errors=True)
            raise


def _named(staging: Path, out: Path) -> Path:
    """Give a finished run its name, or the first free number after it."""
    for candidate in _numbered(out):
        try:
            files.refuse_existing(candidate)  # an empty folder would be renamed over
            return staging.rename(candidate)
        except FileExistsError:
            continue
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _numbered(out: Path) -> Iterator[Path]:
    return (out if turn == 1 else out.with_name(f"{out.name}-{turn}") for turn in range(1, 10_000))


@contextmanager
def reserved(
    out: Path,
    *,
    numbered: bool = False,
    wait: float = files.GLANCE,
    fits: Callable[[Path], bool] | None = None,
) -> Iterator[Reservation]:
    """Reserve a run's name until the run is written: this process alone owns ``<out>.partial/`` next to it.

    Leftovers of killed processes are removed, except checkpoints; a run that such a process had finished is moved to its name.

    Args:
        out: the run directory, which must not exist.
        numbered: if it exists, another process holds its name, or what is left there does not fit, append the first free number.
        wait: seconds to wait for a process that holds the name.
        fits: whether what a stopped run left in a folder can be continued.

    Raises:
        Recovered: what was left there was a finished run, which is moved to its name.
        KitError: the name exists, another process is writing it, or it cannot be written.
    """
    if "\0" in str(out):
        raise KitError(f"--out {str(out)!r}: a NUL byte found, expected a folder's name")
    if out.name == "..":  # it exists as soon as its parents do
        raise KitError(f"--out {out}: leads back to a folder above, use another --out")
    with ExitStack() as stack:
        for candidate in _numbered(out) if numbered else (out,):
            try:
                files.refuse_existing(candidate)
                partial = stack.enter_context(files.reserved(candidate, wait=wait))
                if _clear(partial) == candidate:
                    raise Recovered(candidate)
                files.refuse_existing(candidate)
                if not numbered or fits is None or fits(partial):
                    break
                problem = f"{partial} holds a stopped run with other settings; use another --out"
            except BlockingIOError:
                problem = "another process is writing it; wait until it ends, or use another --out"
            except FileExistsError as error:
                problem = "already exists; a run never overwrites another, use another --out"
                if not os.path.lexists(candidate):
                    problem = f"{error}; use another --out"
            except OSError as error:
                raise KitError(f"--out {out}: cannot be written: {_why(error)}") from None
            stack.close()
        else:
            raise KitError(f"--out {out}: {problem}")
        for other in candidate.parent.glob(f"*{files.PARTIAL}"):
            with files.taken_over(other) as abandoned:
                if abandoned and all(_is_ours(path.name) for path in other.iterdir()):
                    with suppress(Unreadable):  # of another run, which may be read again later
                        _clear(other)
        try:
            yield Reservation(candidate, partial)
        finally:
            shutil.rmtree(partial / RESULT, ignore_errors=True)


def _is_ours(name: str) -> bool:
    return name in (files.LOCK, RESULT) or checkpoints.NAME.fullmatch(name) is not None


def _clear(partial: Path) -> Path | None:
    """Remove the leftovers of a killed process; a run that was complete and only lacked its name is moved to it, and returned.

    Checkpoints stay, unless their run was complete.

    Raises:
        Unreadable: nobody knows whether it was complete.
    """
    left, named = partial / RESULT, None
    with suppress(Damaged):
        verify(left)
        checkpoints.clear(partial)
        named = _named(left, partial.with_name(partial.name.removesuffix(files.PARTIAL)))
    shutil.rmtree(left, ignore_errors=True)
    return named


def _why(error: OSError | None) -> str:
    return str(error and (error.strerror or error))
