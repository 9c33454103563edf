"""Locks on open files, which the system lets go of when a process ends; and what tells where a file system has none."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

LOCK = ".lock"  # in a folder: held by whoever writes there

ABANDONED = 3600
"""Seconds without a change after which nobody is taken to be writing something, on a file system that has no locks."""

LET_GO = 0  # the time of a lock's last change, by which its holder marks there that it is nobody's any more

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag


def open_file(lock: Path) -> tuple[int, bool]:
    """A lock's file, open, and whether it is new. A link in its place is refused: it would lock or make a file elsewhere."""
    with suppress(FileExistsError):
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    return os.open(lock, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666), False


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
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file, which is made for that and removed at the end, as the only process of this machine.

    Args:
        path: the file.
        wait: wait until no other process holds it; where there are no locks, nobody waits. If False, a file that is held is
            refused, there as well.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is False.
        OSError: it cannot be made.
    """
    while True:
        with ExitStack() as stack:
            descriptor, new = open_file(path)
            stack.callback(os.close, descriptor)
            while (locked := take(descriptor)) is False and wait:
                time.sleep(0.1)
            if not wait and (locked is False or (locked is None and not new and not is_idle(descriptor))):
                raise BlockingIOError(f"{path} is held by another process")
            if not is_still(descriptor, path):
                continue
            try:
                with nullcontext() if wait or locked else kept_fresh(path):
                    yield
            finally:
                own = is_still(descriptor, path)  # whoever holds it may have removed it, and then its name may be another's
                if sys.platform == "win32":  # deletes nothing that is open
                    stack.close()
                if own:
                    with suppress(OSError):
                        path.unlink()
            return


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
