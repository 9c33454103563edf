"""What a comparison found: scores, differences and yardsticks, on the seeds, pairs and tasks that there are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import ODD, PAIRS, made_up, recount, rewrite, rewrite_record
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from empathy_kit.comparison.finished import read_finished
from empathy_kit.comparison.pages import as_markdown, notes, summarise, write
from empathy_kit.comparison.pages.summary import Apart, Summary, to_json
from empathy_kit.comparison.pages.words import mean_cell, nothing, ranked_cell, score_cell
from empathy_kit.core.calibration import calibration, tempered
from empathy_kit.data.schema import Schema, TaskSchema
from empathy_kit.runs import record
from empathy_kit.runs.report import random_precision


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four configurations, one of them an oracle, three seeds."""
    return made_up(tmp_path_factory.mktemp("summary") / "made-up", ["T1", "T3", "T2g", "weighted"], 3)


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return summarise(read_finished(folder))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of 2 and 4 labels, a third of the labels missing; one configuration has a task alone, and one the other."""
    changes = {"warm": {"tasks": ("warmth",)}, "advice": {"tasks": ("advice_given",)}}
    return made_up(tmp_path_factory.mktemp("odd") / "odd", ["T1", "warm", "advice"], 2, schema=ODD, missing=0.3, changes=changes)


def test_every_score_is_the_mean_of_what_the_predictions_say(folder: Path, summary: Summary) -> None:
    found = read_finished(folder)
    for row in summary.rows[:3]:
        for name in summary.names:
            said = [run.answers[name] for run in found.runs[row.name]]
            accuracy = [accuracy_score(one.true, one.predicted) for one in said]
            f1 = [f1_score(one.true, one.predicted, average="macro", zero_division=0) for one in said]
            cell = row.cells[name]
            assert cell.runs["accuracy"] == pytest.approx(accuracy)
            assert cell.scores["macro_f1"].value == pytest.approx(np.mean(f1))
            assert cell.deviation is not None
            assert cell.deviation["macro_f1"] == pytest.approx(np.std(f1, ddof=1))
            assert np.sum(cell.confusion) == 3 * PAIRS


def test_every_label_is_ranked_next_to_what_a_random_ranking_can_be_expected_to_have(folder: Path, summary: Summary) -> None:
    found = read_finished(folder)
    for row in summary.rows:
        for task in summary.tasks:
            ranked = row.cells[task.name].average_precision
            if row.kind == "yardstick":  # of majority and swapped seekers no probabilities are known
                assert ranked is None
                continue
            assert ranked is not None
            for level, each in enumerate(ranked):
                assert each.runs == pytest.approx(
                    [
                        average_precision_score(run.answers[task.name].true == level, run.probabilities[task.name][:, level])
                        for run in found.runs[row.name]
                    ]
                )
                assert each.value == pytest.approx(np.mean(each.runs))
    for task in summary.tasks:
        true = np.stack([run.answers[task.name].true for run in found.runs["T1"]])
        chances = [[random_precision(int((row == level).sum()), PAIRS) for row in true] for level in range(3)]
        assert summary.by_chance[task.name] == pytest.approx(np.mean(chances, axis=1))


def test_f1_by_batches_is_the_mean_over_batches_of_32_and_seeds_for_yardsticks_too(folder: Path, summary: Summary) -> None:
    found = read_finished(folder)
    majority = [np.full(PAIRS, np.argmax(run.record.split["class_counts"]["train"]["ER"])) for run in found.runs["T1"]]
    true = [run.answers["ER"].true for run in found.runs["T1"]]
    by_name = {"T1": [run.answers["ER"].predicted for run in found.runs["T1"]], "majority": majority}
    for name, predicted in by_name.items():
        batches = [
            f1_score(one[at : at + 32], other[at : at + 32], average="macro", zero_division=0)
            for one, other in zip(true, predicted, strict=True)
            for at in range(0, PAIRS, 32)
        ]
        row = next(row for row in summary.rows if row.name == name)
        assert row.cells["ER"].batch_macro_f1 == pytest.approx(np.mean(batches))


@pytest.mark.parametrize("names", [["T1", "half"], ["half", "T1"]])
def test_the_majority_is_that_of_the_whole_training_part_whatever_comes_first(tmp_path: Path, names: list[str]) -> None:
    folder = made_up(tmp_path / "made-up", names, 1, changes={"half": {"train_share": 0.5}})
    thinned = {"ER": [10, 20, 30], "EX": [10, 30, 20], "IP": [30, 10, 20]}

    def thin_out(content: dict[str, Any]) -> None:
        content["split"]["pairs"]["train"] = 60
        content["split"]["unused"] = 1000 - 2 * PAIRS - 60
        content["split"]["class_counts"]["train"] = thinned

    rewrite_record(folder / "runs" / "half-0", thin_out)
    (majority,) = (row for row in summarise(read_finished(folder)).rows if row.name == "majority")
    assert [cell.never for cell in majority.cells.values()] == [[0, 1, 1]] * 3


def test_gains_are_right_answers_seed_by_seed(summary: Summary) -> None:
    rows = {row.name: row for row in summary.rows}
    for found in summary.contrasts:
        first, second = (rows[name].cells[found.task].runs["accuracy"] for name in (found.first, found.second))
        assert found.gains == [round(PAIRS * (after - before)) for before, after in zip(first, second, strict=True)]


def test_an_oracle_is_stamped_and_compared_with_nothing(summary: Summary) -> None:
    assert [(row.label, row.title, row.kind) for row in summary.rows] == [
        ("T1", "ce", "run"),
        ("T3", "focal", "run"),
        ("weighted", "weighted", "run"),
        ("T2g (ORACLE)", "ce + gold (ORACLE)", "oracle"),
        ("majority", "majority class", "yardstick"),
        ("T1-swapped", "T1, seekers swapped at test time", "yardstick"),
    ]
    assert {(found.first, found.second) for found in summary.contrasts} == {("T1", "T3"), ("T1", "weighted"), ("T3", "weighted")}
    assert any(line.startswith("ORACLE: T2g saw annotated spans") for line in notes(summary))


def test_labels_that_were_never_predicted_are_told_with_how_often(summary: Summary) -> None:
    assert "T1 never predicted IP 1 in 3 of 3 runs." in list(notes(summary))


def test_pairs_without_a_label_count_nowhere(odd: Path) -> None:
    results = read_finished(odd)
    found = summarise(results)
    for task in ("warmth", "advice_given"):
        sizes = [len(run.answers[task].ids) for run in results.runs["T1"]]
        assert found.labelled[task] == np.mean(sizes)
        assert 100 < found.labelled[task] < found.test_pairs == PAIRS
        for row in found.rows:
            if task in row.cells:
                assert np.sum(row.cells[task].confusion) == sum(sizes)
        for contrast in found.contrasts:
            if contrast.task == task:
                assert contrast.test_pairs == np.mean(sizes)
                assert contrast.test.gained + contrast.test.lost <= sum(sizes)
    assert [len(row.cells["advice_given"].recall) for row in found.rows if "advice_given" in row.cells] == [4] * 4
    assert np.shape(found.rows[0].cells["warmth"].confusion) == (2, 2)


def test_configurations_of_other_tasks_are_compared_on_those_that_both_have(odd: Path) -> None:
    found = summarise(read_finished(odd))
    assert {row.name: list(row.cells) for row in found.rows} == {
        "T1": ["warmth", "advice_given"],
        "warm": ["warmth"],
        "advice": ["advice_given"],
        "majority": ["warmth", "advice_given"],
        "T1-swapped": ["warmth", "advice_given"],
    }
    assert [(each.first, each.second, each.task) for each in found.contrasts] == [
        ("T1", "warm", "warmth"),
        ("T1", "advice", "advice_given"),
    ]
    assert found.apart == [Apart("warm", "advice", "task")]
    assert "warm and advice have no task in common, and are not compared." in list(notes(found))
    assert list(found.calibrations["warm"]) == list(found.tempered["warm"]) == ["warmth"]
    assert "schema" not in found.recipe
    assert found.settings["warm"] == {"tasks": ["warmth"]}


def test_two_configurations_are_compared_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1", "T3", "weighted"], 3)
    for run in ("T1-0", "T3-2", "weighted-1", "weighted-2"):
        shutil.rmtree(made / "runs" / run)
    summary = summarise(read_finished(made))
    assert {row.name: row.seeds for row in summary.rows} == {
        "T1": [1, 2],
        "T3": [0, 1],
        "weighted": [0],
        "majority": [0, 1, 2],
        "T1-swapped": [1, 2],
    }
    assert {(found.first, found.second): found.seeds for found in summary.contrasts} == {
        ("T1", "T3"): [1],
        ("T3", "weighted"): [0],
    }
    for found in summary.contrasts:
        row, other = (next(row for row in summary.rows if row.name == name) for name in (found.first, found.second))
        scores = [each.cells[found.task].runs["accuracy"][each.seeds.index(found.seeds[0])] for each in (row, other)]
        assert found.accuracy.value == pytest.approx(scores[1] - scores[0])
    assert list(notes(summary))[:4] == [
        "One seed of weighted, T1 to T3, T3 to weighted: there is no interval, because one seed does not show how much another "
        "would change.",
        "Missing runs: T1 0, weighted 1, T3 2, weighted 2.",
        "Means are not all over the same seeds and splits. Each difference is over the seeds that both configurations have.",
        "T1 and weighted have no seed in common, and are not compared.",
    ]


def test_runs_that_are_missing_for_all_leave_means_that_can_be_compared(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1", "T3"], 3)
    for name in ("T1", "T3"):
        shutil.rmtree(made / "runs" / f"{name}-1")
    summary = summarise(read_finished(made))
    assert {tuple(row.seeds) for row in summary.rows} == {(0, 2)}
    assert [found.seeds for found in summary.contrasts] == [[0, 2]] * 3
    told = list(notes(summary))
    assert "Missing runs: T1 1, T3 1." in told
    assert not any("Means are not all" in line or "One seed" in line for line in told)


@pytest.mark.parametrize(
    ("names", "gone", "why"),
    [
        (["T1"], [], "There is one configuration"),
        (["T2g"], [], "There is one configuration"),
        (["T2g", "T4g"], [], "Every configuration is an ORACLE"),
        (["T1", "T2g"], [], "Every configuration but one is an ORACLE"),
        (["T1", "T3"], ["T1-0", "T3-1"], "No two configurations have a seed in common"),
    ],
)
def test_where_nothing_is_compared_it_says_why(tmp_path: Path, names: list[str], gone: list[str], why: str) -> None:
    made = made_up(tmp_path / "made-up", names, 2)
    for run in gone:
        shutil.rmtree(made / "runs" / run)
    summary = summarise(read_finished(made))
    assert summary.contrasts == []
    assert nothing(summary) == f"{why}: nothing to compare."


def test_configurations_without_a_common_task_are_not_compared(odd: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(odd, tmp_path / "copy"))
    for seed in (0, 1):
        shutil.rmtree(copy / "runs" / f"T1-{seed}")
    assert nothing(summarise(read_finished(copy))) == "No two configurations have a task in common: nothing to compare."


def test_configurations_that_a_record_calls_the_same_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    changes = {
        "two": {"options": {"loss.ER.gamma": 2.0, "loss.EX.gamma": 2.0}},
        "both": {"options": {"loss.ER.gamma": 2.0, "loss.EX.gamma": 3.0}, "lr": 0.1},
        "last": {"options": {"loss.ER.gamma": 2.0, "loss.EX.gamma": 2.0, "loss.IP.gamma": 3.0}},
        "second": {"options": {"loss.ER.gamma": 2.0, "loss.EX.gamma": 3.0, "loss.IP.gamma": 3.0}},
        "deep": {"options": {"trunk.hidden": 8}},
    }
    made = made_up(tmp_path / "made-up", ["T1", *changes, "response"], 1, changes=changes)
    titles = {row.name: row.title for row in summarise(read_finished(made)).rows if row.kind == "run"}
    assert titles == {
        "T1": "ce, gamma by default, hidden by default, lr 0.001",
        "two": "ce, gamma 2.0, hidden by default, lr 0.001",
        "both": "ce, gamma ER 2.0 / EX 3.0, hidden by default, lr 0.1",
        "last": "ce, gamma ER 2.0 / EX 2.0 / IP 3.0, hidden by default, lr 0.001",
        "second": "ce, gamma ER 2.0 / EX 3.0 / IP 3.0, hidden by default, lr 0.001",
        "deep": "ce, gamma by default, hidden 8, lr 0.001",
        "response": "ce + response only",
    }


def test_titles_are_cut_where_they_tell_configurations_apart_all_the_same(tmp_path: Path) -> None:
    """Two of these differ in the last of five settings alone."""
    many = {"lr": 0.1, "epochs": 3, "batch_size": 8, "clip": 2.0}
    changes = {"one": {**many, "warmup": 0.2}, "two": {**many, "warmup": 0.3}}
    made = made_up(tmp_path / "made-up", ["T1", *changes], 1, changes=changes)
    titles = {row.name: row.title for row in summarise(read_finished(made)).rows if row.kind == "run"}
    assert titles == {
        "T1": "ce, batch size 32, clip 1.0, epochs 5, 2 more",
        "one": "ce, batch size 8, clip 2.0, epochs 3, lr 0.1, warmup 0.2",
        "two": "ce, batch size 8, clip 2.0, epochs 3, lr 0.1, warmup 0.3",
    }


def test_runs_with_plugins_of_several_versions_are_told(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1"], 2)
    for seed in (0, 1):
        theirs = {"name": "ce", "distribution": "mine", "version": f"1.{seed}\x1b[2J"}
        rewrite_record(made / "runs" / f"T1-{seed}", lambda content, theirs=theirs: content["plugins"].update(loss=theirs))
    told = list(notes(summarise(read_finished(made))))
    assert "T1: loss ce from mine 1.0\\x1b[2J." in told
    assert "T1: its runs have plugins of different versions, whose numbers may differ." in told


def test_as_json_every_figure_is_there(summary: Summary) -> None:
    content = to_json(summary)
    assert [row["name"] for row in content["rows"]][:2] == ["T1", "T3"]
    assert content["tasks"][0] == {"name": "ER", "title": "emotional reactions", "column": "ER", "labels": ["0", "1", "2"]}
    score = content["rows"][0]["cells"]["ER"]["scores"]["accuracy"]
    assert score.keys() == {"value", "low", "high", "by", "error", "freedom", "smallest", "p"}
    assert score["by"] in ("seeds", "pairs")
    assert content["rows"][0]["cells"]["ER"]["average_precision"][2].keys() == {"value", "runs"}
    assert content["contrasts"][0]["test"].keys() == {"gained", "lost", "mcnemar", "exact"}
    assert content["contrasts"][0]["corrected"].keys() == {"rows", "models", "recipes", "macro_f1"}


def test_what_is_undefined_is_null_in_json_and_a_dash_on_the_page(tmp_path: Path) -> None:
    """A test part of one level that all runs predict: kappa is undefined, as is the average precision of the other level."""
    one = Schema((TaskSchema("pace", "pace", "pace", ("slow", "fast")),))
    made = made_up(tmp_path / "made-up", ["T1", "T3"], 2, schema=one)
    for path in made.glob("runs/*"):
        rewrite(path, _of_one_level)
    found = summarise(read_finished(made))
    cell = to_json(found)["rows"][0]["cells"]["pace"]
    assert cell["scores"]["kappa"] == dict.fromkeys(("value", "low", "high", "by", "error", "freedom", "smallest", "p"))
    assert (cell["runs"]["kappa"], cell["deviation"]["kappa"]) == ([None, None], None)
    assert cell["average_precision"] == [{"value": 1.0, "runs": [1.0, 1.0]}, {"value": None, "runs": [None, None]}]
    row = found.rows[0]
    assert (score_cell(row, "pace", "kappa"), ranked_cell(row, "pace", 1)) == ("-", "-")
    assert mean_cell(row, "pace") == "1.000 ± .000 / 1.000 ± .000 / .500 ± .000 / -"
    write(found, made)
    for page in ("report.md", "report.html"):
        assert "nan" not in (made / page).read_text("utf-8").lower().replace("rationale", "")


def _of_one_level(files: dict[str, str]) -> None:
    header, *rows = files[record.PREDICTIONS].splitlines()
    columns = header.split(",")
    changed = {f"pace_{name}": "0" for name in ("true", "predicted", "swapped")} | {"pace_p0": "0.9", "pace_p1": "0.1"}
    lines = [",".join(changed.get(name, cell) for name, cell in zip(columns, row.split(","), strict=True)) for row in rows]
    files[record.PREDICTIONS] = "\n".join([header, *lines]) + "\n"
    content = json.loads(files[record.RUN])
    content["scores"]["pace"]["confusion"] = [[PAIRS, 0], [0, 0]]
    files[record.RUN] = json.dumps(content)
    recount(files)


def test_calibration_is_shown_without_and_with_the_temperatures(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "made", ["T1", "T3"], 2)
    before = summarise(read_finished(folder))
    (first, second) = read_finished(folder).runs["T1"]
    chances = np.concatenate([tempered(run.probabilities["ER"], 2.0) for run in (first, second)])
    true = np.concatenate([run.answers["ER"].true for run in (first, second)])
    assert before.tempered["T1"]["ER"] == pytest.approx(calibration(chances, true).ece)
    table = as_markdown(before).partition("## Calibration")[2].partition("## ")[0]
    for name in ("T1", "T3"):
        errors = (before.calibrations[name]["ER"].ece, before.tempered[name]["ER"])
        assert f"| {', '.join(f'{error:.3f}'.removeprefix('0') for error in errors)} |" in table
    rewrite_record(folder / "runs" / "T1-1", lambda content: content.update(calibration=None))  # of an earlier version
    after = summarise(read_finished(folder))
    assert (after.tempered["T1"], after.calibrations["T1"]) == ({}, before.calibrations["T1"])
    assert after.tempered["T3"] == before.tempered["T3"]
