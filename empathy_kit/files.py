"""The one way to write a file or a folder: whole or not at all, and on disk before it has its name."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def staging_name(path: Path) -> Path:
    """A name next to ``path`` to write under until all is written."""
    # Not the process's number: in a container it may be the same every time, and a killed process leaves its file behind.
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that is never seen half-written; text as UTF-8.

    Raises:
        OSError: it cannot be written. What stood there before is still there.
    """
    staging = staging_name(path)
    try:
        with staging.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
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
    staging = staging_name(out)
    staging.mkdir()
    try:
        yield staging
        sync(staging)
        refuse_existing(out)  # it may have appeared meanwhile, and an empty folder would be renamed over
        staging.rename(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def refuse_existing(path: Path) -> None:
    """Nothing may be at a path, not even a link that leads nowhere.

    Raises:
        FileExistsError: there is something.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} already exists")


def sync(path: Path) -> None:
    """Force a file, or a folder with all that it holds, onto the disk."""
    # Renamed before its bytes are on disk, a file could be whole by name and empty after a power cut.
    inside = path.rglob("*") if path.is_dir() else ()
    for each in (*inside, path):
        if os.name == "nt" and each.is_dir():
            continue  # Windows does not open folders
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
