"""No command has a traceback for what a user can do: each ends with a line on stderr, and with nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cli_reply import Reply

from empathy_kit.cli import cli

CONTENT = {
    "empty": b"",
    "binary": bytes(range(256)) * 20,
    "nul": b"\0" * 3000,
    "deep": b"[" * 100_000,
    "null": b"null",
    "list": b"[1, 2]",
    "utf16": "a,b\n1,2\n".encode("utf-16"),
    "infinite": b"1e999",
    "words": b"\xff\xfe not UTF-8",
}
PLACES = ("missing", "folder", "pipe", "loop", "dangling", "x" * 300, "file/below", "..", "")
NUMBERS = ("-1", "0", "9" * 30, "9" * 5000, "1e400", "nan", "inf", "1_000", "\u0661", "0x10", "", "1.5", "a\x1b[2J")

# What takes a file, and the suffix by which it is read. {} is the file.
FILES = {
    "data check --data {}": (".csv", ".jsonl", ".parquet", ".txt"),
    "data split --data {}": (".csv", ".jsonl", ".parquet"),
    "run --data {}": (".csv",),
    "compare --out c --data {}": (".csv",),
    "data check --data table.csv --schema {}": (".toml",),
    "data audit --data {}": (".csv",),
    "data audit --runs {}": ("",),
    "run --schema {} --data table.csv": (".toml",),
    "run --data table.csv --config {}": (".toml", ".json"),
    "compare --out c --data table.csv --file {}": (".toml",),
    "compare --figures-from {}": ("",),
    "plugins check ce --plugin {}": (".py",),
    "evaluate {} table.csv": ("",),
    "predict {} table.csv --out p.csv": ("",),
    "publish {} me/mine --dry-run p": ("",),
    "run --data table.csv --plugin {}": (".py",),
}
# What takes a place to write to, or a name.
NAMES = (
    "run --data table.csv --out {}",
    "run --data table.csv --out {}/x",
    "compare --data table.csv --out {}",
    "compare --data table.csv --out c {}",
    "compare --data table.csv --out c {}=--loss=ce",
    "compare --data table.csv --out c x={}",
    "compare --data table.csv --out c --preset {}",
    "run --preset {}",
    "run --data {}",
    "plugins show {}",
    "plugins new {} --kind loss --into file",
    "plugins new mine --kind {}",
    "data split --tasks {}",
    "data audit --tasks {}",
    "data audit --data table.csv --out {}",
    "predict file table.csv --out {}",
    "predict hub:{} table.csv --out p.csv",
    "publish folder {}",
    "publish folder me/mine --revision {}",
)
# What takes a number, and the numbers that may be right there: only for these the file is what is refused.
VALUES: dict[str, tuple[str, ...]] = {
    "run --data table.csv --epochs {}": (),
    "run --data table.csv --lr {}": ("0", "1.5"),
    "run --data table.csv --seed {}": ("0",),
    "run --data table.csv --threads {}": (),
    "run --data table.csv --clip {}": ("1.5",),
    "run --data table.csv --loss focal -o loss.gamma {}": ("-1", "0", "1.5", "9" * 30),
    "run --data table.csv -o trunk.hidden {}": ("-1", "0", "9" * 30),
    "run --data table.csv -o {} 1": (),
    "compare --out c --data table.csv --seeds {}": (),
    "compare --out c --data table.csv --jobs {}": ("9" * 30,),
    "data split --data table.csv --split-seed {}": ("0",),
    "data audit --data table.csv --folds {}": ("-1", "0", "9" * 30),
    "data audit --data table.csv --seed {}": ("0",),
    "plugins check focal -o head.x {}": (),
    "predict file table.csv --out p.csv --threads {}": ("9" * 30,),
}
CONFIGS = (
    '{"config": {"epochs": null, "loss": 5, "options": {"a": {"b": []}}}}',
    '{"config": {"schema": 3}}',
    '{"config": {"tasks": 3}, "plugins": [], "data": 3}',
    '{"config": {"schema": {"tasks": 3}}}',
    '{"config": {"data": "a\\u0000b"}}',
    '{"config": {"data": "\\ud800"}}',
    '{"config": {"data": "", "epochs": ' + "9" * 5000 + "}}",
    '{"config": {"data": "", "loss": "\\u001b[2J"}, "plugins": {"loss": {"name": 3, "distribution": 4, "version": null}}}',
    '{"config": {"options": {"": 1, ".": 2, "loss.": 3}}, "format": 1}',
    '{"config": {"options": []}, "format": 1}',
    '{"config": []}',
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[list[Path]]:
    """Files of every kind of content and suffix; what is there afterwards must be what was there before."""
    (tmp_path / "table.csv").write_text("no,table\n")
    (tmp_path / "file").touch()
    for suffix in ("", ".csv", ".jsonl", ".parquet", ".txt", ".toml", ".json", ".py"):
        for name, content in CONTENT.items():
            (tmp_path / f"{name}{suffix}").write_bytes(content)
        (tmp_path / f"folder{suffix}").mkdir()
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
        (tmp_path / f"dangling{suffix}").symlink_to(f"gone{suffix}")
    before = sorted(tmp_path.rglob("*"))
    yield before
    assert sorted(tmp_path.rglob("*")) == before


def refused(kit: Reply, command: str, given: str) -> str:
    """The line that refuses it."""
    code, out, err = kit(*(word.format(given) for word in command.split()))
    told = f"{command!r} with {given[:40]!r}: {err[-300:]!r}"
    assert (code, out) == (2, ""), told
    assert err.splitlines()[-1].startswith("Error: "), told
    assert all(sign.isprintable() for line in err.splitlines() for sign in line), told
    assert len(err) < 1500, told
    return err.splitlines()[-1]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("command", FILES)
def test_a_file_that_is_not_what_it_should_be(kit: Reply, command: str) -> None:
    for suffix in FILES[command]:
        for name in (*CONTENT, *PLACES):
            if (name, suffix) != ("empty", ".toml") or "schema" in command or "file" in command:
                refused(kit, command, name + suffix)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("command", NAMES)
def test_a_name_or_a_place_that_cannot_be(kit: Reply, command: str) -> None:
    for name in ("file", "folder", "loop", "x" * 300, "..", "/", "a\x1b[2J", "\udcff", "a b", "-", "'"):
        refused(kit, command, name)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("command", VALUES)
def test_a_number_that_cannot_be(kit: Reply, command: str) -> None:
    for number in NUMBERS:
        line = refused(kit, command, number)
        assert line.startswith(("Error: table.csv: ", "Error: file: ")) == (number in VALUES[command]), line


def numbers(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Parameter]]:
    """All parameters of a command and those below it that click reads as a number."""
    for name, below in (command.commands if isinstance(command, click.Group) else {}).items():
        yield from numbers(below, f"{path} {name}")
    for parameter in command.params:
        if isinstance(parameter.type, type(click.INT) | type(click.FLOAT) | click.IntRange | click.FloatRange):
            yield f"{path} {parameter.opts[0]}".strip(), parameter


@pytest.mark.parametrize(("name", "parameter"), list(numbers(cli)), ids=str)
def test_a_number_is_written_in_plain_digits(name: str, parameter: click.Parameter) -> None:
    context = click.Context(cli)
    assert parameter.type_cast_value(context, "5") == 5, name
    for text in ("1_0", "\u0665", "\uff15", "nan"):
        with pytest.raises(click.BadParameter) as error:
            parameter.type_cast_value(context, text)
        assert (
            error.value.format_message() == f"Invalid value for '{parameter.opts[0]}': {text!r} is not a number in plain digits."
        )


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("content", CONFIGS)
def test_a_configuration_that_cannot_be(kit: Reply, tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    refused(kit, "run --config {}", "file")


@pytest.mark.parametrize("command", [*FILES, "run --out {}/x", "plugins new mine --kind loss --into {}", "compare --out {}"])
def test_a_file_that_may_not_be_touched(kit: Reply, tmp_path: Path, command: str) -> None:
    (tmp_path / "table.csv").write_text("no,table\n")
    (tmp_path / "probe").touch(mode=0)
    if os.access(tmp_path / "probe", os.R_OK):
        pytest.skip("nothing is forbidden to this user")
    for suffix in FILES.get(command, ("",)):
        path = tmp_path / f"locked{suffix}"
        path.mkdir() if not suffix else path.touch()
        path.chmod(0)
        refused(kit, command, path.name)
        path.chmod(0o700)
