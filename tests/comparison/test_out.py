"""Where a comparison is written: refused in one line, and nothing is left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from empathy_kit import KitError, locks
from empathy_kit.cli import cli


def test_a_call_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for out in (there, tmp_path / "new" / "out"):
        result = CliRunner().invoke(cli, ["compare", "bad=--loss missing", "--out", str(out)])
        assert str(result.exception).startswith("compare bad: --loss missing: unknown")
    assert list(tmp_path.rglob("*")) == [there]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    for out, why in ((tmp_path / ("n" * 300), "File name too long"), (tmp_path / "file" / "out", "Not a directory")):
        (tmp_path / "file").touch()
        result = CliRunner().invoke(cli, ["compare", "T1", "--out", str(out)])
        assert isinstance(result.exception, KitError)
        assert str(result.exception) == f"--out {out}: cannot be written: {why}"


def test_where_there_is_no_room_for_a_lock_no_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> tuple[int, bool]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(locks, "open_file", full)
    out = tmp_path / "new" / "out"
    result = CliRunner().invoke(cli, ["compare", "T1", "--out", str(out)])
    assert str(result.exception) == f"--out {out}: cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []
