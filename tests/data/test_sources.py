"""What ``--data`` names, and the fetch: once, checked, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import stat
import sys
import urllib.error
from pathlib import Path

import pytest
from click.testing import CliRunner
from invented import write_two_tasks

from empathy_kit.cache import cache_folder
from empathy_kit.cli import cli
from empathy_kit.data import sources
from empathy_kit.data.epitome import FILES
from empathy_kit.data.schema import read_schema
from empathy_kit.data.sources import REDDIT_PAGE, REDDIT_URL, fetch_reddit, load_corpus
from empathy_kit.errors import KitError

ER, EX, IP = FILES.values()
HEADER = "sp_id,rp_id,seeker_post,response_post,level,rationales\n"
BODIES = {file: f"{HEADER}1,1,all bad,so sorry,{level},{spans}\n".encode() for file, level, spans in
          zip(FILES.values(), (1, 0, 0), ("so sorry", "", ""), strict=True)}  # fmt: skip


class Server:
    """A download that hands out `BODIES` and remembers what was asked for."""

    def __init__(self, bodies: dict[str, bytes]) -> None:
        self.bodies = bodies
        self.asked: list[str] = []

    def __call__(self, url: str) -> bytes:
        assert url.startswith(REDDIT_URL)
        self.asked.append(url.removeprefix(REDDIT_URL))
        return self.bodies[self.asked[-1]]


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The authors' files are `BODIES`, the cache is in the current folder, and that is empty."""
    monkeypatch.setattr(sources, "REDDIT_SHA256", {file: hashlib.sha256(body).hexdigest() for file, body in BODIES.items()})
    monkeypatch.setenv("EMPATHY_KIT_CACHE", "cache")
    monkeypatch.chdir(tmp_path)


def test_the_files_are_fetched_once() -> None:
    server = Server(BODIES)
    folder = fetch_reddit(download=server)
    assert folder == Path("cache/epitome-reddit")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == BODIES
    assert fetch_reddit(download=server) == folder
    assert server.asked == [ER, EX, IP]
    corpus = load_corpus("reddit")
    assert (corpus.name, len(corpus)) == ("reddit", 1)


def test_the_command_fetches_them_and_prints_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(BODIES)
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(server(url)))
    result = CliRunner().invoke(cli, ["data", "fetch"], catch_exceptions=False)
    assert (result.output, server.asked) == ("cache/epitome-reddit\n", [ER, EX, IP])


@pytest.mark.skipif(sys.platform == "win32", reason="it has no modes")
def test_nobody_else_may_look_into_the_folders_that_hold_posts() -> None:
    folder = fetch_reddit(download=Server(BODIES))
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)] == [0o700, 0o700]


def test_only_the_file_that_is_not_there_is_fetched() -> None:
    folder = fetch_reddit(download=Server(BODIES))
    (folder / EX).unlink()
    server = Server(BODIES)
    fetch_reddit(download=server)
    assert server.asked == [EX]


def test_a_download_with_the_wrong_sha256_is_refused_and_not_kept() -> None:
    found, expected = hashlib.sha256(b"other").hexdigest(), sources.REDDIT_SHA256[EX]
    with pytest.raises(KitError) as error:
        fetch_reddit(download=Server(BODIES | {EX: b"other"}))
    assert str(error.value) == (
        f"{REDDIT_URL}{EX}: sha256 {found[:12]}... found, expected {expected[:12]}...; "
        f"cut short or changed on the way, or changed at {REDDIT_PAGE}"
    )
    assert [path.name for path in Path("cache/epitome-reddit").iterdir()] == [ER]


def test_a_kept_file_that_was_changed_is_refused() -> None:
    folder = fetch_reddit(download=Server(BODIES))
    (folder / IP).write_bytes(b"other")
    found, expected = hashlib.sha256(b"other").hexdigest(), sources.REDDIT_SHA256[IP]
    with pytest.raises(KitError) as error:
        load_corpus("reddit")
    assert str(error.value) == (
        f"cache/epitome-reddit/{IP}: sha256 {found[:12]}... found, expected {expected[:12]}...; delete it and fetch again"
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (urllib.error.URLError(OSError(-2, "Name or service not known")), "[Errno -2] Name or service not known"),
        (urllib.error.URLError("no host given"), "no host given"),
        (TimeoutError("The read operation timed out"), "The read operation timed out"),
        (ConnectionResetError(), "ConnectionResetError"),
        (http.client.IncompleteRead(b"half of a post"), "IncompleteRead(14 bytes read)"),
    ],
)
def test_without_a_network_one_line_says_what_to_do(fault: Exception, reason: str) -> None:
    def download(url: str) -> bytes:
        raise fault

    with pytest.raises(KitError) as error:
        fetch_reddit(download=download)
    assert str(error.value) == (
        f"--data reddit: {ER} could not be fetched ({reason}); download the three files from {REDDIT_PAGE} "
        "into one folder and give it as --data FOLDER, or put them into cache/epitome-reddit"
    )
    assert not Path("cache").exists()


def test_a_disk_that_fills_up_leaves_no_half_written_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KitError) as error:
        fetch_reddit(download=Server(BODIES))
    assert str(error.value) == f"--data reddit: cache/epitome-reddit/{ER} cannot be written: No space left on device"
    assert list(Path("cache/epitome-reddit").iterdir()) == []


def test_a_cache_that_is_a_file_is_one_line() -> None:
    Path("cache").touch()
    with pytest.raises(KitError) as error:
        fetch_reddit(download=Server(BODIES))
    assert str(error.value) == f"--data reddit: cache/epitome-reddit/{ER} cannot be written: Not a directory"


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMPATHY_KIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert cache_folder() == Path("xdg/empathy-kit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "home")
    assert cache_folder() == Path("home/.cache/empathy-kit")


def test_a_folder_and_a_table_are_named_after_themselves() -> None:
    Path("mine").mkdir()
    for file, body in BODIES.items():
        Path("mine", file).write_bytes(body)
    Path("table.CSV").write_text("seeker_post,response_post,ER,EX,IP\na,b,0,1,2\n", encoding="utf-8")
    assert [load_corpus(data).name for data in ("mine", "table.CSV", "sample")] == ["mine", "table", "sample"]


@pytest.mark.parametrize("data", ["nowhere", "no/where.csv", "x" * 5000, "a\0b"])
def test_data_that_is_not_there_is_named_with_what_may_stand_there(data: str) -> None:
    with pytest.raises(KitError) as error:
        load_corpus(data)
    assert str(error.value) == (
        f"--data {data}: no such file or folder; expected sample, reddit, a folder or a .csv, .jsonl or .parquet file"
    )


def test_only_a_table_brings_tasks_of_its_own() -> None:
    data, file = write_two_tasks(Path())
    schema = read_schema(file)
    corpus = load_corpus(str(data), schema)
    assert (corpus.name, corpus.schema, len(corpus)) == ("two-tasks", schema, 120)
    Path("mine").mkdir()
    for other in ("sample", "reddit", "mine"):
        with pytest.raises(KitError) as error:
            load_corpus(other, schema)
        assert str(error.value) == (
            f"--schema: --data {other} has EPITOME's tasks ER, EX, IP, expected a table of other tasks; "
            "leave --schema out, or give a .csv, .jsonl or .parquet file as --data"
        )
