"""The one way to write a file or a folder: whole or not at all, on disk before it has its name, and never by two at once."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from empathy_kit import locks
from empathy_kit.locks import LOCK as LOCK

PARTIAL = ".partial"  # ends the name of the folder that reserves another's

GLANCE = 0.3  # seconds: who sweeps looks at a folder for less

_STAGED = re.compile(r"\..+\.partial-[0-9a-f]{8}")
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would end lines otherwise


def staging_name(path: Path) -> Path:
    """A name next to ``path`` to write under until all is written."""
    # Not the process's number: in a container it may be the same every time, and a killed process leaves its file behind.
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that is never seen half-written; text as UTF-8.

    Raises:
        OSError: it cannot be written. What stood there before is still there.
    """
    with staged_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def staged_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A stream to write a file through that is never seen half-written; the first exception leaves what stood there before.

    Raises:
        OSError: it cannot be written.
    """
    sweep(path.parent)
    while True:  # until one is held before somebody who sweeps comes upon it
        staging = staging_name(path)
        stream = os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, mode), "wb")
        if locks.take(stream.fileno()) is not False and locks.is_still(stream.fileno(), staging):
            break
        stream.close()
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if sys.platform == "win32":  # renames nothing that is open
                stream.close()
            staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A folder next to ``out`` to write into; it becomes ``out`` at the end, or vanishes with the first exception.

    Raises:
        FileExistsError: ``out`` exists.
        OSError: something cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with workspace(out) as holder:
        staging = holder / out.name
        staging.mkdir()
        yield staging
        sync(staging)
        refuse_existing(out)  # it may have appeared meanwhile, and an empty folder would be renamed over
        staging.rename(out)


@contextmanager
def workspace(path: Path, *, sweeps: bool = True) -> Iterator[Path]:
    """A folder next to ``path`` to work in, removed at the end; where this process is killed, by the next that sweeps there.

    Args:
        path: the file that is made.
        sweeps: remove what others that are gone have left there; every name in the folder is read for it.

    Raises:
        OSError: it cannot be made.
    """
    if sweeps:
        sweep(path.parent)
    with ExitStack() as stack:
        folder = None
        while folder is None:  # as for a file
            with suppress(BlockingIOError):
                folder = stack.enter_context(_owned(staging_name(path)))
        yield folder


@contextmanager
def reserved(out: Path, *, wait: float = GLANCE) -> Iterator[Path]:
    """Hold the name of a folder that is to be: ``<out>.partial/`` next to it, until the context ends.

    What a process that was killed has left there is still there at first. At the end the folder is removed, unless something
    is in it.

    Args:
        out: the name.
        wait: seconds to wait for another process that holds it.

    Raises:
        FileExistsError: ``out`` is there, or ``<out>.partial`` is, and is none of this function's.
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    made = [folder for folder in out.absolute().parents if not folder.exists()]
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # and is a file
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        end = time.monotonic() + wait
        with ExitStack() as stack:
            while True:
                refuse_existing(out)
                try:
                    partial = stack.enter_context(_owned(out.with_name(out.name + PARTIAL), keep_full=True))
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise
                    time.sleep(0.1)
            refuse_existing(out)  # whoever held the name may have made it
            yield partial
    finally:
        with suppress(OSError):  # the first that holds something
            for folder in made:
                folder.rmdir()


@contextmanager
def taken_over(partial: Path) -> Iterator[bool]:
    """Whether a folder that reserves a name is nobody's any more; if so, it is held until the context ends.

    It is removed at the end where nothing but its lock is left in it.
    """
    with ExitStack() as stack:
        descriptor = None
        with suppress(OSError):
            descriptor = os.open(partial / LOCK, os.O_RDWR)  # without a lock it is somebody's own folder
            stack.callback(os.close, descriptor)
        free = descriptor is not None and locks.is_abandoned(descriptor, partial / LOCK)
        yield free
        if free and descriptor is not None:
            _remove(partial, descriptor, stack, keep_full=True)


def remove_abandoned(partial: Path) -> bool:
    """Remove a folder that reserves a name, with all that is in it, if it is nobody's any more; whether it was.

    Raises:
        OSError: something in it cannot be removed.
    """
    with taken_over(partial) as free:
        if free:
            for each in partial.iterdir():
                if each.name != LOCK:
                    shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    return free


def is_held(partial: Path) -> bool:
    """Whether a process is writing in a folder that reserves a name."""
    try:
        try:
            descriptor = os.open(partial / LOCK, os.O_RDWR)
        except PermissionError:  # another user's
            descriptor = os.open(partial / LOCK, os.O_RDONLY)
    except PermissionError:  # who may not look cannot tell, and must not take it for nobody's
        return True
    except OSError:  # without a lock it is nobody's
        return False
    try:
        return not locks.is_abandoned(descriptor, partial / LOCK)
    finally:
        os.close(descriptor)


@contextmanager
def _owned(folder: Path, *, keep_full: bool = False) -> Iterator[Path]:
    """A folder that this process holds, made where it is missing; removed at the end with all that is in it, or if empty."""
    with ExitStack() as stack:
        seen = 0  # how often something was in the way: another process that is just leaving may look so once
        for _ in range(100):
            with suppress(FileExistsError):
                folder.mkdir()
            try:
                if not folder.is_dir() or folder.is_symlink() or (any(folder.iterdir()) and not (folder / LOCK).exists()):
                    seen += 1
                    if seen == 10:
                        raise FileExistsError(f"{folder} is in the way")
                    time.sleep(0.01)
                    continue
                descriptor, new = locks.open_file(folder / LOCK)
            except FileNotFoundError:  # swept in this very moment
                continue
            except OSError:  # no room for the lock, without which nobody could tell that the folder is left behind
                with suppress(OSError):  # not empty
                    folder.rmdir()
                raise
            stack.callback(os.close, descriptor)
            locked = locks.take(descriptor)
            if locked is False or (locked is None and not new and not locks.is_idle(descriptor)):
                raise BlockingIOError(f"{folder} is held by another process")
            if locks.is_still(descriptor, folder / LOCK):
                break
            stack.close()
        else:
            raise BlockingIOError(f"{folder} is removed again and again")
        try:
            with nullcontext() if locked else locks.kept_fresh(folder / LOCK):
                yield folder
        finally:
            _remove(folder, descriptor, stack, keep_full=keep_full)


def _remove(folder: Path, descriptor: int, stack: ExitStack, *, keep_full: bool = False) -> None:
    """Remove a folder that is held. Its lock goes last: from then on it may be another's."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != LOCK:
                if keep_full:
                    if locks.take(descriptor) is None:
                        os.utime(folder / LOCK, (locks.LET_GO, locks.LET_GO))
                    return
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()
        if sys.platform == "win32":  # deletes nothing that is open
            stack.close()
        (folder / LOCK).unlink()
        folder.rmdir()


def sweep(folder: Path) -> None:
    """Remove the staging files and folders in a folder whose writers are gone."""
    with suppress(OSError):  # it is missing, or may not be read
        for path in folder.iterdir():
            if _STAGED.fullmatch(path.name):
                with suppress(OSError):  # another process has just removed it, or it is somebody else's
                    _sweep(path)


def _sweep(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if not (path / LOCK).exists():
            if time.time() - path.stat().st_mtime > locks.ABANDONED:  # an earlier version's
                shutil.rmtree(path)
            return
        remove_abandoned(path)
        return
    descriptor = os.open(path, os.O_RDWR | _BINARY)
    try:
        if locks.is_abandoned(descriptor, path):
            if sys.platform == "win32":
                os.close(descriptor)
            path.unlink()
    finally:
        with suppress(OSError):
            os.close(descriptor)


def refuse_existing(path: Path) -> None:
    """Nothing may be at a path, not even a link that leads nowhere.

    Raises:
        FileExistsError: there is something.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} already exists")


def sha256(path: Path) -> str:
    """A hash of a file's bytes, of which few are in memory at once.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path, *, inside: bool = True) -> None:
    """Force a file, or a folder with all that it holds, onto the disk; of a folder without its inside, the names in it."""
    # Renamed before its bytes are on disk, a file could be whole by name and empty after a power cut.
    parts = path.rglob("*") if inside and path.is_dir() else ()
    for each in (*parts, path):
        if os.name == "nt" and each.is_dir():
            continue  # Windows does not open folders
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
