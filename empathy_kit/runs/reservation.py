"""The name of a run, held from before the work until its directory is there; what is finished is never thrown away."""

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
from empathy_kit.runs.record import seal, verify

RESULT = "result"  # in the folder that reserves a name: the run, until all of it is there


@dataclass(frozen=True)
class Reservation:
    """The name of a run that is being trained, held against all other processes."""

    out: Path  # where the run is to lie
    partial: Path  # next to it, until it is finished

    def leave(self, write: Callable[[Path, bool], None], *, model: bool = True) -> Path:
        """Leave a finished run where it is to lie, or, before it is lost, wherever it can be left.

        Args:
            write: writes the run into a folder, with its model or without.
            model: whether the model is to be there too.

        Raises:
            KitError: something has taken the name meanwhile, or the run cannot be written there (a full disk, say); the message
                names where it is now.
        """
        reason: OSError | None = None
        for whole in dict.fromkeys((model, False)):
            for there in (self.partial, None):  # None: another file system may have room, or still be there
                try:
                    folder = self._finish(there or Path(tempfile.mkdtemp(prefix="empathy-kit-")), write, whole, anew=not there)
                except OSError as error:
                    reason = reason or error
                    continue
                if folder == self.out and whole == model:
                    return folder
                why = "was taken by something else" if reason is None else f"cannot be written: {_why(reason)}"
                without = ", without its model" if model and not whole else ""
                raise KitError(f"--out {self.out}: {why}; the finished run is in {folder}{without}")
        raise KitError(f"--out {self.out}: cannot be written: {_why(reason)}")

    def _finish(self, home: Path, write: Callable[[Path, bool], None], model: bool, *, anew: bool) -> Path:
        staging = home / RESULT
        try:
            staging.mkdir()
            write(staging, model)
            seal(staging)
            files.sync(staging)
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
def reserved(out: Path, *, numbered: bool = False, wait: float = files.GLANCE) -> Iterator[Reservation]:
    """Hold a run's name from before the work until it is there: ``<out>.partial/`` next to it is this process's alone.

    What killed processes have left in this place is cleared away; a run that such a process had finished gets its name.

    Args:
        out: the run directory, which must not exist.
        numbered: where it does, or another process holds its name, take the first free number after it.
        wait: seconds to wait for a process that holds the name.

    Raises:
        KitError: there is something of that name, another process is writing it, or it cannot be written.
    """
    if "\0" in str(out):
        raise KitError(f"--out {str(out)!r}: a NUL byte found, expected a folder's name")
    if out.name == "..":  # it is there as soon as its parents are made
        raise KitError(f"--out {out}: leads back to a folder above, expected a new name")
    with ExitStack() as stack:
        for candidate in _numbered(out) if numbered else (out,):
            try:
                files.refuse_existing(candidate)
                partial = stack.enter_context(files.reserved(candidate, wait=wait))
                _clear(partial)
                files.refuse_existing(candidate)
                break
            except BlockingIOError:
                problem = "another process is writing it; wait until it ends, or use another --out"
            except FileExistsError as error:
                problem = "already exists; a run never overwrites another, expected a new name"
                if not os.path.lexists(candidate):
                    problem = f"{error}, expected a new name"
            except OSError as error:
                raise KitError(f"--out {out}: cannot be written: {_why(error)}") from None
            stack.close()
        else:
            raise KitError(f"--out {out}: {problem}")
        for other in candidate.parent.glob(f"*{files.PARTIAL}"):
            with files.taken_over(other) as abandoned:
                if abandoned and {path.name for path in other.iterdir()} <= {files.LOCK, RESULT}:
                    _clear(other)
        yield Reservation(candidate, partial)


def _clear(partial: Path) -> None:
    """Take away what a killed process was writing; a run that was whole, and only lacked its name, is given it."""
    left = partial / RESULT
    with suppress(KitError):
        verify(left)
        _named(left, partial.with_name(partial.name.removesuffix(files.PARTIAL)))
    shutil.rmtree(left, ignore_errors=True)


def _why(error: OSError | None) -> str:
    return str(error and (error.strerror or error))
