"""Where the kit keeps what it would otherwise fetch or compute again, how much of it there is, and how it stays small."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from empathy_kit import locks
from empathy_kit.errors import KitError
from empathy_kit.files import sweep

if sys.platform != "win32":  # there, a file that is open cannot be deleted anyway
    import fcntl

LIMIT = 20 * 2**30
"""Bytes that the frozen layers' states may take, unless ``$EMPATHY_KIT_STATES_LIMIT`` names another number."""

RECENT = 60
"""Seconds in which the process that wrote a file opens it again: until then nothing holds it."""


KINDS = {  # the cache's folders: what is in each, and which of its files are the kit's own
    "states": ("frozen layers' states of posts, computed again when they are needed", "*.npy"),
    "epitome-reddit": ("the Reddit part of EPITOME, fetched again by --data reddit", "*.csv"),
    "encoders": ("unpacked encoders, unpacked again from their packages", "mpnet-*/*"),
    "kernels": ("the compiled losses, compiled again in seconds", "focal-*.so"),
}


class Entry(NamedTuple):
    """One file of the cache."""

    kind: str  # the name of the cache's folder that it is in, such as "states"
    path: Path
    size: int  # bytes


def cache_folder() -> Path:
    """``$EMPATHY_KIT_CACHE``, else ``empathy-kit`` in the user's cache folder."""
    given = os.environ.get("EMPATHY_KIT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "empathy-kit"


def entries() -> list[Entry]:
    """Every file of the cache, by kind and path."""
    folder, found, kinds = cache_folder(), [], []
    with suppress(OSError):  # there is none, or it cannot be one
        kinds = [path.name for path in folder.iterdir() if path.is_dir()]
    for kind in kinds:
        # A folder of the cache may be a link to a larger disk; links in it are not followed.
        for parent, _, names in os.walk(folder / kind):
            for path in (Path(parent, name) for name in names):
                with suppress(OSError):  # another process has just deleted it
                    found.append(Entry(kind, path, path.lstat().st_size))
    return sorted(found)


def own_entries(kinds: Iterable[str]) -> list[Entry]:
    """The files of some of `KINDS` that the kit has written: the folder may be somebody's, who keeps other files there."""
    folder = cache_folder()

    def is_own(entry: Entry) -> bool:
        pattern = Path(KINDS[entry.kind][1])
        path = entry.path.relative_to(folder / entry.kind)
        return len(path.parts) == len(pattern.parts) and path.match(str(pattern))

    wanted = set(kinds)
    return [entry for entry in entries() if entry.kind in wanted and is_own(entry)]


def clear(kinds: Iterable[str]) -> tuple[list[Entry], list[Entry]]:
    """Delete the kit's own files of some kinds; what is in use stays, and so does whatever else is in these folders.

    Args:
        kinds: names of `KINDS`.

    Returns:
        The files that were deleted, and the files of the kit that are still there.
    """
    gone: list[Entry] = []
    left: list[Entry] = []
    wanted = tuple(kinds)
    for kind in wanted:
        sweep(cache_folder() / kind)
    for entry in own_entries(wanted):
        (gone if _delete_unheld(entry.path) else left).append(entry)
    for parent in {entry.path.parent for entry in gone}:
        with suppress(OSError):  # something else is in it
            parent.rmdir()
    return gone, left


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may look into, and those above it that are missing.

    Raises:
        OSError: it cannot be made.
    """
    for missing in reversed([each for each in folder.parents if not each.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    with suppress(PermissionError):  # somebody else's, who has let this user in
        folder.chmod(0o700)


def states_limit() -> int:
    """Bytes that the frozen layers' states may take.

    Raises:
        KitError: ``$EMPATHY_KIT_STATES_LIMIT`` is not a number of bytes.
    """
    given = os.environ.get("EMPATHY_KIT_STATES_LIMIT") or str(LIMIT)
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise KitError(f"EMPATHY_KIT_STATES_LIMIT is {given[:40]!r}, expected a number of bytes such as {LIMIT}")
    return int(given)


def hold(stream: BinaryIO, path: Path) -> None:
    """Mark a file as used just now, and keep it from being cleared until nothing has it open or mapped any more."""
    with suppress(OSError):  # somebody else's, or on a file system that is only read
        os.utime(path)
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)


def clear_oldest(folder: Path, *, keep: Path, limit: int) -> None:
    """Delete the states that were not used for longest, until the others fit the limit; what is in use stays."""
    sweep(folder)
    found = []
    for path in folder.glob(KINDS["states"][1]):  # the folder may be somebody's, who keeps other files there
        with suppress(OSError):  # another process has just deleted it
            state = path.stat()
            found.append((state.st_mtime, state.st_size, path))
    used = sum(size for _, size, _ in found)
    for last, size, path in sorted(found):
        if used <= limit or last > time.time() - RECENT:
            break
        if path != keep and _delete_unheld(path):
            used -= size


def _delete_unheld(path: Path) -> bool:
    try:
        if sys.platform == "win32":  # deletes nothing that is open
            path.unlink()
            return True
        with path.open("rb") as stream:
            if locks.take(stream.fileno()) is False:
                return False
            path.unlink()
    except OSError:
        return False
    return True
