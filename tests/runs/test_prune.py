"""`empathy-kit runs prune`: nothing is deleted that is not a run, or that was not asked for."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from made_run import age, make_run, scored
from run_world import Said

from empathy_kit.runs import record

Command = Callable[..., Said]


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let files of a name, or folders, fail as a disk does that is torn out; permissions would not stop root."""

    def fail(name: str) -> None:
        for module, call in ((record, "sha256"), (record, "read_regular"), (os, "scandir")):
            was = getattr(module, call)

            def broken(path: Any = ".", was: Any = was) -> Any:
                if Path(path).name == name:
                    raise OSError(errno.EIO, "Input/output error", str(path))
                return was(path)

            monkeypatch.setattr(module, call, broken)

    return fail


@pytest.mark.parametrize("name", ["weights", "manifest.json", "model"])
def test_a_run_that_cannot_be_read_at_the_moment_is_not_deleted(
    shelf: Path, command: Command, unreadable: Callable[[str], None], name: str
) -> None:
    make_run(shelf / "c", scored()).rename(shelf / "slow.partial" / "result")
    age(shelf / "slow.partial", 30)
    unreadable(name)
    path = {"manifest.json": "manifest.json", "model": "model", "weights": "model/weights"}[name]
    problem = f"{path}: cannot be read: Input/output error"
    reply = command("runs", "verify", "runs/a")
    assert (reply.code, reply.out) == (1, f"runs/a/{problem}\n1 run, 0 damaged, 1 unreadable\n")
    reply = command("runs", "prune", "--damaged", "--unfinished", "--yes")
    assert (reply.code, reply.out) == (0, "nothing to delete\n")
    assert reply.err.splitlines() == [
        f"left alone: runs/{run}/{problem}" for run in ("a", "b", "bad", "many/runs/T1-0", "slow.partial/result")
    ]


def test_prune_deletes_what_was_named_and_nothing_else(shelf: Path, command: Command, tree: Callable[[], set[str]]) -> None:
    before = tree()
    reply = command("runs", "prune", "runs/a", "runs/slow.partial", "--yes")
    assert (reply.code, reply.err) == (0, "")
    assert reply.out.splitlines()[-1].startswith("deleted: 2, ")
    gone = {name for name in before if name.split("/")[0] in ("a", "slow.partial")}
    assert tree() == before - gone


@pytest.mark.parametrize("name", [".", "../a", "../a/", "../../runs/b/../a"])
def test_prune_deletes_a_run_however_it_is_named(
    shelf: Path, command: Command, monkeypatch: pytest.MonkeyPatch, name: str, tree: Callable[[], set[str]]
) -> None:
    before = tree()
    monkeypatch.chdir(shelf / "a")
    assert command("runs", "prune", name, "--yes").code == 0
    monkeypatch.chdir(shelf)
    assert tree() == {each for each in before if each.split("/")[0] != "a"}


def test_prune_asks_first(shelf: Path, command: Command, tree: Callable[[], set[str]], answers: Callable[[str], None]) -> None:
    before = tree()
    answers("n\n")
    reply = command("runs", "prune", "runs/a")
    assert reply.code == 1
    assert "Delete 1 folder? [y/N]" in reply.err
    assert tree() == before
    answers("")  # nobody to answer
    assert command("runs", "prune", "runs/a").code == 1
    assert tree() == before
    answers("y\n")
    assert command("runs", "prune", "runs/a").code == 0
    assert not (shelf / "a").exists()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """What stands on standard input."""
    import io

    with ExitStack() as stack:
        yield lambda text: monkeypatch.setattr("sys.stdin", stack.enter_context(io.StringIO(text)))


@pytest.mark.parametrize("name", ["notes", "foreign.partial", "many", "many/runs", "missing", "link", "."])
def test_no_folder_that_is_not_a_run_is_ever_deleted(
    shelf: Path, command: Command, tree: Callable[[], set[str]], name: str
) -> None:
    (shelf / "link").symlink_to(shelf / "a")
    before = tree()
    reply = command("runs", "prune", "runs/b", f"runs/{name}", "--yes")
    assert (reply.code, reply.out) == (2, "")
    assert reply.err.startswith("Error: runs")
    assert reply.err.endswith("; nothing was deleted\n")
    assert tree() == before
    for path in shelf.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (0, 0))
    (shelf / "bad" / "model" / "weights").unlink()
    command("runs", "prune", "--damaged", "--unfinished", "--yes")
    spared = {each for each in before if each.split("/")[0] not in ("bad", "slow.partial")}
    assert tree() == spared


def test_unfinished_runs_go_after_a_limit(shelf: Path, command: Command) -> None:
    age(shelf / "slow.partial", 6.9)
    assert command("runs", "prune", "--unfinished", "--yes") == Said(0, "nothing to delete\n", "")
    age(shelf / "slow.partial", 7.1)
    assert command("runs", "prune", "--unfinished", "--days", "8", "--yes").out == "nothing to delete\n"
    assert command("runs", "prune", "--unfinished", "--yes").out == (
        "runs/slow.partial: unfinished, 1,000 bytes\ndeleted: 1, 1,000 bytes\n"
    )
    assert not (shelf / "slow.partial").exists()
    assert (shelf / "foreign.partial" / "file").read_text() == "mine"


def test_a_finished_run_that_only_lacks_its_name_is_not_deleted_as_unfinished(shelf: Path, command: Command) -> None:
    made = make_run(shelf / "c", scored())
    made.rename(shelf / "slow.partial" / "result")
    age(shelf / "slow.partial", 30)
    problem = "runs/slow.partial/result: a finished run that only lacks its name; the next run in this folder gives it"
    assert problem in command("runs", "list").out.splitlines()
    assert command("runs", "prune", "--unfinished", "--yes") == Said(0, "nothing to delete\n", f"left alone: {problem}\n")
    assert (shelf / "slow.partial" / "result" / "run.json").exists()
    (shelf / "slow.partial" / "result" / "run.json").unlink()
    age(shelf / "slow.partial", 30)
    assert command("runs", "prune", "--unfinished", "--yes").code == 0
    assert not (shelf / "slow.partial").exists()


def test_damaged_runs_with_files_of_somebodys_are_left_alone_until_named(shelf: Path, command: Command) -> None:
    (shelf / "bad" / "notes.txt").write_text("mine")
    reply = command("runs", "prune", "--damaged", "--yes")
    assert (reply.code, reply.out) == (0, "nothing to delete\n")
    assert reply.err == ("left alone: runs/bad: has files that no run writes (notes.txt); name the run to delete them with it\n")
    assert command("runs", "prune", "runs/bad", "--yes").code == 0
    assert not (shelf / "bad").exists()


def test_what_has_the_names_of_a_run_and_nothing_of_its_content_is_left_alone(shelf: Path, command: Command) -> None:
    other = shelf / "other"
    other.mkdir()
    (other / "run.json").write_text('{"name": "another program"}')
    (other / "manifest.json").write_text("[]")
    reply = command("runs", "prune", "runs/other", "--damaged", "--yes")
    assert (reply.code, reply.out) == (0, "nothing to delete\n")
    assert reply.err == "left alone: runs/other: not certainly a run of empathy-kit; delete it yourself\n"
    assert command("runs", "prune", "runs/other", "--yes").code == 2
    assert other.exists()


@pytest.mark.parametrize("what", ["runs/a", "--damaged"])
def test_prune_refuses_an_age_that_would_spare_nothing(
    shelf: Path, command: Command, tree: Callable[[], set[str]], what: str
) -> None:
    before = tree()
    reply = command("runs", "prune", what, "--days", "30", "--yes")
    assert reply == Said(2, "", "Error: --days: counts with --unfinished alone; leave it out\n")
    assert tree() == before


def test_prune_needs_to_know_what(shelf: Path, command: Command) -> None:
    assert command("runs", "prune") == Said(
        2, "", "Error: runs prune: expected the runs to delete, or --damaged or --unfinished\n"
    )
