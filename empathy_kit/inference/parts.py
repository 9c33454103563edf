"""The folder of a job's finished parts, next to its output: held by one job at a time, and never somebody else's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from empathy_kit import locks
from empathy_kit.errors import KitError

JOB, DONE, LOCK, JOINED = "job.json", "done.json", "lock", "joined"


def parts_of(out: Path) -> Path:
    """The folder of an output's finished parts."""
    return out.with_name(f"{out.name}.parts")


def remove_parts(out: Path, *, only_empty: bool = False) -> None:
    """Remove a finished output's parts.

    What shows that the output is whole goes last: a job that is killed here is still known to be complete.
    """
    parts = parts_of(out)
    names = {path.name for path in parts.iterdir()} if parts.is_dir() else {""}
    if only_empty and not names <= {LOCK}:
        return
    for path in (parts / name for name in [*sorted(names - {"", LOCK, DONE}), DONE]):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    with suppress(OSError):  # a file that is open has a name in the folder on some shares, until `held` closes it
        (parts / LOCK).unlink(missing_ok=True)
        parts.rmdir()


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold an output's parts, whose folder is made where it is missing, and removed at the end where no part is finished.

    Raises:
        KitError: another job holds them, or something else has the folder's name.
        OSError: it cannot be made.
    """
    parts = parts_of(out)
    _refuse_foreign(parts, out)
    parts.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locks.alone(parts / LOCK, wait=False))
            except BlockingIOError:
                raise KitError(f"--out {out}: another job is writing it; wait until it ends, or use another --out") from None
            try:
                yield
            finally:
                with suppress(OSError):  # what is not renamed yet is joined anew; a disk that it has filled up would stay full
                    (parts / JOINED).unlink(missing_ok=True)
                if not any(parts.glob("[0-9]*")):  # no finished part to continue from
                    shutil.rmtree(parts, ignore_errors=True)
    finally:
        with suppress(OSError):  # it is gone, or not empty
            parts.rmdir()


def _refuse_foreign(parts: Path, out: Path) -> None:
    """Refuse a folder of the user's own, because a finished job's folder is removed with all that is in it."""
    names = {path.name for path in parts.iterdir()} if parts.is_dir() else set()
    if parts.is_symlink() or (parts.exists() and not parts.is_dir()) or (names and not names & {LOCK, JOB}):
        raise KitError(f"--out {out}: {parts} is in the way and holds no job; move it away, or use another --out")
