"""On a file system without locks, times tell who holds what."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from empathy_kit import files, locks


@pytest.fixture(autouse=True, params=[errno.ENOLCK, errno.ENOSYS], ids=errno.errorcode.get)
def lockless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", no_locks)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_has_not_changed_for_long_is_swept(tmp_path: Path) -> None:
    for name, changed in (("old", 0), ("young", None)):
        folder = tmp_path / f".{name}.partial-00000000"
        folder.mkdir()
        for path in (folder / ".lock", tmp_path / f".{name}.partial-11111111"):
            path.touch()
            os.utime(path, None if changed is None else (changed, changed))
    files.write_whole(tmp_path / "file", "text")
    assert names(tmp_path) == [".young.partial-00000000", ".young.partial-11111111", "file"]


def unchanged(path: Path) -> None:
    """The last change of a file is two seconds ago."""
    os.utime(path, (time.time() - 2, time.time() - 2))


def test_a_name_is_held_as_long_as_its_holder_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "ABANDONED", 1)
    out = tmp_path / "out"
    with files.reserved(out) as partial:
        (partial / "kept").touch()
        unchanged(partial / ".lock")  # as if nothing were written for long
        latest = time.monotonic() + 10
        while not files.is_held(partial):
            assert time.monotonic() < latest
            time.sleep(0.01)
        assert not files.remove_abandoned(partial)
        with pytest.raises(BlockingIOError, match=r"out\.partial is held by another process$"), files.reserved(out):
            pass
    (partial / ".lock").touch()  # as a killed process leaves it
    assert files.is_held(partial)
    unchanged(partial / ".lock")
    assert not files.is_held(partial)


def test_a_name_is_free_as_soon_as_its_holder_lets_go(tmp_path: Path) -> None:
    with files.reserved(tmp_path / "out") as partial:
        (partial / "kept").touch()
    assert not files.is_held(partial)
    with files.reserved(tmp_path / "out") as again:
        assert names(again) == [".lock", "kept"]
        assert files.is_held(again)
