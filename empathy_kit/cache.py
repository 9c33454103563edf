"""Where the kit keeps what it would otherwise fetch or compute again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$EMPATHY_KIT_CACHE``, else ``empathy-kit`` in the user's cache folder."""
    given = os.environ.get("EMPATHY_KIT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "empathy-kit"
