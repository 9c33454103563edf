"""Locks on open files, which the system lets go of when a process ends; and what tells where a file system has none."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"  # in a folder: held by whoever writes there

ABANDONED = 3600
"""Seconds without a change after which nobody is taken to be writing something, on a file system that has no locks."""

LET_GO = 0  # the time of a lock's last change, by which its holder marks there that it is nobody's any more


def open_file(lock: Path) -> tuple[int, bool]:
    """A lock's file, open, and whether it is new."""
    with suppress(FileExistsError):
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    return os.open(lock, os.O_RDWR | os.O_CREAT, 0o666), False


def take(descriptor: int) -> bool | None:
    """Lock an open file for as long as it is open; False where another has it, None where there are no locks."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process of this machine holds a file, which is made for that and removed at the end.

    Where there are no locks, nobody waits.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        descriptor, _ = open_file(path)
        try:
            while (locked := take(descriptor)) is False:
                time.sleep(0.1)
            if locked is None or is_still(descriptor, path):
                try:
                    yield
                finally:
                    with suppress(OSError):  # where a file that is open cannot be removed, it stays
                        path.unlink()
                return
        finally:
            os.close(descriptor)


def is_abandoned(descriptor: int, path: Path) -> bool:
    """Whether nobody holds a file; if so, this process does from now on, until it closes it."""
    locked = take(descriptor)
    return (is_idle(descriptor) if locked is None else locked) and is_still(descriptor, path)


def is_idle(descriptor: int) -> bool:
    """Whether an open file is nobody's on a file system without locks, as far as the time of its last change tells."""
    return time.time() - os.fstat(descriptor).st_mtime > ABANDONED


@contextmanager
def kept_fresh(path: Path) -> Iterator[None]:
    """Change a file's time again and again: where there are no locks, that shows that it is held."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(ABANDONED / 20):
            with suppress(OSError):  # a share that is lost for a while
                os.utime(path)

    os.utime(path)
    thread = threading.Thread(target=beat, name="empathy-kit lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_still(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of its name: another process may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
