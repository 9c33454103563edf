"""`empathy-kit predict MODEL -` as a process, with streams that give or take nothing: one line and exit code 2, never silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from empathy_kit.plugins import ONLY

COMMAND = """
from pretend import pretend_model
from empathy_kit import cli
from empathy_kit.inference import model
model.load = lambda source, **_: pretend_model()
cli.main()
"""
PAIR = json.dumps({"seeker_post": "I am sad", "response_post": "so sorry"}) + "\n"


def predict(streams: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command with a shell's redirections."""
    (folder / "pairs.jsonl").write_text(PAIR * 3)
    ended = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" predict model - {streams}', sys.executable, COMMAND],
        cwd=folder,
        env={**os.environ, ONLY: "", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("streams", "reason"),
    [
        ("< pairs.jsonl >&-", "Bad file descriptor"),
        ("< pairs.jsonl >&- 2>&-", "Bad file descriptor"),
        pytest.param(
            "< pairs.jsonl >/dev/full",
            "No space left on device",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to"),
        ),
        ("< <(sleep 1; cat pairs.jsonl) > >(exec true)", "Broken pipe"),  # the reader has gone when the rows come
    ],
)
def test_predictions_that_cannot_be_written_are_one_line(streams: str, reason: str, tmp_path: Path) -> None:
    code, out, err = predict(streams, tmp_path)
    line = f"Error: stdout: cannot be written: {reason}\n"
    assert (code, out, err) == (2, "", "" if "2>&-" in streams else line)


@pytest.mark.parametrize(
    ("stdin", "reason"),
    [
        ("<&-", "closed, expected JSON Lines; pipe them to the command, or give a file"),
        ("<&- >&-", "closed, expected JSON Lines; pipe them to the command, or give a file"),
        ("0> written", "cannot be read: Bad file descriptor"),
        ("</dev/null", "no rows, expected at least one pair"),
    ],
)
def test_standard_input_that_gives_nothing_is_one_line(stdin: str, reason: str, tmp_path: Path) -> None:
    assert predict(stdin, tmp_path) == (2, "", f"Error: standard input: {reason}\n")


def test_a_closed_stderr_costs_no_prediction(tmp_path: Path) -> None:
    code, out, _ = predict("< pairs.jsonl 2>&-", tmp_path)
    assert (code, [json.loads(line)["row"] for line in out.splitlines()]) == (0, [1, 2, 3])
