"""Tables without spans, or without those of some tasks: refused where an injector learns from them, else said and not scored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_world import Said, flags

from empathy_kit.config import RunConfig
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split


def table(folder: Path, *, spans: dict[str, int]) -> Path:
    """Sixty pairs, as many of which have a span of a task as is said."""
    rows = []
    for number in range(60):
        row: dict[str, Any] = {"seeker_post": f"case {number}", "response_post": f"that is hard, number {number}"}
        for name in ("ER", "EX", "IP"):
            row[name] = number % 3
            if name in spans:
                row[f"{name}_spans"] = ["that is hard"] if number % 3 and number < spans[name] else []
        rows.append(row)
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("rationale", ["gold", "train-only", "predicted", "tag"])
def test_an_injector_that_learns_from_spans_is_refused_where_there_are_none(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said], rationale: str
) -> None:
    data = table(tmp_path, spans={})
    said = command("run", *flags(tiny_roberta), "--data", data, "--rationale", rationale, "--out", tmp_path / "run")
    assert (said.code, said.err.splitlines()[-1]) == (
        2,
        f"Error: --rationale {rationale}: it learns from annotated spans, and the training part has none of ER, EX, IP; "
        "use --rationale none, or a table with spans",
    )
    assert not (tmp_path / "run").exists()


def test_whoever_omitted_gold_learns_its_default(tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from empathy_kit import Rationale, hookimpl\nfrom empathy_kit.builtin.rationales import none\n\n"
        "@hookimpl\ndef empathy_kit_rationales():\n    yield Rationale('mine', lambda tasks, width: none(tasks, width))\n"
    )
    data = table(tmp_path, spans={})
    said = command(
        "run", *flags(tiny_roberta), "--data", data, "--plugin", mine, "--rationale", "mine", "--out", tmp_path / "run"
    )
    (line,) = [line for line in said.err.splitlines() if line.startswith("Error: ")]
    assert line.endswith('or a table with spans; if it reads none, give its Rationale gold="never", for the default is "train"')


def test_a_task_whose_spans_nobody_marked_is_warned_of_and_not_scored(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    data = table(tmp_path, spans={"ER": 60})
    said = command("run", *flags(tiny_roberta), "--data", data, "--rationale", "tag", "--out", tmp_path / "run")
    assert said.code == 0
    for name in ("EX", "IP"):
        line = f"warning: the training part has no annotated span of {name}: rationale tag learns nothing of it"
        assert line in said.err.splitlines()
    spans = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["spans"]
    assert spans["ER"]["pairs"] > 0
    assert spans["EX"] is spans["IP"] is None


def test_spans_of_a_task_that_no_training_pair_has_are_not_scored(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    """Nothing could be learnt of them, whatever the test part has."""
    data = table(tmp_path, spans={"ER": 60, "EX": 60})
    train = training_rows(data)
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    for number in train:
        rows[number]["EX_spans"] = []
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert training_rows(data) == train
    said = command("run", *flags(tiny_roberta), "--data", data, "--rationale", "tag", "--out", tmp_path / "run")
    assert said.code == 0
    assert "warning: the training part has no annotated span of EX: rationale tag learns nothing of it" in said.err.splitlines()
    spans = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["spans"]
    assert spans["ER"]["pairs"] > 0
    assert spans["EX"] is None


def training_rows(data: Path) -> tuple[int, ...]:
    return make_split(load_corpus(str(data)), RunConfig().split, RunConfig().split_seed).train


def test_a_task_of_which_few_labels_have_a_span_is_warned_of(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    data = table(tmp_path, spans={"ER": 60, "EX": 24, "IP": 4})
    said = command("run", *flags(tiny_roberta), "--data", data, "--rationale", "tag", "--out", tmp_path / "run")
    (line,) = [line for line in said.err.splitlines() if line.startswith("warning: only ")]
    assert re.fullmatch(
        r"warning: only [12] of \d\d training pairs with a label of IP above the lowest have an annotated span: rationale tag "
        r"learns little of it",
        line,
    )


def test_nothing_of_a_rationale_is_asked_of_a_table_without_spans(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    data = table(tmp_path, spans={})
    assert command("run", *flags(tiny_roberta), "--data", data, "--out", tmp_path / "run").code == 0
