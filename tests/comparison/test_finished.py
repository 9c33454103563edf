"""Finished runs read back: of each task its labelled pairs, and nothing that does not belong together."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import ODD, PAIRS, made_up, recount, rewrite, rewrite_record

from empathy_kit import KitError
from empathy_kit.comparison.finished import read_finished
from empathy_kit.runs import record

THREE = {"options": {"loss.gamma": "3"}}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two configurations, two seeds, each with its own split."""
    return made_up(tmp_path_factory.mktemp("finished") / "made-up", ["T1", "T3"], 2, changes={"T3": THREE})


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def refusal(folder: Path) -> str:
    with pytest.raises(KitError) as error:
        read_finished(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_answers_are_those_of_the_labelled_pairs_of_each_task(tmp_path: Path) -> None:
    made = made_up(tmp_path / "odd", ["T1", "warm"], 1, schema=ODD, missing=0.3, changes={"warm": {"tasks": ("warmth",)}})
    found = read_finished(made)
    assert found.tasks.names == ("warmth", "advice_given")
    assert [list(runs[0].answers) for runs in found.runs.values()] == [["warmth", "advice_given"], ["warmth"]]
    with (made / "runs" / "T1-0" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    (run,) = found.runs["T1"]
    for task in ODD.tasks:
        labelled = [row for row in rows if row[f"{task.name}_true"]]
        answers = run.answers[task.name]
        assert 0 < len(labelled) < PAIRS
        assert answers.ids == tuple(row["id"] for row in labelled)
        assert answers.predicted.tolist() == [int(row[f"{task.name}_predicted"]) for row in labelled]
        assert run.probabilities[task.name].shape == (len(labelled), len(task.labels))
        assert run.swapped is not None
        assert run.swapped[task.name].ids == answers.ids


def test_a_run_that_is_missing_takes_no_other_along(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / "T3-1")
    found = read_finished(folder)
    assert {name: [each.seed for each in runs] for name, runs in found.runs.items()} == {"T1": [0, 1], "T3": [0]}
    assert found.missing == [("T3", 1)]
    assert found.left_out == ["tfidf was not measured (split 0, 1).", "tfidf-balanced was not measured (split 0, 1)."]


def test_without_any_run_there_is_nothing_to_read(folder: Path) -> None:
    shutil.rmtree(folder / "runs")
    assert refusal(folder) == f"{folder}: no finished run, expected at least one in {folder / 'runs'}"


def test_a_run_that_was_edited_is_refused(folder: Path) -> None:
    file = folder / "runs" / "T3-0" / "predictions.csv"
    file.write_text(file.read_text().replace(",0,", ",1,", 1))
    assert refusal(folder) == f"{file}: changed after the run (sha256 differs from the manifest)"


def test_runs_that_were_exchanged_or_copied_are_refused(folder: Path) -> None:
    one, other = folder / "runs" / "T1-0", folder / "runs" / "T3-0"
    shutil.rmtree(other)
    shutil.copytree(one, other)
    assert refusal(folder) == f"{other}: is a run with --loss ce, not focal; expected T3 as it is planned"
    shutil.rmtree(other)
    shutil.copytree(folder / "runs" / "T3-1", other)
    assert refusal(folder) == f"{other}: is a run with seed 1 on split 1; expected T3 as it is planned"


@pytest.mark.parametrize(("value", "same"), [(3, True), (3.0, True), (2.0, False), (None, False), ([3.0, 4.0], False)])
def test_an_option_of_the_plan_is_an_option_of_the_run(folder: Path, value: object, same: bool) -> None:
    where = folder / "runs" / "T3-0"
    rewrite_record(where, lambda content: content["config"].update(options={"loss.ER.gamma": value, "loss.ER.power": 0.0}))
    if same:
        read_finished(folder)
    else:
        assert refusal(folder) == f"{where}: is a run with -o loss.ER.gamma {value}, not 3; expected T3 as it is planned"


@pytest.mark.parametrize(("what", "sibling"), [("data", "T1-0"), ("split", "T1-1")])
def test_runs_on_other_data_or_another_split_are_not_compared(folder: Path, what: str, sibling: str) -> None:
    before = "d" * 12 if what == "data" else "1" * 12
    rewrite_record(folder / "runs" / "T3-1", lambda content: content[what].update(sha256="0" * 64))
    assert refusal(folder) == (
        f"{folder / 'runs' / 'T3-1'}: was made on another {what} than {folder / 'runs' / sibling} "
        f"(sha256 000000000000... and {before}...); they cannot be compared"
    )


def test_two_encoders_of_one_name_are_not_compared(folder: Path) -> None:
    """As where the weights in an --encoder folder were exchanged between two runs."""
    rewrite_record(folder / "runs" / "T3-1", lambda content: content["encoder"].update(sha256="0" * 64))
    assert refusal(folder) == (
        f"{folder / 'runs' / 'T3-1'}: --encoder minilm was another one than in {folder / 'runs' / 'T1-0'} "
        f"(sha256 000000000000... and {'e' * 12}...); they cannot be compared"
    )


def test_one_encoder_with_two_dropouts_is_compared(tmp_path: Path) -> None:
    """The dropout is in the encoder's configuration, and so in its hash; the weights are the same."""
    folder = made_up(tmp_path / "made", ["T1", "d"], 2, changes={"d": {"attention_dropout": 0.1}})
    for seed in (0, 1):
        rewrite_record(folder / "runs" / f"d-{seed}", lambda content: content["encoder"].update(sha256="d" * 64))
    assert list(read_finished(folder).runs) == ["T1", "d"]
    rewrite_record(folder / "runs" / "d-1", lambda content: content["encoder"].update(sha256="0" * 64))
    assert "--encoder minilm was another one than in" in refusal(folder)


def score_again(folder: Path, old: str, new: str) -> None:
    """Replace cells of predictions.csv, and make the confusion matrices and the counts fit."""

    def change(files: dict[str, str]) -> None:
        rows = [line.split(",") for line in files["predictions.csv"].replace(old, new, 1).splitlines()]
        content = json.loads(files["run.json"])
        for at in range(3):
            confusion = [[0] * 3 for _ in range(3)]
            for row in rows[1:]:
                if row[1 + 6 * at]:
                    confusion[int(row[1 + 6 * at])][int(row[2 + 6 * at])] += 1
            content["scores"][["ER", "EX", "IP"][at]]["confusion"] = confusion
        files["run.json"] = json.dumps(content)
        files["predictions.csv"] = "".join(",".join(row) + "\n" for row in rows)
        recount(files)

    rewrite(folder, change)


@pytest.mark.parametrize(("old", "new"), [("000000000003,", "00000000000x,"), ("000000000003,0,", "000000000003,,")])
def test_runs_of_a_split_have_the_same_pairs_and_true_labels(folder: Path, old: str, new: str) -> None:
    score_again(folder / "runs" / "T3-0", old, new)
    assert refusal(folder) == (
        f"{folder / 'runs' / 'T3-0' / 'predictions.csv'}: has other pairs or true labels of ER than the other files of its split"
    )


def test_yardsticks_are_of_the_same_pairs(folder: Path) -> None:
    (folder / "yardsticks").mkdir()
    with (folder / "runs" / "T1-0" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    columns = ["id", *(f"{task}_{what}" for task in ("ER", "EX", "IP") for what in ("true", "predicted"))]
    lines = [",".join(columns), *(",".join(row[column] for column in columns) for row in rows)]
    file = folder / "yardsticks" / "tfidf-0.csv"
    file.write_text("\n".join(lines))
    assert list(read_finished(folder).yardsticks["tfidf"]) == [0]
    file.rename(folder / "yardsticks" / "tfidf-1.csv")
    assert refusal(folder) == (
        f"{folder / 'yardsticks' / 'tfidf-1.csv'}: has other pairs or true labels of ER than the other files of its split"
    )


def changed(files: dict[str, str], name: str, old: str, new: str) -> None:
    assert old in files[name]
    files[name] = files[name].replace(old, new, 1)


TABLE = "not a table of answers, expected columns id, NAME_true, ... and a row for each test pair"
EPOCHS = "expected a line for each epoch, with its validation_loss and validation_macro_f1"
MALFORMED: dict[str, tuple[str, Callable[[dict[str, str]], None], str]] = {
    "an empty history": ("history.jsonl", lambda files: files.update({"history.jsonl": ""}), EPOCHS),
    "a history of something else": ("history.jsonl", lambda files: files.update({"history.jsonl": "[]\n"}), EPOCHS),
    "a history without a task": ("history.jsonl", lambda files: changed(files, "history.jsonl", '"IP"', '"XX"'), EPOCHS),
    "no predictions": ("predictions.csv", lambda files: files.update({"predictions.csv": ""}), TABLE),
    "a column twice": ("predictions.csv", lambda files: changed(files, "predictions.csv", "EX_true", "ER_true"), TABLE),
    "a column that is missing": (
        "predictions.csv",
        lambda files: changed(files, "predictions.csv", "EX_true", "XX"),
        "column EX_true is missing",
    ),
    "a level below 0": (
        "predictions.csv",
        lambda files: changed(files, "predictions.csv", "000000000003,0,", "000000000003,-1,"),
        "ER_true has values that are not levels 0 to 2",
    ),
    "a probability above 1": (
        "predictions.csv",
        lambda files: changed(files, "predictions.csv", ",0.", ",9."),
        "ER_p0 to ER_p2 have values that are not probabilities from 0 to 1",
    ),
    "a level that is not the likeliest": (
        "predictions.csv",
        lambda files: changed(files, "predictions.csv", "0000000000c7,0,0", "0000000000c7,0,1"),
        "ER_predicted is not always the likeliest level",
    ),
    "probabilities of half": (
        "predictions.csv",
        lambda files: files.update(
            {"predictions.csv": re.sub(r"0\.(\d{6})", lambda found: f"{int(found[1]) / 2e6:.6f}", files["predictions.csv"])}
        ),
        "ER_p0 to ER_p2 do not sum to 1",
    ),
    "a pair twice": ("predictions.csv", lambda files: changed(files, "predictions.csv", "000000000003,", "000000000002,"), TABLE),
    "endless losses": ("history.jsonl", lambda files: changed(files, "history.jsonl", "1.0", "Infinity"), EPOCHS),
    "losses as text": ("history.jsonl", lambda files: changed(files, "history.jsonl", "1.0", '"1.0"'), EPOCHS),
    "a deep history": ("history.jsonl", lambda files: files.update({"history.jsonl": "[" * 100_000}), EPOCHS),
    "no validation pairs": ("validation.csv", lambda files: files.update({"validation.csv": "id\n"}), TABLE),
    "a validation level out of range": (
        "validation.csv",
        lambda files: changed(files, "validation.csv", "000000000003,0,", "000000000003,3,"),
        "ER_true has values that are not levels 0 to 2",
    ),
    "a test pair among the validation pairs": (
        "validation.csv",
        lambda files: changed(files, "validation.csv", "v000000000000003,", "0000000000000003,"),
        "has 1 pairs of predictions.csv too, expected none",
    ),
    "a probability that is none": (
        "predictions.csv",
        lambda files: changed(files, "predictions.csv", ",0.", ",x"),
        "ER_p0 to ER_p2 have values that are not probabilities from 0 to 1",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_content_behind_a_whole_manifest_is_one_line(folder: Path, case: str) -> None:
    file, change, message = MALFORMED[case]
    rewrite(folder / "runs" / "T1-0", change)
    assert refusal(folder) == f"{folder / 'runs' / 'T1-0' / file}: {message}"


def test_a_run_without_its_validation_pairs_is_refused(folder: Path) -> None:
    run = folder / "runs" / "T1-0"
    rewrite(run, lambda files: files.pop("validation.csv"))
    assert refusal(folder) == f"{run / 'validation.csv'}: cannot be read: No such file or directory"


def test_scores_must_be_those_of_the_predictions(folder: Path) -> None:
    confusion = [[200, 0, 0], [0, 0, 0], [0, 0, 0]]
    rewrite_record(folder / "runs" / "T1-0", lambda content: content["scores"]["ER"].update(confusion=confusion))
    assert refusal(folder) == (f"{folder / 'runs' / 'T1-0'}: the scores of ER in run.json are not those of predictions.csv")


def test_the_validation_scores_must_be_those_of_the_answers_that_are_kept(folder: Path) -> None:
    run = folder / "runs" / "T1-0"
    rewrite_record(run, lambda content: content["training"]["validation_accuracy"].update(EX=0.99))
    assert refusal(folder) == f"{run}: the validation scores of EX in run.json are not those of validation.csv"
    rewrite_record(run, lambda content: content["training"].pop("validation_accuracy"))
    assert refusal(folder) == f"{run / 'run.json'}: {record.MALFORMED}"


PARTS: list[Callable[[dict[str, Any]], object]] = [
    lambda content: content["data"].pop("duplicates"),
    lambda content: content["data"]["class_counts"].update(ER=[1, 2]),
    lambda content: content["data"].update(pairs="many"),
    lambda content: content["split"]["class_counts"].update(train=None),
    lambda content: content.update(training=[]),
    lambda content: content.update(scores=None),
    lambda content: content["scores"].update(EX={}),
    lambda content: content.update(plugins={"loss": "ce"}),
    lambda content: content["config"].update(options=None),
    lambda content: content["config"].pop("trunk"),
    lambda content: content.pop("truncation"),
    lambda content: content.update(oracle=1),
    lambda content: content["split"].update(seed=True),
    lambda content: content["training"].update(seconds=10**400),
    lambda content: content["training"]["validation_accuracy"].update(EX=10**400),
    lambda content: content["calibration"].update(ER=2.0),
    lambda content: content["calibration"]["ER"].update(temperature=0),
    lambda content: content["calibration"]["ER"].pop("temperature"),
]


@pytest.mark.parametrize("at", range(len(PARTS)))
def test_a_record_without_what_a_report_needs_is_one_line(folder: Path, at: int) -> None:
    rewrite_record(folder / "runs" / "T1-0", PARTS[at])
    assert refusal(folder) == (f"{folder / 'runs' / 'T1-0' / 'run.json'}: parts are missing, or are not as a run writes them")


RECORDS = [
    "null",
    "[]",
    "3",
    '"text"',
    "{}",
    "[" * 100_000,
    '{"format": ' + "[" * 500 + "]" * 500 + "}",
    "not json",
    "\xff",
    '{"format": NaN}',
]


@pytest.mark.parametrize("text", RECORDS, ids=range(len(RECORDS)))
def test_a_record_that_is_none_is_one_line(folder: Path, text: str) -> None:
    rewrite(folder / "runs" / "T1-0", lambda files: files.update({"run.json": text}))
    found = refusal(folder)
    assert found.startswith(f"{folder / 'runs' / 'T1-0' / 'run.json'}: ")
    assert found.endswith((": parts are missing, or are not as a run writes them", " found, expected 3"))


def test_a_record_with_a_setting_that_cannot_be_is_one_line(folder: Path) -> None:
    rewrite_record(folder / "runs" / "T1-0", lambda content: content["config"].update(epochs=-1))
    assert refusal(folder) == f"{folder / 'runs' / 'T1-0' / 'run.json'}: --epochs -1: out of range, expected 1 to 10000"


def relabel(folder: Path, old: str, new: str) -> None:
    """Replace text of validation.csv, and make the counts fit."""

    def change(files: dict[str, str]) -> None:
        changed(files, "validation.csv", old, new)
        recount(files)

    rewrite(folder, change)


def test_a_pair_has_one_true_level_in_all_splits(folder: Path) -> None:
    """As where one run's labels were edited, and its scores and manifest with them."""
    row = (folder / "runs" / "T1-0" / "predictions.csv").read_text().splitlines()[1]
    name, level = row.split(",")[:2]
    for run in ("T1-1", "T3-1"):  # in seed 0 a test pair, in seed 1 a validation pair
        first = (folder / "runs" / run / "validation.csv").read_text().splitlines()[1]
        relabel(folder / "runs" / run, first, row)
    read_finished(folder)
    other = f"{name},{(int(level) + 1) % 3},"
    relabel(folder / "runs" / "T3-1", f"{name},{level},", other)
    assert refusal(folder) == (
        f"{folder / 'runs' / 'T3-1' / 'validation.csv'}: the true level of ER of '{name}' is another one than in the other runs"
    )
