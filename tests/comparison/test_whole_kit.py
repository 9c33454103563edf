"""Two invented tables through the whole kit: checked, described, split, trained, loaded, compared; other tasks than EPITOME's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from invented import ADVICE, PACE, WARMTH, write_one_task, write_two_tasks

from empathy_kit.cli import cli
from empathy_kit.data.sources import load_corpus
from empathy_kit.plugins import load_registry
from empathy_kit.runs.load import load

LABELS = {"warmth": WARMTH, "advice": ADVICE, "pace": PACE}
TABLES: dict[str, tuple[Callable[..., tuple[Path, Path]], list[str], list[str]]] = {
    "two tasks": (write_two_tasks, ["warmth", "advice"], ["--rationale", "tag", "--head", "attention"]),
    "one task": (
        write_one_task,
        ["pace"],
        ["--loss", "weighted", "--trunk", "mean", "--sampler", "over", "-o", "trunk.hidden", "8"],
    ),
}
QUICK = ["--epochs", "1", "--max-tokens", "16", "--threads", "1"]


def said(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(part) for part in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_checked_described_split_trained_and_loaded(tiny_roberta: Path, tmp_path: Path, table: str) -> None:
    write, tasks, flags = TABLES[table]
    data, schema = write(tmp_path)
    where = ["--data", data, "--schema", schema]

    missing = "labelled pairs: warmth 96, advice 96; the others count in no loss and no score of that task"
    assert (missing in said("data", "check", *where)) == (table == "two tasks")
    description = json.loads(said("data", "describe", *where, "--encoder", tiny_roberta, "--json"))
    assert {name: len(counts) for name, counts in description["class_counts"].items()} == {
        name: len(LABELS[name]) for name in tasks
    }
    said("data", "describe", *where, "--encoder", tiny_roberta, "--picture", tmp_path / "labels.svg")
    picture = (tmp_path / "labels.svg").read_text("utf-8")
    parts = said("data", "split", *where)
    for name in tasks:
        assert name in picture
        assert all(label in parts for label in LABELS[name])

    out = tmp_path / "run"
    record = json.loads(said("run", *where, "--encoder", tiny_roberta, *QUICK, *flags, "--out", out, "--json"))
    assert list(record["scores"]) == tasks
    test = record["split"]["class_counts"]["test"]
    for name in tasks:
        assert record["scores"][name]["n"] == sum(test[name])
        assert [sum(row) for row in record["scores"][name]["confusion"]] == test[name]
    loaded = load(out, load_registry())
    corpus = load_corpus(str(data), loaded.record.schema)
    found = list(loaded.predictor.predict(loaded.tokenization.encode(corpus.pairs[:5])))
    assert [{name: len(rows) for name, rows in each.probabilities.items()} for each in found] == [
        {name: len(LABELS[name]) for name in tasks}
    ] * 5
    said("run", "--config", out / "run.json", "--out", tmp_path / "again")
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (out / "predictions.csv").read_bytes()


@pytest.mark.usefixtures("in_threads")
def test_the_configurations_of_a_file_are_compared_and_their_models_are_kept_where_that_is_asked(
    tiny_roberta: Path, tmp_path: Path
) -> None:
    data, schema = write_one_task(tmp_path)
    file, out = tmp_path / "plan.toml", tmp_path / "out"
    file.write_text('[mine]\nloss = "weighted"\ntrunk = "mean"\n', encoding="utf-8")
    flags = ["--data", data, "--schema", schema, "--seeds", "1", "--jobs", "1", "--encoder", tiny_roberta, *QUICK]
    said("compare", "--file", file, "--keep-models", *flags, "--out", out)
    config = load(out / "runs" / "mine-0", load_registry()).record.config
    assert (config["loss"], config["trunk"]) == ("weighted", "mean")
    for report in ("report.md", "report.html"):
        text = (out / report).read_text("utf-8")
        assert all(word in text for word in ("pace", *PACE))
        assert "ER" not in text.split()
        assert "mechanism" not in text
