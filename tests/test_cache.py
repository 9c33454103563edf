"""The cache: what lies there can be listed and deleted, and does not grow for ever."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from empathy_kit.cache import LIMIT, Entry, clear, clear_oldest, entries, hold, private_folder, states_limit
from empathy_kit.errors import KitError
from empathy_kit.files import staged_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The states' folder with four files of 100 bytes, oldest first."""
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(tmp_path))
    states = tmp_path / "states"
    states.mkdir()
    for age, name in enumerate("dcba"):
        (states / f"{name}.npy").write_bytes(bytes(100))
        os.utime(states / f"{name}.npy", (1e9 - age,) * 2)
    return states


@pytest.mark.skipif(sys.platform == "win32", reason="it has no modes")
def test_a_private_folder_is_its_owners_and_a_folder_above_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)  # whatever the umask
    private_folder(shared / "cache" / "states")
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (shared, shared / "cache", shared / "cache" / "states")]
    assert modes == [0o755, 0o700, 0o700]


def names(folder: Path) -> str:
    return "".join(sorted(path.name.removesuffix(".npy") for path in folder.iterdir()))


def test_every_file_is_listed_by_kind(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "encoders" / "mpnet").mkdir(parents=True)
    (tmp_path / "encoders" / "mpnet" / "config.json").write_bytes(b"{}")
    (tmp_path / "a note").write_text("nobody's")
    config = Entry("encoders", tmp_path / "encoders" / "mpnet" / "config.json", 2)
    assert entries() == [config, *(Entry("states", folder / f"{name}.npy", 100) for name in "abcd")]


def test_an_empty_cache_has_no_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(tmp_path / "nowhere"))
    assert entries() == []


@pytest.mark.parametrize(("limit", "left"), [(400, "abcd"), (399, "bcd"), (300, "bcd"), (299, "bd"), (199, "b"), (0, "b")])
def test_the_files_that_were_not_used_for_longest_go_first_and_the_kept_one_stays(folder: Path, limit: int, left: str) -> None:
    clear_oldest(folder, keep=folder / "b.npy", limit=limit)
    assert names(folder) == left


def test_files_that_the_kit_did_not_write_do_not_count_and_stay(folder: Path) -> None:
    (folder / "census.csv").write_bytes(bytes(1000))
    os.utime(folder / "census.csv", (1.0, 1.0))
    clear_oldest(folder, keep=Path(), limit=400)
    assert names(folder) == "abccensus.csvd"
    clear_oldest(folder, keep=Path(), limit=0)
    assert names(folder) == "census.csv"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_folder_of_the_cache_that_is_a_link_is_listed_and_cleared_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full home is a reason for one, and states are as sensitive as the posts."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "states").symlink_to(folder)
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(cache))
    assert [entry.path.name for entry in entries()] == ["a.npy", "b.npy", "c.npy", "d.npy"]
    gone, left = clear(["states"])
    assert (len(gone), left, list(folder.iterdir())) == (4, [], [])


@pytest.mark.skipif(sys.platform == "win32", reason="there, what is open cannot be deleted")
def test_a_file_that_any_process_has_mapped_stays(folder: Path) -> None:
    """Deleted, it would free no space before that process ends, and the next run would have to compute it anew."""
    with (folder / "a.npy").open("rb") as stream:
        hold(stream, folder / "a.npy")
        held = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # as the states are, when the stream has been closed
    os.utime(folder / "a.npy", (0, 0))
    source = (
        f"from pathlib import Path; from empathy_kit.cache import *; clear_oldest(Path({str(folder)!r}), keep=Path(), limit=0)"
    )
    subprocess.run([sys.executable, "-c", source], check=True)
    assert names(folder) == "a"
    held.close()
    clear_oldest(folder, keep=Path(), limit=0)
    assert names(folder) == ""


def test_a_file_that_was_just_written_stays_for_its_writer_has_yet_to_open_it(folder: Path) -> None:
    os.utime(folder / "a.npy")
    clear_oldest(folder, keep=folder / "b.npy", limit=0)
    assert names(folder) == "ab"


def test_what_others_are_writing_stays_and_what_killed_processes_left_goes(folder: Path) -> None:
    (folder / ".e.npy.partial-00000000").write_bytes(bytes(100))
    with staged_file(folder / "f.npy") as stream:
        stream.write(bytes(100))
        clear_oldest(folder, keep=Path(), limit=0)
        assert names(folder).startswith(".f.npy.partial-")
    assert names(folder) == "f"


@pytest.mark.parametrize("given", ["20 GB", "-1", "1e9", "0x10", "1_000", "٣", "9" * 19, " "])
def test_a_limit_that_is_no_number_of_bytes_is_one_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPATHY_KIT_STATES_LIMIT", given)
    with pytest.raises(KitError) as error:
        states_limit()
    assert str(error.value) == f"EMPATHY_KIT_STATES_LIMIT is {given!r}, expected a number of bytes such as {LIMIT}"


def test_the_limit_is_what_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMPATHY_KIT_STATES_LIMIT", raising=False)
    assert states_limit() == LIMIT
    monkeypatch.setenv("EMPATHY_KIT_STATES_LIMIT", "1000")
    assert states_limit() == 1000
