"""One process at a time holds a file; on a file system without locks, times tell who holds what."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from empathy_kit import KitError, files, locks
from empathy_kit.comparison import execute
from empathy_kit.inference import parts

HOLDS: dict[str, tuple[Callable[[Path], AbstractContextManager[None]], str, str]] = {
    "compare": (execute.alone, "out/.lock", "another process continues this comparison"),
    "predict": (parts.held, "out.parts/lock", "another job is writing it"),
}


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS], ids=errno.errorcode.get)
def lockless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", no_locks)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_is_held_is_refused_to_who_does_not_wait(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locks.alone(lock):
        for _ in range(2):  # who was refused has not removed it
            with pytest.raises(BlockingIOError, match=r"lock is held by another process$"), locks.alone(lock, wait=False):
                pass
    assert not lock.exists()
    with locks.alone(lock, wait=False):
        assert lock.exists()
    assert not lock.exists()


def test_what_another_has_put_in_a_locks_place_stays(tmp_path: Path) -> None:
    with locks.alone(tmp_path / "lock"):
        (tmp_path / "lock").unlink()  # as a finished job does
        with locks.alone(tmp_path / "other"):
            (tmp_path / "other").rename(tmp_path / "lock")
    assert names(tmp_path) == ["lock"]


def test_a_link_in_a_locks_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), locks.alone(tmp_path / "lock"):
        pass
    assert names(tmp_path) == ["lock"]


@pytest.mark.usefixtures("lockless")
def test_what_has_not_changed_for_long_is_swept(tmp_path: Path) -> None:
    for name, changed in (("old", 0), ("young", None)):
        folder = tmp_path / f".{name}.partial-00000000"
        folder.mkdir()
        for path in (folder / ".lock", tmp_path / f".{name}.partial-11111111"):
            path.touch()
            os.utime(path, None if changed is None else (changed, changed))
    files.write_whole(tmp_path / "file", "text")
    assert names(tmp_path) == [".young.partial-00000000", ".young.partial-11111111", "file"]


ABANDONED = 10
"""Seconds: a holder shows every half of one that it lives, and a busy machine does not keep it from that for so long."""


def unchanged(path: Path) -> None:
    """The last change of a file is longer ago than that."""
    os.utime(path, (time.time() - 2 * ABANDONED,) * 2)


@pytest.mark.usefixtures("lockless")
def test_a_name_is_held_as_long_as_its_holder_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "ABANDONED", ABANDONED)
    out = tmp_path / "out"
    with files.reserved(out) as partial:
        (partial / "kept").touch()
        unchanged(partial / ".lock")  # as if nothing were written for long
        latest = time.monotonic() + 60
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


@pytest.mark.usefixtures("lockless")
def test_a_name_is_free_as_soon_as_its_holder_lets_go(tmp_path: Path) -> None:
    with files.reserved(tmp_path / "out") as partial:
        (partial / "kept").touch()
    assert not files.is_held(partial)
    with files.reserved(tmp_path / "out") as again:
        assert names(again) == [".lock", "kept"]
        assert files.is_held(again)


@pytest.mark.usefixtures("lockless")
def test_without_locks_nobody_waits_but_who_asks_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locks.alone(lock), locks.alone(lock):
        with pytest.raises(BlockingIOError), locks.alone(lock, wait=False):
            pass
        assert lock.exists()
    assert not lock.exists()


@pytest.mark.usefixtures("lockless")
@pytest.mark.parametrize("name", HOLDS)
def test_without_locks_one_process_at_a_time_compares_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(locks, "ABANDONED", ABANDONED)
    hold, place, reason = HOLDS[name]
    lock, out = tmp_path / place, tmp_path / "out"
    refusal = rf"^--out {out}: {reason}; wait until it ends, or use another --out$"
    with hold(out):
        unchanged(lock)  # as if it were held for long
        latest = time.monotonic() + 60
        while time.time() - lock.stat().st_mtime > ABANDONED:
            assert time.monotonic() < latest
            time.sleep(0.01)
        with pytest.raises(KitError, match=refusal), hold(out):
            pass
    assert names(tmp_path) == []  # free at once
    lock.parent.mkdir()
    lock.touch()  # as a killed process leaves it
    with pytest.raises(KitError, match=refusal), hold(out):
        pass
    unchanged(lock)
    with hold(out):
        pass
    assert not lock.exists()
