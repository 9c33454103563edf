"""A model is scored on any labelled table: labels by their text, what it has seen of the pairs by their content."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import empathy_kit
from empathy_kit import EmpathyModel, KitError
from empathy_kit.cli import cli
from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.schema import EPITOME, Schema, TaskSchema
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take
from empathy_kit.inference import model as loading
from empathy_kit.inference.evaluate import evaluate, read_labelled
from empathy_kit.runs.seen import SEEN, read_seen, see, write_seen

NEW = [("I failed my exam.", "That sounds hard."), ("My cat ran away.", "Have you asked the neighbours?")]


@pytest.fixture(scope="module")
def model(marking_run: Path) -> EmpathyModel:
    return empathy_kit.load(marking_run)


@pytest.fixture(scope="module")
def sample() -> Corpus:
    return load_corpus("sample")


def table(path: Path, posts: Sequence[tuple[str, str]], **columns: Sequence[object]) -> str:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["seeker_post", "response_post", *columns])
        writer.writerows([*pair, *cells] for pair, cells in zip(posts, zip(*columns.values(), strict=True), strict=True))
    return str(path)


def part(corpus: Corpus, name: str) -> tuple[Pair, ...]:
    return take(corpus, make_split(corpus, "grouped", 0).part(name))


def true_counts(found: Any) -> list[int]:
    counts: list[int] = np.sum(found.scores.confusion, axis=1).tolist()
    return counts


def test_a_run_scores_what_it_recorded_on_its_own_test_part(model: EmpathyModel, marking_run: Path, sample: Corpus) -> None:
    recorded = json.loads((marking_run / "run.json").read_text(encoding="utf-8"))
    of_part = evaluate(model, replace(sample, pairs=part(sample, "test")))
    for found in (of_part, evaluate(model, sample, unseen=True)):
        assert found.tasks == of_part.tasks
        assert (found.scored, found.unseen) == (46, 46)
        assert list(found.tasks) == ["ER", "EX", "IP"]
        for name, task in found.tasks.items():
            scores, before, calibration = asdict(task.scores), recorded["scores"][name], recorded["calibration"][name]
            for key in ("n", "confusion", "accuracy", "weighted_f1", "macro_f1", "kappa", "precision", "recall", "f1"):
                assert scores[key] == before[key], key
            ours, theirs = ([each["value"] for each in one["average_precision"]] for one in (scores, before))
            assert ours == pytest.approx(theirs, abs=1e-4)
            assert task.spans is not None
            assert asdict(task.spans) == recorded["spans"][name]
            assert task.temperature == calibration["temperature"]
            ece = [calibration["ece_before"], calibration["ece_after"]]
            assert [task.ece_before, task.ece_after] == pytest.approx(ece, abs=1e-4)
            assert sum(true_counts(task)) * scores["majority"]["accuracy"] == max(true_counts(task))


def test_what_it_was_trained_and_validated_on_is_counted_and_left_out(model: EmpathyModel, sample: Corpus) -> None:
    found = evaluate(model, sample)
    assert found.seen is not None
    assert found.seen.pairs == found.seen.seekers == {"train": 210, "validation": 44}
    assert (found.pairs, found.unseen, found.scored) == (300, 46, 300)
    few = replace(sample, pairs=(part(sample, "validation")[0], *part(sample, "test")[:2]))
    found = evaluate(model, few, unseen=True)
    assert found.seen is not None
    assert found.seen.pairs == {"train": 0, "validation": 1}
    assert (found.pairs, found.unseen, found.scored) == (3, 2, 2)


def test_a_post_is_found_however_it_was_copied(model: EmpathyModel, sample: Corpus) -> None:
    known = next(pair for pair in part(sample, "train") if "'" in pair.seeker and "." in pair.response)
    copied = known.seeker.upper().replace("'", "\u2019").replace(" ", "\u00a0 \u200b\n")
    copies = [
        replace(known, seeker=copied, response=f"*{known.response}*"),
        replace(known, response="Something else."),
        replace(known, seeker=f"{known.seeker} And more."),
    ]
    assert model.seen is not None
    overlap, unseen = model.seen.overlap(copies)
    assert (overlap.pairs["train"], overlap.seekers["train"], unseen) == (1, 2, [2])


def test_only_keyed_hashes_are_kept_the_same_in_every_repeat_and_others_for_other_data(
    marking_run: Path, sample: Corpus, tmp_path: Path
) -> None:
    split = make_split(sample, "grouped", 0)
    write_seen(tmp_path, see(sample, split, key=sample.sha256()))
    written = (tmp_path / SEEN).read_bytes()
    assert written == (marking_run / "model" / SEEN).read_bytes()
    content = json.loads(written)
    assert set(content) == {"format", "key", "train", "validation"}
    hashes = [each for name in ("train", "validation") for kind in ("pairs", "seekers") for each in content[name][kind]]
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in hashes)
    assert content["train"]["pairs"] == sorted(content["train"]["pairs"])  # not in the order of the data
    other = see(sample, split, key=replace(sample, pairs=sample.pairs[1:]).sha256())
    assert not set(hashes) & {*other.pairs["train"], *other.seekers["train"], *other.pairs["validation"]}


def test_the_hashes_cannot_be_exchanged(marking_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(marking_run, tmp_path / "copy")
    (copy / "model" / SEEN).write_text("{}")
    with pytest.raises(KitError) as error:
        empathy_kit.load(copy)
    assert str(error.value) == f"{copy / 'model' / SEEN}: changed after the run (sha256 differs from the manifest)"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "key": "KEY", "train": {"pairs": [], "seekers": []}, "validation": {"pairs": [], "seekers": []}}',
        '{"format": 1, "key": "00", "train": {"pairs": [], "seekers": []}, "validation": {"pairs": [], "seekers": []}}',
        '{"format": 1, "key": "KEY", "train": {"pairs": [1], "seekers": []}, "validation": {"pairs": [], "seekers": []}}',
        '{"format": 1, "key": "KEY", "train": {"pairs": "a", "seekers": []}, "validation": {"pairs": [], "seekers": []}}',
        '{"format": 1, "key": "KEY", "train": {"pairs": [], "seekers": []}}',
    ],
)
def test_a_file_of_other_content_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / SEEN).write_text(content.replace("KEY", "00" * 32))
    with pytest.raises(KitError) as error:
        read_seen(tmp_path)
    assert str(error.value) == f"{tmp_path / SEEN}: no hashes of training posts found, expected format 1"


def test_tasks_and_labels_that_a_table_lacks_are_left_out(model: EmpathyModel, tmp_path: Path) -> None:
    data = table(tmp_path / "some.csv", NEW, IP=["2", ""], ER=["1.0", "0"])
    found = evaluate(model, read_labelled(model, data))
    assert {name: task.scores.n for name, task in found.tasks.items()} == {"ER": 2, "IP": 1}
    assert found.left_out == ("EX",)
    assert true_counts(found.tasks["ER"]) == [1, 1, 0]
    assert true_counts(found.tasks["IP"]) == [0, 0, 1]
    assert found.tasks["ER"].spans is None  # nobody has marked any: "none was found" would not be a score
    assert found.tasks["ER"].scores.average_precision[2] is None


def test_a_schemas_labels_are_matched_by_their_text(model: EmpathyModel, tmp_path: Path) -> None:
    schema = Schema(
        (TaskSchema("mood", "mood", "mood", ("a", "b")), TaskSchema("ER", "warmth", "rating", ("2", "1.0", "0"))),
    )
    data = table(tmp_path / "other.csv", [*NEW, NEW[0]], mood=["a", "b", "a"], rating=["2", "2", "0"])
    found = evaluate(model, read_labelled(model, data, schema))
    assert list(found.tasks) == ["ER"]
    assert found.tasks["ER"].labels == ("0", "1", "2")
    assert true_counts(found.tasks["ER"]) == [1, 0, 2]


def test_a_model_of_some_tasks_is_scored_on_data_with_all_of_them(response_run: Path) -> None:
    model = empathy_kit.load(response_run)
    found = evaluate(model, read_labelled(model, "sample"))
    assert list(found.tasks) == ["ER", "IP"]
    assert found.left_out == ()
    assert all(task.spans is None for task in found.tasks.values())


def refused(model: EmpathyModel, corpus: Corpus, **options: bool) -> str:
    with pytest.raises(KitError) as error:
        evaluate(model, corpus, **options)
    return str(error.value)


def test_what_cannot_be_scored_is_one_line(model: EmpathyModel, sample: Corpus, tmp_path: Path) -> None:
    other = replace(sample, schema=Schema((TaskSchema("mood", "mood", "mood", ("a", "b", "c")),)), pairs=sample.pairs[:1])
    assert refused(model, other) == (
        "sample: its tasks are mood, expected one of the model's, ER, EX, IP; give them the model's names in --schema"
    )
    four = replace(sample, schema=Schema((*EPITOME.tasks[:2], TaskSchema("IP", "IP", "IP", ("0", "1", "strong")))))
    assert refused(model, four) == "sample: task IP has the label 'strong', which the model does not know; its labels are 0, 1, 2"
    bare = replace(sample, pairs=tuple(replace(pair, levels=(-1, -1, -1)) for pair in sample.pairs))
    assert refused(model, bare) == "sample: no pair has a label for ER, EX, IP, expected one for at least one of them"
    assert refused(model, bare, unseen=True) == (
        "--unseen: none of the 46 unseen pairs of sample has a label for ER, EX, IP, expected one for at least one of them"
    )
    known = replace(sample, pairs=part(sample, "train"))
    assert refused(model, known, unseen=True) == (
        "--unseen: the model was trained or validated on the seeker post of every pair of sample (210); nothing is left to score"
    )
    old = replace(model, seen=None)
    assert refused(old, sample, unseen=True) == (
        "--unseen: the model has no hashes of its training posts, which older kits did not keep; train it again"
    )
    found = evaluate(old, replace(sample, pairs=sample.pairs[:2]))
    assert (found.seen, found.unseen, found.scored) == (None, None, 2)
    for data, reason in (
        (
            "nope.csv",
            "DATA nope.csv: no such file or folder; expected sample, reddit, a folder or a .csv, .jsonl or .parquet file",
        ),
        (
            table(tmp_path / "words.csv", NEW, ER=["strong", "none"]),
            "words.csv, row 1, column 'ER': text of 6 characters found, expected 0, 1 or 2",
        ),
        (
            table(tmp_path / "nolab.csv", NEW, rating=["1", "0"]),
            f"{tmp_path / 'nolab.csv'}: none of the columns with labels (ER, EX, IP) is in the table, expected at least one; "
            "rename the table's columns, or give its tasks as --schema FILE.toml",
        ),
    ):
        with pytest.raises(KitError) as error:
            read_labelled(model, data)
        assert str(error.value) == reason
    with pytest.raises(KitError, match="--schema: DATA sample has EPITOME's tasks ER, EX, IP, expected a table of other tasks"):
        read_labelled(model, "sample", other.schema)


def test_the_command_prints_scores_and_what_was_seen_and_no_post(marking_run: Path, sample: Corpus) -> None:
    command = CliRunner(env={"COLUMNS": "80"})
    said = command.invoke(cli, ["evaluate", str(marking_run), "sample"], catch_exceptions=False)
    lines = said.stdout.splitlines()
    assert lines[1:4] == [
        "trained on: both posts of 210 of these pairs, the seeker post of 210",
        "validated on: both posts of 44 of these pairs, the seeker post of 44",
        "unseen: 46; scored: 300",
    ]
    assert "254 of these pairs are not new to the model, which scores better on seen ones; --unseen leaves them out" in lines
    assert max(map(len, lines[4:-6])) <= 80
    as_json = command.invoke(cli, ["evaluate", str(marking_run), "sample", "--unseen", "--json"], catch_exceptions=False)
    found = json.loads(as_json.stdout)
    assert found["scored"] == sum(map(sum, found["tasks"]["ER"]["scores"]["confusion"])) == 46
    for pair in sample.pairs:
        assert pair.response[:30] not in said.output + as_json.output


def test_a_label_that_no_pair_has_is_named_because_macro_f1_counts_it(marking_run: Path, tmp_path: Path) -> None:
    data = table(tmp_path / "some.csv", [*NEW, ("I moved.", "Why?")], ER=["1", "0", "0"], EX=["0", "1", "2"])
    said = CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["evaluate", str(marking_run), data], catch_exceptions=False)
    lines = said.stdout.splitlines()
    assert [line for line in lines if "no pair has" in line] == ["ER: no pair has the label 2, whose F1 counts as 0 in macro F1"]
    (row,) = (line.split() for line in lines if line.split()[:2] == ["2", "0"])  # its label, and its pairs
    assert row[-1] == "-"


def test_levels_that_no_pair_has_are_not_said_to_be_predicted_right_too_seldom(marking_run: Path, tmp_path: Path) -> None:
    data = table(tmp_path / "some.csv", [*NEW, ("I moved.", "Why?")], ER=["1", "0", "0"])
    said = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["evaluate", str(marking_run), data], catch_exceptions=False)
    assert "ER 2 (0 of 0)" not in said.stdout
    never = [line for line in said.stdout.splitlines() if "was never predicted" in line]
    assert never
    assert {line.partition("(")[2] for line in never} <= {"1 pair has it)", "2 pairs have it)"}


def test_placeholders_in_place_of_scored_posts_are_warned_of(model: EmpathyModel, tmp_path: Path) -> None:
    data = table(tmp_path / "some.csv", [*NEW, ("[removed]", "Why?")], ER=["1", "0", "0"])
    assert evaluate(model, read_labelled(model, data)).warnings == (
        *model.warnings,
        "1 row has a placeholder such as [removed] or NA in place of a post (row 3), which is read as its text; leave it out",
    )
    assert evaluate(model, read_labelled(model, table(tmp_path / "new.csv", NEW, ER=["1", "0"]))).warnings == model.warnings


def test_an_oracle_is_stamped(model: EmpathyModel, marking_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = replace(model, about={**model.about, "oracle": True})
    monkeypatch.setattr(loading, "load", lambda source, plugins: oracle)
    said = CliRunner().invoke(cli, ["evaluate", str(marking_run), "sample", "--unseen"], catch_exceptions=False)
    assert said.stdout.startswith("model ce + attention head + predicted (ORACLE), sha256 ")
    assert "ORACLE: the model was trained to see annotated spans at inference; here it saw none." in said.stdout
