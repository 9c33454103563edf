"""A run on two tasks of its own, a fifth of whose labels are missing: what is not labelled counts nowhere, and is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from invented import ADVICE, write_two_tasks
from run_world import Said, configuration, flags, read_json, read_predictions

from empathy_kit.data.pairs import Pair
from empathy_kit.data.schema import MISSING, read_schema
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take
from empathy_kit.plugins import load_registry
from empathy_kit.runs import record
from empathy_kit.runs.report import warnings
from empathy_kit.runs.train import run


@pytest.fixture(scope="module")
def ran(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Pair]]:
    """A run's folder, and the pairs of its test part."""
    folder = tmp_path_factory.mktemp("missing")
    data, schema = write_two_tasks(folder)
    config = configuration(tiny_roberta, data=str(data), schema=str(schema), rationale="tag", loss="weighted")
    list(run(config, load_registry(), folder / "run"))
    corpus = load_corpus(str(data), read_schema(schema))
    schema.unlink()
    return folder / "run", take(corpus, make_split(corpus, "grouped", 0).test)


def test_the_schema_is_written_out_in_full_so_that_its_file_is_not_needed_again(
    ran: tuple[Path, list[Pair]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    assert not (ran[0].parent / "two-tasks.toml").exists()
    found = record.read(ran[0])
    assert found.schema.names == found.tasks.names == ("warmth", "advice")
    assert found.schema.tasks[1].labels == ADVICE
    said = command("run", "--config", ran[0] / "run.json", "--out", tmp_path / "again")
    assert said.code == 0
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (ran[0] / "predictions.csv").read_bytes()


def test_a_missing_label_is_an_empty_cell_and_is_predicted_all_the_same(ran: tuple[Path, list[Pair]]) -> None:
    folder, test = ran
    rows = read_predictions(folder)
    assert list(rows[0]) == [
        "id",
        *("warmth_true", "warmth_predicted", "warmth_swapped", "warmth_p0", "warmth_p1"),
        *("advice_true", "advice_predicted", "advice_swapped", "advice_p0", "advice_p1", "advice_p2", "advice_p3"),
    ]
    for index, name in enumerate(("warmth", "advice")):
        expected = ["" if pair.levels[index] == MISSING else str(pair.levels[index]) for pair in test]
        assert [row[f"{name}_true"] for row in rows] == expected
        assert "" in expected
        assert all(row[f"{name}_predicted"] and row[f"{name}_swapped"] for row in rows)


def test_scores_counts_and_spans_are_of_labelled_pairs_alone(ran: tuple[Path, list[Pair]]) -> None:
    folder, test = ran
    content, rows = read_json(folder), read_predictions(folder)
    for name, classes in (("warmth", 2), ("advice", 4)):
        labelled = [row for row in rows if row[f"{name}_true"]]
        confusion = [[0] * classes for _ in range(classes)]
        for row in labelled:
            confusion[int(row[f"{name}_true"])][int(row[f"{name}_predicted"])] += 1
        scores = content["scores"][name]
        assert (scores["n"], scores["confusion"]) == (len(labelled), confusion)
        counts = content["split"]["class_counts"]
        assert counts["test"][name] == [sum(row) for row in confusion]
        assert sum(counts["train"][name]) < content["split"]["pairs"]["train"]
        common = counts["train"][name].index(max(counts["train"][name]))
        assert scores["majority"]["accuracy"] == pytest.approx(counts["test"][name][common] / len(labelled))
    assert content["spans"]["warmth"]["pairs"] == sum(pair.annotated(0) for pair in test) < len(test)
    assert content["spans"]["advice"] is None  # nobody marked any


def test_the_command_says_how_many_are_labelled_and_what_was_never_predicted_by_its_label(
    ran: tuple[Path, list[Pair]], tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    data, schema = write_two_tasks(tmp_path)
    said = command(
        *("run", *flags(tiny_roberta), "--data", data, "--schema", schema, "--tasks", "advice", "--sampler", "over"),
        *("--out", tmp_path / "run"),
    )
    assert said.code == 0
    lines = said.err.splitlines()
    assert "labelled pairs: warmth 96, advice 96; the others count in no loss and no score of that task" in lines
    found = record.read(tmp_path / "run")
    assert found.tasks.names == tuple(found.scores) == ("advice",)
    assert found.title == "ce + over sampling + advice only"
    train = found.split["pairs"]["train"]
    (sampler,) = (line for line in lines if line.startswith("sampler over: "))
    assert sampler.endswith(f" pairs per epoch, of {train:,} training pairs")
    loud = [line.plain for line in warnings(found)]
    assert all(line in said.out for line in loud)
    for level, label in enumerate(ADVICE):
        count = sum(found.scores["advice"]["confusion"][level])
        never = f"advice {label} was never predicted ({count} test pairs have it)"
        assert (never in loud) == (level in found.scores["advice"]["never_predicted"])
    assert found.split["sha256"] == record.read(ran[0]).split["sha256"]  # one split, whatever is trained


def test_a_batch_in_which_no_pair_is_labelled_does_not_end_the_run(tiny_roberta: Path, tmp_path: Path) -> None:
    data, schema = write_two_tasks(tmp_path)
    config = configuration(tiny_roberta, data=str(data), schema=str(schema), tasks=("warmth",), batch_size=1)
    *_, finished = run(config, load_registry(), tmp_path / "run")
    assert finished.record.training["epochs"] == 1  # type: ignore[union-attr]
