"""A file or a folder is written whole or not at all: never half, never over what must stay, never named before it is on disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread, Timer

import pytest

from empathy_kit import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a hug \U0001f917\n", b"a hug \xf0\x9f\xa4\x97\n"),
        ("one\r\ntwo\n", b"one\r\ntwo\n"),  # no line ending is translated, on any system
        (bytes(range(256)), bytes(range(256))),
        ("", b""),
    ],
)
def test_a_file_holds_just_what_was_given_and_nothing_stands_beside_it(
    tmp_path: Path, content: str | bytes, expected: bytes
) -> None:
    files.write_whole(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == expected
    files.write_whole(tmp_path / "file", "another")
    assert (tmp_path / "file").read_text() == "another"
    assert names(tmp_path) == ["file"]


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(descriptor: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("fault", "expected"), [(full_disk, OSError), (interrupted, KeyboardInterrupt)])
def test_a_write_that_fails_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], None], expected: type[BaseException]
) -> None:
    path = tmp_path / "file"
    files.write_whole(path, "before")
    monkeypatch.setattr(os, "fsync", fault)
    with pytest.raises(expected):
        files.write_whole(path, "after")
    assert path.read_text() == "before"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(("name", "reason"), [("folder", IsADirectoryError), ("no/file", FileNotFoundError)])
def test_a_place_where_no_file_can_be_is_an_os_error_and_nothing_is_left(
    tmp_path: Path, name: str, reason: type[OSError]
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(reason):
        files.write_whole(tmp_path / name, "text")
    assert names(tmp_path) == ["folder"]


def test_text_that_is_no_utf_8_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        files.write_whole(tmp_path / "file", "\ud800")
    assert names(tmp_path) == []


def test_a_reader_sees_one_whole_file_or_the_other(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", {"a" * 200_000, "b" * 300_000}
    files.write_whole(path, "a" * 200_000)
    seen: set[str] = set()

    def write(text: str) -> None:
        for _ in range(10):
            files.write_whole(path, text)

    writers = [Thread(target=write, args=(text,)) for text in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_text())
    assert seen <= contents
    assert path.read_text() in contents
    assert names(tmp_path) == ["file"]


def test_a_folder_appears_with_all_that_is_in_it_and_its_parents_with_it(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with files.staged_folder(out) as staging:
        assert staging.parent.parent == out.parent
        (staging / "inside").mkdir()
        (staging / "inside" / "file").write_text("text")
        assert not out.exists()
    assert (out / "inside" / "file").read_text() == "text"
    assert names(out.parent) == ["out"]


def break_off(out: Path, error: BaseException) -> None:
    with files.staged_folder(out) as staging:
        (staging / "half").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), SystemExit(3), OSError(errno.ENOSPC, "full")])
def test_a_folder_vanishes_with_the_first_exception_which_stays_itself(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        break_off(tmp_path / "out", error)
    assert caught.value is error
    assert names(tmp_path) == []


THERE: dict[str, Callable[[Path], None]] = {
    "an empty folder": Path.mkdir,  # rename alone would take its place
    "a file": Path.touch,
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", THERE)
def test_nothing_that_is_there_is_written_over(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"

    def overtaken() -> None:
        with files.staged_folder(out):
            THERE[kind](out)

    with pytest.raises(FileExistsError, match=r"out already exists$"):
        overtaken()
    with pytest.raises(FileExistsError, match=r"out already exists$"):
        files.refuse_existing(out)
    assert names(tmp_path) == ["out"]
    files.refuse_existing(tmp_path / "another")


def test_a_staging_name_is_hidden_beside_the_path_and_new_each_time(tmp_path: Path) -> None:
    one, other = (files.staging_name(tmp_path / "out.json") for _ in range(2))
    assert one.parent == tmp_path
    assert one.name.startswith(".out.json.partial-")
    assert one != other  # not the process's number, which in a container is the same every time


@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_everything_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    synced: dict[int, int] = {}  # what was forced onto the disk, and how long it was then
    named: list[bool] = []
    out, fsync = tmp_path / "out", os.fsync

    def watching(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size
        named.append(out.exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watching)
    if kind == "a file":
        files.write_whole(out, "text")
    else:
        with files.staged_folder(out) as staging:
            (staging / "inside").mkdir()
            (staging / "inside" / "file").write_text("text")
    assert not any(named)
    written = [out, *out.rglob("*")]
    assert {path.stat().st_ino for path in written} == synced.keys()
    for path in filter(Path.is_file, written):
        assert synced[path.stat().st_ino] == path.stat().st_size > 0  # flushed first


KILLED = """
import os, signal, sys
from pathlib import Path
from empathy_kit import files
out = Path(sys.argv[1])
files.write_whole(out, "before")
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_whole(out, "after")
"""


def test_a_killed_process_leaves_the_old_file_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "before"
    assert len(names(tmp_path)) == 2  # what it had begun, under another name
    files.write_whole(path, "next")
    assert path.read_text() == "next"
    assert names(tmp_path) == ["file"]


HOLDING = """
import os, signal, sys
from pathlib import Path
from empathy_kit import files
path = Path(sys.argv[2])
with getattr(files, sys.argv[1])(path) as given:
    if sys.argv[1] == "staged_file":
        given.write(bytes(100)), given.flush()
    else:
        (given / "half").write_bytes(bytes(100))
    print("holds", flush=True)
    input()
"""


@contextmanager
def another(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing something, until it is killed."""
    command = [sys.executable, "-c", HOLDING, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["staged_file", "staged_folder", "workspace"])
def test_the_next_writer_sweeps_what_killed_writers_left_and_nothing_that_is_being_written(tmp_path: Path, kind: str) -> None:
    with another(kind, tmp_path / "one") as living:
        with another(kind, tmp_path / "two") as killed:
            killed.kill()
            killed.wait()
        assert len(names(tmp_path)) == 2
        (tmp_path / ".mine.partial-note").touch()  # no name of the kit's
        files.write_whole(tmp_path / "three", "text")
        mine, left, three = names(tmp_path)
        assert (mine, three) == (".mine.partial-note", "three")
        assert left.startswith(".one.partial-")
        living.communicate("\n")  # it ends as it wished
        assert living.returncode == 0
    assert set(names(tmp_path)) - {"one"} == {".mine.partial-note", "three"}


@pytest.mark.parametrize("readable", [True, False])
def test_another_users_folder_is_held_as_long_as_nobody_can_tell_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    opened = os.open

    def closed(path: object, flags: int, *arguments: int) -> int:
        if str(path).endswith(".lock") and not (readable and flags == os.O_RDONLY):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, *arguments)  # type: ignore[arg-type]

    with another("reserved", tmp_path / "out") as other:
        monkeypatch.setattr(os, "open", closed)
        assert files.is_held(tmp_path / "out.partial")
        other.kill()
        other.wait()
        assert files.is_held(tmp_path / "out.partial") == (not readable)


def test_a_name_is_reserved_by_one_process_until_it_ends(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with another("reserved", out) as other:
        with pytest.raises(BlockingIOError, match=r"out\.partial is held by another process$"), files.reserved(out):
            pass
        other.kill()
        other.wait()
        with files.reserved(out) as partial:
            assert names(partial) == [".lock", "half"]  # for this process to judge
    assert names(tmp_path / "new") == ["out.partial"]  # it was not removed
    with files.reserved(out) as partial:
        (partial / "half").unlink()
    assert names(tmp_path / "new") == []


def test_who_waits_for_a_name_gets_it_when_its_holder_ends_or_learns_that_it_is_taken(tmp_path: Path) -> None:
    with another("reserved", tmp_path / "out") as other:
        Timer(0.5, other.kill).start()
        with files.reserved(tmp_path / "out", wait=60) as partial:
            assert partial == tmp_path / "out.partial"
    with another("reserved", tmp_path / "out"):
        Timer(0.5, (tmp_path / "out").mkdir).start()
        with pytest.raises(FileExistsError, match=r"out already exists$"), files.reserved(tmp_path / "out", wait=60):
            pass


def test_a_name_whose_partial_folder_is_somebody_elses_is_not_reserved(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").touch()
    with pytest.raises(FileExistsError, match=r"out\.partial is in the way$"), files.reserved(tmp_path / "out"):
        pass
    assert names(tmp_path / "out.partial") == ["mine"]
    (tmp_path / "link.partial").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match=r"link\.partial is in the way$"), files.reserved(tmp_path / "link"):
        pass


def test_many_at_once_write_sweep_and_reserve_without_harm(tmp_path: Path) -> None:
    held: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for turn in range(15):
            with files.staged_folder(tmp_path / f"{number}-{turn}") as staging:
                (staging / "file").write_text("text")
            with files.reserved(tmp_path / "name", wait=60) as partial:
                held.append(number)
                most.append(len(held))
                (partial / "file").write_text("text")
                (partial / "file").unlink()
                held.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert max(most) == 1
    assert len(names(tmp_path)) == 60
    assert all(names(folder) == ["file"] for folder in tmp_path.iterdir())


def test_where_there_is_no_room_for_the_lock_no_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def full(path: Path, *how: int) -> int:
        if Path(path).name == files.LOCK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *how)

    monkeypatch.setattr(os, "open", full)
    for hold in (files.workspace, files.reserved):
        with pytest.raises(OSError, match="No space left on device"), hold(tmp_path / "out"):
            pass
        assert names(tmp_path) == []
