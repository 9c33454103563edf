"""A table is read row by row: what makes a row unreadable is said of that row, what makes the table unreadable of the table."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from empathy_kit import KitError
from empathy_kit.inference.tables import LONGEST, Bad, Columns, Input, PairTable

COLUMNS = Columns("seeker_post", "response_post")


def rows(path: Path, columns: Columns = COLUMNS) -> list[Input | Bad]:
    return list(PairTable(path, columns).rows())


def csv_of(path: Path, *lines: bytes, header: bytes = b"seeker_post,response_post,note") -> Path:
    path.write_bytes(b"\n".join((header, *lines)) + b"\n")
    return path


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (b",hug,1", "seeker_post", "empty, expected a post"),
        (b'"  \t ",hug,1', "seeker_post", "empty, expected a post"),
        ("sad,\u200b\u200b,1".encode(), "response_post", "only invisible characters found, expected a post"),
        (b"sad,a\0b,1", "response_post", "a NUL byte found, expected text"),
        (b"sad,caf\xe9,1", "response_post", "not UTF-8, or half a surrogate pair, found; save it again as UTF-8"),
        (b"sad,hug,caf\xe9", "note", "not UTF-8, or half a surrogate pair, found; save it again as UTF-8"),
        (b"sad," + b"x" * 10_000_000 + b",1", "response_post", "10,000,000 characters found, expected at most 100,000"),
        (b"sad,hug", "", "2 cells found, expected 3"),
        (b'sad,"hug"x,1', "", "line 3: not a valid CSV row: ',' expected after '\"'"),
    ],
)
def test_a_bad_row_of_a_csv_is_named_and_the_others_are_read(tmp_path: Path, line: bytes, column: str, reason: str) -> None:
    path = csv_of(tmp_path / "in.csv", b"one,hug,1", line, b"", b"three,hug,3")
    first, second, third = rows(path, Columns("seeker_post", "response_post", keep=("note",)))
    assert (first, third) == (Input(1, "one", "hug", ("1",)), Input(3, "three", "hug", ("3",)))
    assert second == Bad(2, column, reason)
    shown = f", column '{column}'" if column else ""
    assert str(Bad(2, column, reason).error("in.csv")) == f"in.csv, row 2{shown}: {reason}"


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ('{"seeker_post": "sad"}', "response_post", "missing"),
        ('{"seeker_post": null, "response_post": "hug"}', "seeker_post", "empty, expected a post"),
        ('{"seeker_post": 3, "response_post": "hug"}', "seeker_post", "a number found, expected text"),
        ('{"seeker_post": "sad", "response_post": "\\ud83d"}', "response_post", None),
        (
            '{"seeker_post": "sad", "seeker_post": "glad", "response_post": "hug"}',
            "",
            "not valid JSON: a name occurs twice in one object",
        ),
        ("[1]", "", "a list found, expected one object per line (JSON Lines)"),
        ("{", "", "not valid JSON: Expecting property name enclosed in double quotes"),
        ("[" * 100_000, "", None),
    ],
)
def test_a_bad_line_of_json_is_named_and_the_others_are_read(tmp_path: Path, line: str, column: str, reason: str | None) -> None:
    good = json.dumps({"Seeker Post": "one", "response_post": "h\u2028g"}, ensure_ascii=False)
    again = line.replace('"seeker_post"', '"Seeker Post"')
    (tmp_path / "in.jsonl").write_text(f"\ufeff{good}\n\n{again}\n{good}", encoding="utf-8")
    first, second, third = rows(tmp_path / "in.jsonl")
    assert [first, third] == [Input(1, "one", "h\u2028g", ()), Input(3, "one", "h\u2028g", ())]
    assert isinstance(second, Bad)
    assert (second.number, second.column) == (2, column)
    assert reason is None or second.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[\n{"seeker_post": "sad", "response_post": "hug"}\n]\n', "not valid JSON: Expecting value; "),
        ("seeker_post,response_post\nsad,hug\n", "not valid JSON: Expecting value; "),
        ('[{"seeker_post": "sad", "response_post": "hug"}]\n', "a list found, "),
    ],
)
def test_a_file_of_another_format_is_told_by_its_first_row_without_the_advice_to_skip_it(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "in.jsonl").write_text(text)
    first = rows(tmp_path / "in.jsonl")[0]
    assert isinstance(first, Bad)
    assert str(first.refusal("in.jsonl")) == f"in.jsonl, row 1: {reason}expected one object per line (JSON Lines)"
    skip = "; use --errors skip to predict the other rows and list the bad ones"
    assert str(Bad(2, "", "not valid JSON: ...").refusal("in.jsonl")) == f"in.jsonl, row 2: not valid JSON: ...{skip}"


def test_placeholders_are_counted_as_the_rows_are_read(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "in.csv", b"sad,hug,NA", b"NA,hug,1", b",hug,1", b"sad, &lt;NA&gt; ,1", b"[removed],[removed],1")
    table = PairTable(path, COLUMNS)
    assert [type(row) for row in table.rows()] == [Input, Input, Bad, Input, Input]  # a row that has one is no bad row
    assert (table.placeholders.count, table.placeholders.first) == (3, (2, 4, 5))
    alone = PairTable(path, Columns(None, "response_post"))
    assert (len(list(alone.rows())), alone.placeholders.first) == (5, (4, 5))


HALF = "\\ud83d"  # as JSON has it


@pytest.mark.parametrize("kept", [f'["x", "{HALF}"]', f'{{"a": {{"b": "{HALF}"}}}}', f'{{"{HALF}": 1}}'])
def test_half_a_surrogate_pair_within_a_kept_value_costs_its_row(tmp_path: Path, kept: str) -> None:
    line = '{{"seeker_post": "sad", "response_post": "hug", "note": {}}}\n'
    (tmp_path / "in.jsonl").write_text(line.format('["fine"]') + line.format(kept))
    good, bad = rows(tmp_path / "in.jsonl", Columns("seeker_post", "response_post", keep_all=True))
    assert good == Input(1, "sad", "hug", (["fine"],))
    assert bad == Bad(2, "note", "not UTF-8, or half a surrogate pair, found; save it again as UTF-8")
    assert len(rows(tmp_path / "in.jsonl")) == 2  # what is not kept may hold anything


def test_a_kept_value_that_is_nested_without_end_costs_its_row(tmp_path: Path) -> None:
    line = f'{{"seeker_post": "sad", "response_post": "hug", "note": {"[" * 400}{"]" * 400}}}\n'
    (tmp_path / "in.jsonl").write_text(line)
    (bad,) = rows(tmp_path / "in.jsonl", Columns("seeker_post", "response_post", keep=("note",)))
    assert bad == Bad(1, "note", "lists or objects more than 100 deep found")


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("in.jsonl", f'{{"seeker_post": "sad", "response_post": "hug", "{HALF}": 1}}\n'.encode(), "\\ud83d"),
        ("in.csv", b"seeker_post,response_post,caf\xe9\nsad,hug,1\n", "caf\\udce9"),
    ],
)
def test_a_kept_column_whose_name_no_file_can_hold_is_one_line(tmp_path: Path, name: str, content: bytes, shown: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KitError) as error:
        rows(tmp_path / name, Columns("seeker_post", "response_post", keep_all=True))
    assert str(error.value) == (f"{name}: column '{shown}': the name is not UTF-8, or has half a surrogate pair; rename it")
    assert len(rows(tmp_path / name)) == 1


def test_a_column_that_the_first_row_lacks_is_not_left_out_silently(tmp_path: Path) -> None:
    pair = {"seeker_post": "sad", "response_post": "hug"}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({**pair, **more}) + "\n" for more in ({"a": 1}, {}, {"b": 2})))
    first, second, third = rows(tmp_path / "in.jsonl", Columns("seeker_post", "response_post", keep_all=True))
    assert (first, second) == (Input(1, "sad", "hug", (1,)), Input(2, "sad", "hug", (None,)))
    assert third == Bad(3, "", "column 'b' is not in row 1, whose columns are kept; add it there too")
    assert len([row for row in rows(tmp_path / "in.jsonl") if isinstance(row, Input)]) == 3


@pytest.mark.parametrize("keep", [(), ("note",)])
@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ({"seeker_post": "a"}, "column 'response_post' is missing; there are seeker_post"),
        (
            {"Seeker Post": "a", "seeker_post": "b", "response_post": "c", "note": 1},
            "columns 'Seeker Post' and 'seeker_post' are both 'seeker_post', expected one of them",
        ),
    ],
)
def test_a_first_row_without_the_columns_costs_only_itself(
    tmp_path: Path, first: dict[str, Any], reason: str, keep: tuple[str, ...]
) -> None:
    good = {"seeker_post": "sad", "response_post": "hug", "note": 2}
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (first, good, {"seeker_post": "a"}, good)))
    kept = (2,) if keep else ()
    assert rows(path, Columns("seeker_post", "response_post", keep=keep)) == [
        Bad(1, "", reason, alone=False),
        Input(2, "sad", "hug", kept),
        Bad(3, "response_post", "missing"),
        Input(4, "sad", "hug", kept),
    ]


def test_the_kept_columns_are_those_of_the_first_row_that_has_the_posts(tmp_path: Path) -> None:
    pair = {"seeker_post": "sad", "response_post": "hug"}
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ({"c": 0}, {**pair, "a": 1}, {**pair, "b": 2})))
    columns = Columns("seeker_post", "response_post", keep_all=True)
    assert rows(path, columns) == [
        Bad(1, "", NO_SEEKER.removeprefix("in.jsonl: "), alone=False),
        Input(2, "sad", "hug", (1,)),
        Bad(3, "", "column 'b' is not in row 2, whose columns are kept; add it there too"),
    ]
    assert rows(path, Columns("seeker_post", "response_post", keep=("b",)))[1:] == [
        Bad(2, "", "column 'b' is missing; there are seeker_post, response_post, 1 of other names"),
        Input(3, "sad", "hug", (2,)),
    ]


def test_a_table_in_which_no_row_has_the_columns_is_refused_for_the_reason_of_its_first_row(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"seeker_post": "a"}\n{"response_post": "b"}\n')
    table, found = PairTable(tmp_path / "in.jsonl", COLUMNS), []
    with pytest.raises(KitError) as error:
        found.extend(table.rows())
    assert str(error.value) == "in.jsonl: column 'response_post' is missing; there are seeker_post"


@pytest.mark.parametrize(
    ("lines", "last", "why"),
    [
        ((b'"oops,b', *[b"good,row"] * 1000), 1003, "unexpected end of data"),
        ((b'"oops,b', b"good,row", b'"quoted","row"'), 5, "',' expected after '\"'"),
    ],
)
def test_the_lines_that_an_open_quote_takes_are_named_and_counted(
    tmp_path: Path, lines: tuple[bytes, ...], last: int, why: str
) -> None:
    table = PairTable(csv_of(tmp_path / "in.csv", b"one,hug", *lines, header=b"seeker_post,response_post"), COLUMNS)
    good, bad = table.rows()
    assert good == Input(1, "one", "hug", ())
    assert bad == Bad(2, "", f"lines 3 to {last}: not a valid CSV row: {why}; find the quote that is not closed or not doubled")
    assert table.swallowed == last - 3


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path: Path) -> None:
    good = b'{"seeker_post": "one", "response_post": "hug"}\n'
    (tmp_path / "in.jsonl").write_bytes(good + b'{"seeker_post": "' + b"x" * (2 * LONGEST) + b'"}\n' + good)
    found = rows(tmp_path / "in.jsonl")
    assert found[1] == Bad(2, "", f"a line of {LONGEST:,} bytes or more found, expected one row per line")
    assert isinstance(found[2], Input)


NO_RESPONSE = (
    "in.csv: column 'response_post' is missing; there are seeker_post, 1 of other names; name yours with --response-column"
)
NO_SEEKER = "in.jsonl: column 'seeker_post' is missing; there are 1 of other names; name yours with --seeker-column"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("in.csv", b"", "in.csv: empty, expected a header with the columns seeker_post, response_post"),
        (
            "in.csv",
            "seeker_post,response_post\n".encode("utf-16"),
            "in.csv: UTF-16 found, expected UTF-8; save it again as UTF-8",
        ),
        ("in.csv", b"seeker_post,answer\n", NO_RESPONSE),
        (
            "in.csv",
            b"seeker_post;response_post\na;b\n",
            "in.csv: the columns are separated by semicolons, expected commas; save it as CSV with commas",
        ),
        ("in.jsonl", b'{"a": 1}\n', NO_SEEKER),
        ("in.parquet", b"PAR1 not really", "in.parquet: not a readable Parquet file (ArrowInvalid)"),
        ("in.xlsx", b"", "{path}: a .xlsx file, expected .csv, .jsonl, .parquet"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(KitError) as error:
        rows(path)
    assert str(error.value) == reason.format(path=path)


def test_a_file_that_is_missing_or_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.jsonl")
    unread = "cannot be read: not a regular file"
    for name, reason in (
        ("none.csv", "no such file"),
        ("folder.csv", "cannot be read: Is a directory"),
        ("endless.csv", unread),
        ("pipe.jsonl", unread),
    ):
        with pytest.raises(KitError) as error:
            rows(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: {reason}"


def test_columns_are_found_by_the_names_that_are_asked_for(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "in.csv", b"sad,hug,7", header=b"\xef\xbb\xbfQuestion,ANSWER,note")
    assert rows(path, Columns("question", "answer", keep_all=True)) == [Input(1, "sad", "hug", ("7",))]
    assert rows(path, Columns(None, "answer", keep_all=True)) == [Input(1, "", "hug", ("sad", "7"))]  # not read, so kept
    named = Columns("question", "answer", keep=("Answer",), keep_all=True)
    assert rows(path, named) == [Input(1, "sad", "hug", ("hug", "7"))]  # read, and asked for
    assert rows(path, Columns("question", "answer", keep=("NOTE", "ans-wer"))) == [Input(1, "sad", "hug", ("7", "hug"))]
    with pytest.raises(KitError) as error:
        rows(path, Columns("question", "answer", keep=("note", "Note")))
    assert str(error.value) == "column 'note' is given twice with --keep; give it once"
    with pytest.raises(KitError) as error:
        rows(path, Columns("question", "answer", keep=("notes",)))
    assert str(error.value) == "in.csv: column 'notes' is missing; there are question, answer, 1 of other names"
    with pytest.raises(KitError) as error:
        rows(path, Columns("Answer", "answer"))
    assert str(error.value) == (
        "column 'answer' is named for both posts; give --seeker-column and --response-column two different columns"
    )


def test_parquet_is_read_a_batch_at_a_time_and_unread_columns_may_hold_anything(tmp_path: Path) -> None:
    table = pa.table(
        {
            "response_post": ["hug"] * 3000,
            "seeker_post": ["sad"] * 3000,
            "odd": pa.array([None] * 3000, type=pa.large_binary()),
            "at": pa.array(range(3000), type=pa.timestamp("us")),
        }
    )
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    source = PairTable(tmp_path / "in.parquet", Columns("seeker_post", "response_post", keep=("at",)))
    found = list(source.rows())
    assert (len(found), found[-1].number, source.types["at"]) == (3000, 3000, pa.timestamp("us"))


def test_standard_input_is_json_lines_and_is_read_as_it_comes() -> None:
    line = b'{"seeker_post": "sad", "response_post": "hug"}\n'
    stream = io.BufferedReader(io.BytesIO(line * 3))  # type: ignore[arg-type]
    table = PairTable(None, COLUMNS, stream)
    assert list(islice(table.rows(), 2)) == [Input(1, "sad", "hug", ()), Input(2, "sad", "hug", ())]
    with pytest.raises(KitError) as error:
        list(PairTable(None, COLUMNS, io.BufferedReader(io.BytesIO(b"{}\n"))).rows())  # type: ignore[arg-type]
    assert str(error.value) == "standard input: column 'seeker_post' is missing; there are none"


def test_a_parquet_table_that_is_one_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    posts = pa.array([f"{row:01000}" for row in range(12_000)])
    written = pa.table({"seeker_post": posts, "response_post": posts})
    pa.parquet.write_table(written, path, row_group_size=len(posts), use_dictionary=False, compression="none")
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()  # pyarrow reads a file of Python's as Python's bytes
    try:
        assert sum(1 for _ in PairTable(path, COLUMNS).rows()) == len(posts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
