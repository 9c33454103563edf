"""Yardsticks: learnt from labelled pairs, left out where nothing can be learnt, and never believed unchecked."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from invented import write_two_tasks

from empathy_kit import KitError
from empathy_kit.comparison import yardsticks
from empathy_kit.comparison.yardsticks import measure
from empathy_kit.core.baselines import tfidf_probabilities
from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.schema import MISSING, read_schema
from empathy_kit.data.splits import Split, make_split, take
from empathy_kit.data.tables import load_table

FILES = ["manifest.json", "tfidf-0.csv", "tfidf-balanced-0.csv"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two tasks, a fifth of the labels missing."""
    data, schema = write_two_tasks(tmp_path_factory.mktemp("two"))
    return load_table(data, read_schema(schema))


@pytest.fixture(scope="module")
def split(corpus: Corpus) -> Split:
    return make_split(corpus, "grouped", 0)


@pytest.fixture
def measured(corpus: Corpus, split: Split, tmp_path: Path) -> Path:
    measure(corpus, [split], tmp_path)
    return tmp_path


def relabelled(corpus: Corpus, change: Callable[[Pair], Pair]) -> Corpus:
    return replace(corpus, pairs=tuple(map(change, corpus.pairs)))


def test_they_learn_from_labelled_pairs_and_are_scored_on_labelled_pairs(measured: Path, corpus: Corpus, split: Split) -> None:
    assert sorted(path.name for path in (measured / "yardsticks").iterdir()) == FILES
    found = yardsticks.read(measured, [0], corpus.schema)
    assert found.left_out == []
    train, test = take(corpus, split.train), take(corpus, split.test)
    for index, task in enumerate(corpus.schema.names):
        known, wanted = ([pair for pair in part if pair.levels[index] != MISSING] for part in (train, test))
        assert 0 < len(wanted) < len(test)
        levels = np.array([pair.levels[index] for pair in known])
        expected = tfidf_probabilities([pair.response for pair in known], levels, [pair.response for pair in wanted], 4)
        answers = found.answers["tfidf"][0][task]
        assert answers.true.tolist() == [pair.levels[index] for pair in wanted]
        assert answers.predicted.tolist() == expected.argmax(1).tolist()
        assert len(answers.ids) == len(wanted)
        assert answers.probabilities is not None
        assert answers.probabilities.shape == (len(wanted), len(corpus.schema.tasks[index].labels))


def test_a_file_has_every_test_pair_and_an_empty_cell_for_a_missing_label(measured: Path, corpus: Corpus, split: Split) -> None:
    with (measured / "yardsticks" / "tfidf-0.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    columns = {task.name: [f"p{level}" for level in range(len(task.labels))] for task in corpus.schema.tasks}
    assert list(rows[0]) == [
        "id",
        *(f"{name}_{column}" for name, chances in columns.items() for column in ("true", "predicted", *chances)),
    ]
    for row in rows:
        for name, chances in columns.items():
            values = [float(row[f"{name}_{column}"]) for column in chances]
            assert sum(values) == pytest.approx(1, abs=1e-5)
            assert values[int(row[f"{name}_predicted"])] == max(values)
    test = take(corpus, split.test)
    assert [row["warmth_true"] for row in rows] == ["" if pair.levels[0] == MISSING else str(pair.levels[0]) for pair in test]
    assert all(row["warmth_predicted"] and row["advice_predicted"] for row in rows)


def test_what_is_there_stays_and_what_was_changed_is_measured_again(measured: Path, corpus: Corpus, split: Split) -> None:
    kept, changed = (measured / "yardsticks" / f"{name}-0.csv" for name in ("tfidf", "tfidf-balanced"))
    before, when = changed.read_bytes(), kept.stat().st_mtime_ns
    changed.write_text("edited")
    measure(corpus, [split], measured)
    assert changed.read_bytes() == before
    assert kept.stat().st_mtime_ns == when


def test_a_file_that_was_changed_is_refused(measured: Path, corpus: Corpus) -> None:
    file = measured / "yardsticks" / "tfidf-0.csv"
    file.write_bytes((measured / "yardsticks" / "tfidf-balanced-0.csv").read_bytes() + b" ")
    with pytest.raises(KitError) as error:
        yardsticks.read(measured, [0], corpus.schema)
    assert str(error.value) == (
        f"{file}: changed after it was measured (sha256 differs from manifest.json); delete it and run `empathy-kit compare` to "
        "measure it again"
    )


def test_versions_of_the_libraries_are_recorded_and_remarked_where_they_differ(measured: Path, corpus: Corpus) -> None:
    manifest = measured / "yardsticks" / "manifest.json"
    content = json.loads(manifest.read_text())
    now = {name: version(name) for name in ("scikit-learn", "scipy")}
    assert content["versions"] == {f"{name}-0.csv": now for name in ("tfidf", "tfidf-balanced")}
    assert yardsticks.read(measured, [0], corpus.schema).remarks == []
    content["versions"]["tfidf-0.csv"]["scikit-learn"] = "0.1"
    manifest.write_text(json.dumps(content))
    assert yardsticks.read(measured, [0], corpus.schema).remarks == [
        f"The yardsticks were measured with different versions of scikit-learn (0.1, {now['scikit-learn']}), "
        "whose numbers may differ."
    ]


def test_a_manifest_of_an_earlier_version_has_no_versions(measured: Path, corpus: Corpus) -> None:
    manifest = measured / "yardsticks" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["versions"]
    manifest.write_text(json.dumps(content))
    found = yardsticks.read(measured, [0], corpus.schema)
    assert (len(found.answers), found.remarks) == (2, [])


@pytest.mark.parametrize("content", ["", "null", "{}", '{"format": 1, "sha256": [], "left_out": {}}', "[" * 100_000])
def test_a_manifest_that_is_none_is_named(measured: Path, corpus: Corpus, content: str) -> None:
    folder = measured / "yardsticks"
    (folder / "manifest.json").write_text(content)
    with pytest.raises(KitError) as error:
        yardsticks.read(measured, [0], corpus.schema)
    assert str(error.value) == (
        f"{folder / 'manifest.json'}: unreadable; delete {folder} and run `empathy-kit compare` to measure it again"
    )


TABLE = "not a table of answers, expected columns id, NAME_true, ... and a row for each test pair"
TABLES = {
    "": TABLE,
    "id,warmth_true,warmth_predicted\n": TABLE,
    "id,warmth_true,warmth_predicted\na,0\n": (TABLE),
    "id,warmth_true,warmth_predicted\na,0,1\n": "column advice_true is missing",
    "id,warmth_true,warmth_predicted,advice_true,advice_predicted\na,0,2,0,0\n": (
        "warmth_predicted has values that are not levels 0 to 1"
    ),
    "id,warmth_true,warmth_predicted,advice_true,advice_predicted\na,-1,0,0,0\n": (
        "warmth_true has values that are not levels 0 to 1"
    ),
    "id,warmth_true,warmth_predicted,advice_true,advice_predicted\na,0,0,0,\n": (
        "advice_predicted has values that are not levels 0 to 3"
    ),
}


@pytest.mark.parametrize("content", TABLES)
def test_a_file_of_an_earlier_version_has_no_hash_and_is_checked_cell_by_cell(
    measured: Path, corpus: Corpus, content: str
) -> None:
    folder = measured / "yardsticks"
    (folder / "manifest.json").unlink()
    assert yardsticks.read(measured, [0], corpus.schema).left_out == []
    (folder / "tfidf-0.csv").write_text(content)
    with pytest.raises(KitError) as error:
        yardsticks.read(measured, [0], corpus.schema)
    assert str(error.value) == f"{folder / 'tfidf-0.csv'}: {TABLES[content]}"


@pytest.mark.parametrize("name", ["manifest.json", "tfidf-0.csv"])
def test_a_pipe_among_them_is_refused_instead_of_waited_for(measured: Path, corpus: Corpus, name: str) -> None:
    path = measured / "yardsticks" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(KitError) as error:
        yardsticks.read(measured, [0], corpus.schema)
    assert str(error.value).startswith(f"{path}: ")


def test_a_level_that_the_training_pairs_lack_has_probability_0() -> None:
    texts, wanted = ["so sorry to hear", "so sorry for you", "have you tried tea", "have you tried it"], ["so sorry", "have you"]
    levels = np.array([0, 0, 2, 2])
    found = tfidf_probabilities(texts, levels, wanted, 4)
    assert found[:, [1, 3]].tolist() == [[0, 0], [0, 0]]
    assert found.sum(1) == pytest.approx(1)
    assert found.argmax(1).tolist() == [0, 2]


def test_a_file_of_an_earlier_version_has_no_probabilities(measured: Path, corpus: Corpus) -> None:
    folder = measured / "yardsticks"
    (folder / "manifest.json").unlink()
    with (folder / "tfidf-0.csv").open() as stream:
        rows = [[row[name] for name in row if "_p" not in name or name.endswith("_predicted")] for row in csv.DictReader(stream)]
    header = ["id", "warmth_true", "warmth_predicted", "advice_true", "advice_predicted"]
    (folder / "tfidf-0.csv").write_text("".join(",".join(row) + "\n" for row in [header, *rows]))
    assert yardsticks.read(measured, [0], corpus.schema).answers["tfidf"][0]["warmth"].probabilities is None


def test_posts_in_which_no_word_occurs_twice_leave_it_out_with_the_reason(corpus: Corpus, split: Split, tmp_path: Path) -> None:
    numbered = (replace(pair, response="".join(chr(0x4E00 + pair.row + at) for at in range(20))) for pair in corpus.pairs)
    measure(replace(corpus, pairs=tuple(numbered)), [split], tmp_path)  # unsegmented: each post is one word
    found = yardsticks.read(tmp_path, [0], corpus.schema)
    assert found.answers == {}
    assert found.left_out == [
        f"{name} has nothing for {task}: no word occurs in two training responses (split 0)."
        for name in ("tfidf", "tfidf-balanced")
        for task in ("warmth", "advice")
    ]
    assert yardsticks.read(tmp_path, [0, 3], corpus.schema).left_out[-1] == "tfidf-balanced was not measured (split 3)."


@pytest.mark.parametrize(
    ("level", "why"),
    [(1, "its training pairs have fewer than two labels"), (MISSING, "its training pairs have fewer than two labels")],
)
def test_a_task_of_which_nothing_can_be_learnt_is_left_out_alone(
    corpus: Corpus, split: Split, tmp_path: Path, level: int, why: str
) -> None:
    measure(relabelled(corpus, lambda pair: replace(pair, levels=(level, pair.levels[1]))), [split], tmp_path)
    found = yardsticks.read(tmp_path, [0], corpus.schema)
    assert {name: list(by_seed[0]) for name, by_seed in found.answers.items()} == {
        "tfidf": ["advice"],
        "tfidf-balanced": ["advice"],
    }
    assert found.left_out == [f"{name} has nothing for warmth: {why} (split 0)." for name in ("tfidf", "tfidf-balanced")]
    manifest = json.loads((tmp_path / "yardsticks" / "manifest.json").read_text())
    assert manifest["left_out"] == {f"{name}-0.csv": {"warmth": why} for name in ("tfidf", "tfidf-balanced")}
