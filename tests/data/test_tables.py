"""One table, CSV or JSON Lines or Parquet: the same corpus from each, with the tasks of its schema."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from invented import write_one_task, write_two_tasks
from tabular import HEADER, NAMES, ROWS, WRITERS, arrow_bytes, csv_bytes, one_row, read

from empathy_kit.data.pairs import Span, class_counts
from empathy_kit.data.schema import MISSING, Schema, read_schema
from empathy_kit.data.tables import load_table
from empathy_kit.errors import KitError


def test_csv_jsonl_and_parquet_give_the_same_corpus(tmp_path: Path) -> None:
    corpora = [read(tmp_path, kind, write(NAMES, ROWS)) for kind, write in WRITERS.items()]
    first = corpora[0]
    assert all((one.pairs, one.placement, one.sha256()) == (first.pairs, first.placement, first.sha256()) for one in corpora)
    assert [list(one.sources) for one in corpora] == [["posts.csv"], ["posts.jsonl"], ["posts.parquet"]]
    assert [pair.row for pair in first.pairs] == [1, 2, 3]
    assert [pair.levels for pair in first.pairs] == [(2, 2, 0), (0, 0, 1), (1, 0, 0)]
    assert first.pairs[0].pair_id == "1"
    assert first.pairs[0].seeker == 'No calls, "not one"\nsince May.'
    assert first.pairs[1].seeker == "I <3 nights, hate days"
    spans = [[pair.response[span.start : span.end] for part in pair.spans for span in part] for pair in first.pairs]
    assert spans == [["So sorry.", "What happened?"], ["worn out & alone"], ["Hugs.", "hugs"]]


def test_ids_and_spans_may_be_left_out(tmp_path: Path) -> None:
    (pair,) = read(tmp_path, "csv", (HEADER + "help,sure,1,0,0\n").encode()).pairs
    assert (pair.pair_id, pair.seeker_id, pair.spans) == ("1", "", ((), (), ()))
    assert not pair.annotated(0)
    assert pair.annotated(1)


@pytest.mark.parametrize("write", [write_two_tasks, write_one_task])
def test_a_table_of_other_tasks_is_one_corpus_in_every_format(tmp_path: Path, write: Callable[..., tuple[Path, Path]]) -> None:
    corpora = []
    for suffix in (".csv", ".jsonl", ".parquet"):
        data, schema = write(tmp_path, suffix)
        corpora.append(load_table(data, read_schema(schema)))
    assert len({(corpus.pairs, corpus.placement, corpus.sha256(), corpus.columns_read) for corpus in corpora}) == 1


def test_labels_may_be_missing_and_other_columns_are_counted(tmp_path: Path) -> None:
    data, file = write_two_tasks(tmp_path)
    schema = read_schema(file)
    corpus = load_table(data, schema)
    assert class_counts(corpus.pairs, schema) == {"warmth": (57, 39), "advice": (37, 22, 22, 15)}
    assert {pair.levels.count(MISSING) for pair in corpus.pairs} == {0, 1, 2}
    assert (corpus.schema, corpus.placement.exact, corpus.placement.total) == (schema, 39, 39)
    assert (corpus.columns_read, corpus.columns_ignored) == (("pair_id", "seeker_id", "warmth_spans"), 0)
    assert corpus.placement.bare == ()  # advice has no spans column at all
    warm = next(pair for pair in corpus.pairs if pair.levels[0] == 1)
    assert warm.annotated(0)
    unknown = next(pair for pair in corpus.pairs if pair.levels[0] == MISSING)
    assert not unknown.annotated(0)
    other = load_table(data, schema.select(["warmth"]))
    assert (other.columns_read, other.columns_ignored) == (("pair_id", "seeker_id", "warmth_spans"), 1)


def test_a_table_without_the_tasks_of_its_schema_is_refused(tmp_path: Path) -> None:
    data, file = write_two_tasks(tmp_path)
    one, other = write_one_task(tmp_path)
    both = Schema((*read_schema(file).tasks, *read_schema(other).tasks))
    with pytest.raises(KitError) as error:
        load_table(data)
    assert str(error.value) == (
        "two-tasks.csv: column 'ER' is missing; there are pair_id, seeker_id, seeker_post, response_post, 3 of other names; "
        "a table with tasks of its own needs --schema FILE.toml"
    )
    with pytest.raises(KitError) as error:
        load_table(one, both)
    assert str(error.value) == (
        "one-task.csv: column 'warmth' is missing; there are pair_id, seeker_id, seeker_post, response_post, pace"
    )


def test_a_table_in_part_needs_a_column_with_labels(tmp_path: Path) -> None:
    data = tmp_path / "posts.csv"
    data.write_text("seeker_post,response_post,rating,IP\na,b,1,2\n")
    assert load_table(data, partial=True).pairs[0].levels == (MISSING, MISSING, 2)
    data.write_text("seeker_post,response_post,rating\na,b,1\n")
    with pytest.raises(KitError) as error:
        load_table(data, partial=True)
    assert str(error.value) == (
        f"{data}: none of the columns with labels (ER, EX, IP) is in the table, expected at least one; "
        "rename the table's columns, or give its tasks as --schema FILE.toml"
    )


def test_a_parquet_column_that_nobody_asked_for_may_hold_what_python_cannot(tmp_path: Path) -> None:
    row = one_row()
    far = pyarrow.array([10**9], "int32").cast("date32")  # the year 2,739,877
    data = arrow_bytes({name: pyarrow.array([value]) for name, value in row.items()} | {"when": far})
    corpus = read(tmp_path, "parquet", data)
    assert (len(corpus), corpus.columns_read, corpus.columns_ignored) == (1, (), 1)


def test_a_span_that_is_not_in_its_response_is_counted_and_listed_by_row(tmp_path: Path) -> None:
    rows = [
        ["a", "I hear you.", 0, 0, 1, "I hear you."],
        ["a", "I hear you.", 0, 0, 2, "hear|a sentence of another response|you"],
        ["a", "I hear you.", 0, 0, 2, ""],
    ]
    corpus = read(tmp_path, "csv", csv_bytes(["seeker_post", "response_post", "ER", "EX", "IP", "IP_spans"], rows))
    assert corpus.placement.lost == ((2, "IP"),)
    assert corpus.placement.bare == ((3, "IP"),)
    assert (corpus.placement.exact, corpus.placement.total) == (3, 4)
    assert corpus.pairs[1].spans[2] == (Span(2, 6), Span(7, 10))
    assert [pair.unplaced for pair in corpus.pairs] == [(0, 0, 0), (0, 0, 1), (0, 0, 0)]
    assert [pair.annotated(2) for pair in corpus.pairs] == [True, False, False]


def test_a_file_that_is_not_there_or_not_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    Path("endless.csv").symlink_to("/dev/zero")
    os.mkfifo("pipe.jsonl")
    for name, message in {
        "endless.csv": "endless.csv: cannot be read: not a regular file",
        "pipe.jsonl": "pipe.jsonl: cannot be read: not a regular file",
        "gone.csv": "gone.csv: no such file",
        "folder.csv": "folder.csv: cannot be read: Is a directory",
        "posts.xlsx": "posts.xlsx: a .xlsx file, expected .csv, .jsonl, .parquet or a folder",
        "posts": "posts: a nameless file, expected .csv, .jsonl, .parquet or a folder",
    }.items():
        with pytest.raises(KitError) as error:
            load_table(Path(name))
        assert str(error.value) == message
