"""Where the kit keeps what it would otherwise fetch or compute again, and how much of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LIMIT = 20 * 2**30
"""Bytes that the frozen layers' states may take, unless ``$EMPATHY_KIT_STATES_LIMIT`` names another number."""


def cache_folder() -> Path:
    """``$EMPATHY_KIT_CACHE``, else ``empathy-kit`` in the user's cache folder."""
    given = os.environ.get("EMPATHY_KIT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "empathy-kit"


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may look into.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(PermissionError):  # somebody else's, who has let this user in
        folder.chmod(0o700)


def clear_oldest(folder: Path, *, keep: Path) -> None:
    """Delete the files that were not used for longest, until the others fit the limit; what cannot be deleted stays."""
    limit = int(os.environ.get("EMPATHY_KIT_STATES_LIMIT", LIMIT))
    found = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process has just deleted it
            state = path.stat()
            found.append((path == keep, state.st_mtime, state.st_size, path))
    used = sum(size for _, _, size, _ in found)
    for kept, _, size, path in sorted(found):
        if used <= limit or kept:
            break
        with suppress(OSError):
            path.unlink()
            used -= size


def sizes() -> dict[str, int]:
    """Bytes of each part of the cache, by the name of its folder."""
    folder = cache_folder()
    parts = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return {part.name: sum(path.stat().st_size for path in part.rglob("*") if path.is_file()) for part in parts}
