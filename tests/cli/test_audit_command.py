"""`empathy-kit data audit`: tables and JSON on stdout, all of it in one file, and one line for what cannot be judged."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from cli_reply import Reply
from invented import two_tasks, write_one_task, write_table, write_two_tasks

from empathy_kit.cli import audit
from empathy_kit.data.sources import load_corpus

QUICK = ("--epochs", "1", "--max-tokens", "12", "--threads", "1", "-o", "trunk.hidden", "8", "-o", "trunk.layers", "1")


@pytest.fixture
def quick(tiny_roberta: Path) -> tuple[str, ...]:
    return ("--folds", "2", "--encoder", str(tiny_roberta), *QUICK)


def test_the_same_faults_are_printed_as_json_and_written_without_text_or_ids(
    kit: Reply, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    data, schema = write_two_tasks(tmp_path)
    code, out, err = kit("data", "audit", "--data", data.name, "--schema", schema.name, *quick, "--out", "faults.csv", "--json")
    assert code == 0
    assert [line.partition(":")[0] for line in err.splitlines() if line.startswith("fold")] == ["fold 1 of 2", "fold 2 of 2"]
    found = json.loads(out)
    assert (found["pairs"], found["covered"], found["source"]) == (120, 116, "2 folds")
    assert {name: (task["labelled"], task["judged"]) for name, task in found["tasks"].items()} == {
        "warmth": (96, 96),
        "advice": (96, 96),
    }
    with (tmp_path / "faults.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert table == [{k: str(v) for k, v in fault.items()} for task in found["tasks"].values() for fault in task["faults"]]
    assert len(table) > 5
    rows = two_tasks()
    for fault in table:
        row = rows[int(fault["row"]) - 1]
        assert row["advice given" if fault["task"] == "advice" else "warmth"] == fault["label"] != fault["suggested"]
    told = out + err + (tmp_path / "faults.csv").read_text(encoding="utf-8")
    assert not any(row[column] in told for row in rows for column in ("seeker_post", "response_post"))
    assert set(table[0]).isdisjoint(("id", "pair_id", "seeker_id"))


def test_finished_runs_judge_their_test_parts(kit: Reply, tmp_path: Path, tiny_roberta: Path) -> None:
    assert kit("run", "--encoder", str(tiny_roberta), *QUICK, "--out", "runs/one")[0] == 0
    code, out, err = kit("data", "audit", "--runs", "runs", "--out", "faults.csv")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    corpus = load_corpus("sample")
    assert lines[0] == f"data sample: 300 pairs, sha256 {corpus.sha256()[:12]}; judged by 1 run in runs"
    assert lines[1] == "judged: 46 of the 300 pairs; the others have no label, or are in no run's test part"
    cells = [line.split() for line in lines]
    counts = {row[0]: int(row[3]) for row in cells if len(row) == 4 and row[1:3] == ["300", "46"]}
    assert list(counts) == ["ER", "EX", "IP"]
    assert lines[-2:] == [
        "Margin: the label's probability less the largest other one. These are labels to look at again, not to replace: where a "
        "level is subtle, the models may be what is wrong.",
        "all of them: faults.csv",
    ]
    with (tmp_path / "faults.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    margins = {name: [float(fault["margin"]) for fault in table if fault["task"] == name] for name in counts}
    assert {name: len(found) for name, found in margins.items()} == counts
    assert all(margin < 0 for found in margins.values() for margin in found)
    shown = [fault for fault in table if int(fault["rank"]) <= audit.SHOWN]
    assert [row[1:4] for row in cells if len(row) == 7 and row[1].isdigit()] == [
        [fault["row"], fault["label"], fault["suggested"]] for fault in shown
    ]
    data, schema = write_one_task(tmp_path)
    code, out, err = kit("data", "audit", "--runs", "runs", "--data", data.name, "--schema", schema.name)
    assert (code, out) == (2, "")
    assert err == (
        "Error: --runs runs/one: a run on other data (sample) than --data one-task; give a folder whose runs have the same pairs "
        "and labels\n"
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["--runs", "x", "--folds", "3"],
            "--runs and --folds: both given, and nothing is trained with --runs; use only one of them",
        ),
        (
            ["--runs", "x", "--loss", "focal"],
            "--runs and --loss: both given, and nothing is trained with --runs; use only one of them",
        ),
        (
            ["--runs", "x", "-o", "loss.gamma", "2"],
            "--runs and -o: both given, and nothing is trained with --runs; use only one of them",
        ),
        (["--runs", "x"], "x: no such folder, expected a folder with runs"),
        (["--folds", "0"], "--folds 0: expected 2 or more"),
        (["--tasks", "ER,ZZ"], "--tasks: 'ZZ' is unknown; there are ER, EX, IP"),
        (["--out", "there.csv"], "--out there.csv: already exists; use another --out"),
        (["--out", "gone/new.csv"], "--out gone/new.csv: cannot be written: No such file or directory"),
        (
            ["--data", "gone.csv"],
            "--data gone.csv: no such file or folder; expected sample, reddit, a folder or a .csv, .jsonl or .parquet file",
        ),
        (["--rationale", "gold"], "--rationale gold: sees annotated spans, which give the label away; use another one"),
    ],
)
def test_what_cannot_be_judged_is_one_line(kit: Reply, tmp_path: Path, arguments: list[str], error: str) -> None:
    (tmp_path / "there.csv").write_text("mine")
    assert kit("data", "audit", *arguments) == (2, "", f"Error: {error}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_task_with_one_label_alone_is_one_line(kit: Reply, tmp_path: Path) -> None:
    data, schema = write_two_tasks(tmp_path)
    write_table(data, [{**row, "warmth": "no", "warmth_spans": []} for row in two_tasks()])
    code, out, err = kit("data", "audit", "--data", data.name, "--schema", schema.name)
    assert (code, out) == (2, "")
    assert err == (
        "Error: --folds 5 of two-tasks: 0 of the folds with warmth label 'yes' (the data has 0), expected at least 2; "
        "more are needed, or --tasks without warmth\n"
    )


@pytest.mark.parametrize(
    ("folds", "problem"),
    [
        ("5", "2 pairs in 2 groups that share a seeker id or seeker post, expected at least 5; use fewer folds, or more seekers"),
        (
            "2",
            "1 of the folds with ER label '0' (the data has 1), expected at least 2; more are needed, or --tasks without ER",
        ),
    ],
)
def test_two_pairs_are_one_line(kit: Reply, tmp_path: Path, folds: str, problem: str) -> None:
    posts = "seeker_post,response_post,ER,EX,IP\nI am lost,so sorry,0,1,2\nnobody calls,tell me more,1,0,0\n"
    (tmp_path / "two.csv").write_text(posts)
    arguments = ("data", "audit", "--data", "two.csv", "--folds", folds)
    assert kit(*arguments) == (2, "", f"Error: --folds {folds} of two: {problem}\n")
