"""Fixtures of the command line's tests: an empty folder, and the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_reply import Reply

from empathy_kit.plugins import ONLY


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, with no third party's plugin, and with the environment put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ONLY, "")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))


@pytest.fixture
def kit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Reply:
    """Runs ``empathy-kit`` with some arguments: exit code, stdout, stderr."""
    return Reply(capsys, monkeypatch)
