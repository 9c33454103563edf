"""Libraries that print, kept quiet: in this process, and in those that it starts."""

from __future__ import annotations

import os


def quiet_libraries() -> None:
    """Silence libraries, whose progress bars and advice would mix with the kit's. Call this before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, tokenizers warns once a process is forked
