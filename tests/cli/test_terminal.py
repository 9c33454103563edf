"""What reaches a terminal: nothing that it would obey, in any encoding, and a line where stdout takes nothing."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cli_reply import Reply
from invented import one_task, write_one_task, write_table

from empathy_kit.cli import terminal
from empathy_kit.errors import shown, visible
from empathy_kit.plugins import ONLY

EVIL = "a\x1b[2J\x1b]0;title\x07\r\n\x9b31m\u202eb\ufeff"
SAFE = r"a\x1b[2J\x1b]0;title\x07\r\n\x9b31m\u202eb\ufeff"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
FULL = "Error: stdout: cannot be written: No space left on device"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (EVIL, SAFE),
        ("\u2028\x85\x0b\x0c\x1c", r"\u2028\x85\x0b\x0c\x1c"),  # all that str.splitlines takes for a line's end
        ("\u2066\u200f\udcff\U000e0001", r"\u2066\u200f\udcff\U000e0001"),
        ("été, 多, 👍, C:\\new", "été, 多, 👍, C:\\new"),
        ("\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u200c\u062e\u0648"),  # a word of Persian has an invisible sign in it
    ],
)
def test_text_is_one_line_without_what_a_terminal_would_obey_and_otherwise_as_it_is(text: str, seen: str) -> None:
    assert visible(text) == seen
    assert visible(seen) == seen


def test_a_value_in_a_message_is_quoted_and_short() -> None:
    assert shown(EVIL) == f"'{SAFE}'"
    assert shown("x" * 58) == repr("x" * 58)
    assert shown(10**70) == "1" + "0" * 56 + "..."


# --- what others wrote ---

PLUGIN = f'''from empathy_kit import Loss, hookimpl

def odd(task, *, note: str = {EVIL!r}):
    """Weights DOCSTRING classes.

    More DOCSTRING.
    """
    raise ValueError({EVIL!r})

@hookimpl
def empathy_kit_losses():
    yield Loss("odd", odd)
'''


@pytest.fixture
def hostile(tmp_path: Path) -> str:
    """A plugin of an evil name, docstring, default and error; next to it a table of an evil name."""
    name = f"{EVIL.replace('/', '')}.py"
    (tmp_path / name).write_text(PLUGIN.replace("DOCSTRING", EVIL.replace("\r\n", "\x0b")), encoding="utf-8")
    data, schema = write_one_task(tmp_path)
    write_table(tmp_path / f"{EVIL}.csv", one_task())
    data.unlink()
    schema.rename(tmp_path / "schema.toml")
    return name


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("plugins", "list"), 0),
        (("plugins", "show", "odd"), 0),
        (("plugins", "check"), 1),
        (("plugins", "show", EVIL), 2),
        (("run", "--loss", "odd", "-o", f"loss.{EVIL}", EVIL), 2),
        (("run", "--loss", EVIL), 2),
        (("run", f"--{EVIL}"), 2),
        (("run", EVIL), 2),
        (("compare", EVIL, f"{EVIL}=--loss odd"), 2),
    ],
)
def test_no_command_prints_what_a_plugin_or_an_argument_holds_as_it_is(
    kit: Reply, hostile: str, arguments: tuple[str, ...], code: int
) -> None:
    found, out, err = kit(*arguments, "--plugin", hostile)
    assert found == code
    assert not OBEYED.search(out + err)
    assert SAFE[:20] in out + err


@pytest.mark.parametrize("command", ["check", "describe", "split"])
def test_the_name_of_a_table_moves_no_cursor(kit: Reply, hostile: str, tiny_roberta: Path, command: str) -> None:
    more = ("--encoder", str(tiny_roberta)) if command == "describe" else ()
    code, out, err = kit("data", command, "--data", f"{EVIL}.csv", "--schema", "schema.toml", *more)
    assert (code, err) == (0, "")
    assert not OBEYED.search(out)
    assert command == "split" or f"data {SAFE}: 90 pairs, " in out


def test_a_value_of_thousands_of_digits_is_not_repeated_whole(kit: Reply) -> None:
    digits = "9" * 5000
    kept = f"{'9' * 60}...{'9' * 19}"  # the colon belongs to the word
    assert kit("run", "--epochs", digits) == (2, "", f"Error: --epochs {kept}: expected a whole number\n")
    assert kit("run", "--loss", "focal", "-o", "loss.gamma", digits)[2] == (
        f"Error: loss focal: option 'gamma' is '{kept[1:-1]}'; expected a finite number\n"
    )


# --- encodings ---


def run(*arguments: str, folder: Path, **how: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, ONLY: "", "OMP_NUM_THREADS": "1", **how.pop("environment", {})}  # type: ignore[dict-item]
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "empathy_kit", *arguments],
        **{
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": folder,
            "env": environment,
            "timeout": 100,
            **how,
        },
    )


ENCODINGS = {
    "ascii": ({"PYTHONIOENCODING": "ascii"}, r"\u591a\xe9"),
    "cp1252": ({"PYTHONIOENCODING": "cp1252"}, "\\u591aé"),
    # Here Python knows the file's name as bytes alone, two or three of them a sign.
    "C": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, r"\udce5\udca4\udc9a\udcc3\udca9"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_an_encoding_lacks_is_replaced_on_both_streams(encoding: str, tmp_path: Path) -> None:
    data, schema = write_one_task(tmp_path)
    data.rename(tmp_path / "多é.csv")
    environment, name = ENCODINGS[encoding]
    how = {"encoding": "cp1252" if encoding == "cp1252" else "ascii", "environment": environment}
    checked = run("data", "check", "--data", "多é.csv", "--schema", schema.name, folder=tmp_path, **how)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"data {name}: 90 pairs, " in checked.stdout
    split = run("data", "split", "--data", "多é.csv", "--schema", schema.name, folder=tmp_path, **how)
    assert (split.returncode, split.stderr) == (0, "")
    assert "Labelled pairs of each part" in split.stdout
    refused = run("data", "check", "--data", "多é", folder=tmp_path, **how)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"Error: --data {name}: ")


def test_tables_stay_straight_where_their_bars_are_replaced(
    kit: Reply, tiny_roberta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert kit("data", "describe", "--encoder", str(tiny_roberta))[0] == 0
    rows = [line for line in stream.buffer.getvalue().decode("ascii").splitlines() if line.startswith(("|", "+"))]  # type: ignore[attr-defined]
    assert len({len(row) for row in rows}) == 1
    assert "########" in "".join(rows)


# --- streams that take nothing ---

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")


@needs_full
@pytest.mark.parametrize("command", ["--help", "run --help", "plugins list --json", "data split"])
def test_a_full_disk_on_stdout_is_one_line(command: str, tmp_path: Path) -> None:
    # Click looks at the encoding, and tries a write; with a buffer the fault comes later, or once more as Python ends.
    for how in ({"PYTHONUNBUFFERED": "", "PYTHONIOENCODING": "utf-8"}, {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "ascii"}):
        with Path("/dev/full").open("w") as full:
            reply = run(*command.split(), folder=tmp_path, stdout=full, environment=how)
        assert (reply.returncode, reply.stderr) == (2, f"{FULL}\n")


def test_a_reader_that_goes_is_one_line(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for command in ("--help", "plugins list --json", "data split"):
        reply = run(*command.split(), folder=tmp_path, stdout=writing)
        assert (reply.returncode, reply.stderr) == (2, "Error: stdout: cannot be written: Broken pipe\n")
    os.close(writing)


@needs_full
def test_what_is_written_for_a_program_ends_in_the_same_line() -> None:
    with Path("/dev/full").open("w", encoding="ascii") as full, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with terminal.opened(), pytest.raises(terminal.Unprinted, match=f"^{FULL.removeprefix('Error: ')}$"):
            terminal.utf8("été\n")


@needs_full
def test_what_stderr_cannot_take_is_dropped_and_the_exit_code_stays(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        for arguments, code in (("run", "--loss", "nope"), 2), (("run", "--nope"), 2), (("data", "split"), 0):
            assert run(*arguments, folder=tmp_path, stderr=full).returncode == code


@pytest.mark.parametrize(("closed", "code"), [(">&-", 2), ("2>&-", 0), (">&- 2>&-", 2), ("<&-", 0)])
def test_a_closed_stderr_takes_everything_and_a_closed_stdout_is_one_line(closed: str, code: int, tmp_path: Path) -> None:
    script = f'"{sys.executable}" -m empathy_kit plugins new mine --kind loss {closed}'
    environment = {**os.environ, ONLY: ""}
    reply = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert reply.returncode == code
    assert reply.stderr == ("Error: stdout: cannot be written: Bad file descriptor\n" if closed == ">&-" else "")
    # Nothing that was printed went into a file that had the stream's number.
    assert "written" not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())


SMALL = ("--epochs", "1", "--threads", "1", "--max-tokens", "16", "--batch-size", "64", "-o", "trunk.hidden", "8")


@needs_full
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_run_that_cannot_be_told_of_is_complete_all_the_same(
    as_json: tuple[str, ...], tiny_roberta: Path, tmp_path: Path, command_with: Callable[..., tuple[int, str]]
) -> None:
    code, err = command_with("run", "--encoder", str(tiny_roberta), *SMALL, *as_json, "--out", "run", stdout="/dev/full")
    assert code == 2
    assert err.splitlines()[-1] == f"{FULL}; the run is complete in run"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["epochs"] == 1
    assert (tmp_path / "run" / "manifest.json").exists()


@needs_full
def test_a_run_whose_progress_cannot_be_shown_ends_as_any_other(
    tiny_roberta: Path, tmp_path: Path, command_with: Callable[..., tuple[int, str]]
) -> None:
    code, _ = command_with("run", "--encoder", str(tiny_roberta), *SMALL, "--out", "run", stderr="/dev/full")
    assert code == 0
    assert (tmp_path / "run" / "manifest.json").exists()


@pytest.fixture
def command_with(kit: Reply, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """The command in this process, with a stream that is somewhere else: exit code and stderr."""
    with ExitStack() as opened:

        def call(*arguments: str, **streams: str) -> tuple[int, str]:
            for name, path in streams.items():
                monkeypatch.setattr(sys, name, opened.enter_context(Path(path).open("w")))
            code, _, err = kit(*arguments)
            return code, err

        yield call
