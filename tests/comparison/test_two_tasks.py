"""From the command line to the report: two tasks of 2 and 4 labels, a fifth of them missing, and a loss of one's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from invented import ADVICE, WARMTH, write_two_tasks

from empathy_kit.cli import cli
from empathy_kit.comparison.finished import read_finished
from empathy_kit.runs import record

QUICK = ["--epochs", "1", "--max-tokens", "16", "--threads", "1", "--seeds", "1", "--jobs", "1"]


LOSS = """\
from empathy_kit import Loss, hookimpl


def mine(task, *, weight: float = 1.0):
    \"""Cross-entropy, weighted.\"""
    from torch.nn.functional import cross_entropy

    return lambda logits, target: weight * cross_entropy(logits, target, reduction="none")


@hookimpl
def empathy_kit_losses():
    yield Loss("mine", mine)
"""


@pytest.mark.usefixtures("in_threads")
def test_a_comparison_of_tasks_of_its_own_is_run_reported_and_continued(tiny_roberta: Path, tmp_path: Path) -> None:
    data, schema = write_two_tasks(tmp_path)
    out = tmp_path / "out"
    flags = ["--data", str(data), "--schema", str(schema), "--encoder", str(tiny_roberta), "-o", "trunk.hidden", "8", *QUICK]
    plugin = tmp_path / "my_loss.py"
    plugin.write_text(LOSS)
    given = ["compare", "T3", "warm=--loss mine --tasks warmth", *flags, "--out", str(out)]
    result = CliRunner().invoke(cli, [*given, "--plugin", str(plugin)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "T3, seed 0: done" in result.stderr
    assert f"report: {out / 'report.html'}" in result.stdout
    for name in ("majority", "tfidf", "tfidf-balanced", "T3-swapped"):
        assert name in result.stdout

    found = read_finished(out)
    assert found.left_out == []
    run, warm = found.runs["T3"][0], found.runs["warm"][0]
    assert (list(run.answers), list(warm.answers)) == (["warmth", "advice"], ["warmth"])
    tested = run.record.split["pairs"]["test"]
    for task, answers in run.answers.items():
        assert 0 < len(answers.ids) == run.record.scores[task]["n"] < tested
        assert found.yardsticks["tfidf"][0][task].ids == answers.ids
    assert warm.record.split["sha256"] == run.record.split["sha256"]
    assert warm.record.config["options"]["trunk.hidden"] == 8
    text = (out / "report.md").read_text(encoding="utf-8")
    sizes = ", ".join(f"{task} {len(answers.ids)}" for task, answers in run.answers.items())
    assert f"{tested} test pairs, labelled: {sizes}." in text
    assert f"|  | true | {' | '.join(ADVICE)} |" in text
    assert re.search(r"^\| T3 to warm \| warmth \| ", text, re.MULTILINE)
    assert not re.search(r"^\| T3 to warm \| advice \| ", text, re.MULTILINE)
    assert re.search(r"^\| warm: mine \+ warmth only \| \.?\d+ \| - \|$", text, re.MULTILINE)
    for report in ("report.md", "report.html"):
        text = (out / report).read_text(encoding="utf-8")
        assert all(word in text for word in ("warmth", "advice", *WARMTH, *ADVICE))
        assert "ER" not in text.split()
        assert "mechanism" not in text

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and not path.name.startswith("report")}
    result = CliRunner().invoke(cli, [*given, "--plugin", str(plugin), "--json"], catch_exceptions=False)
    assert "warm, seed 0: found finished" in result.stderr
    content = json.loads(result.stdout)
    assert content["seeds"] == [0]
    assert [task["labels"] for task in content["tasks"]] == [["no", "yes"], list(ADVICE)]
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed == {"comparison.json"}
    assert record.read(out / "runs" / "warm-0", model=False).title == "mine + warmth only"
    # A loss that is no longer there, or another under the same name, does not go into the same row.
    result = CliRunner().invoke(cli, given)
    assert str(result.exception).startswith("compare warm: --loss mine: unknown; there are ")
    version = found.runs["warm"][0].record.plugins["loss"]["version"]
    plugin.write_text(LOSS.replace("1.0", "2.0"))
    result = CliRunner().invoke(cli, [*given, "--plugin", str(plugin)])
    assert str(result.exception).startswith(f"{out / 'runs' / 'warm-0'}: is a run with -o loss.warmth.weight 1.0, not 2.0; ")
    plugin.write_text(LOSS.replace("weighted.", "weighted so."))
    result = CliRunner().invoke(cli, [*given, "--plugin", str(plugin)])
    assert str(result.exception).startswith(
        f"{out / 'runs' / 'warm-0'}: loss mine was from ./my_loss.py {version}, and is now from ./my_loss.py sha256:"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["a=--tasks warmth,cold"], "compare a: --tasks: 'cold' is unknown; there are warmth, advice"),
        (["a=--loss focal -o loss.cold.gamma 2"], "compare a: -o loss.cold.gamma: unknown, expected KIND.OPTION with a kind of "),
        (["-o", "loss.gamma", "3"], "compare T2: loss ce: unknown option 'gamma'; its options: none"),
        (
            ["a=--schema epitome"],
            "compare a: --schema is ER: 0, 1, 2; EX: 0, 1, 2; IP: 0, 1, 2, but warmth: no, yes; advice: none at all, a hint, a "
            "suggestion, a clear plan before; all that is compared must be tested on the same pairs; use another --out",
        ),
    ],
)
def test_tasks_that_there_are_not_are_one_line(tmp_path: Path, flags: list[str], message: str) -> None:
    data, schema = write_two_tasks(tmp_path)
    given = ["compare", "T2", *flags, "--data", str(data), "--schema", str(schema), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, given)
    assert str(result.exception).startswith(message)
    assert not (tmp_path / "out").exists()
