"""Files are decoded, and their rows and columns told apart, with one line for whatever is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from tabular import HEADER, NAMES, ROWS, WRITERS, arrow_bytes, fault, jsonl_bytes, one_row, parquet_bytes, read

from empathy_kit.data import readers
from empathy_kit.data.schema import EPITOME


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_bom_and_windows_line_ends_change_nothing(tmp_path: Path, kind: str) -> None:
    data = WRITERS[kind](NAMES, ROWS[1:])  # without the row that has a line end inside a cell
    plain = read(tmp_path, kind, data.replace(b"\r\n", b"\n"))
    assert read(tmp_path, kind, b"\xef\xbb\xbf" + data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")).pairs == plain.pairs


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert len(read(tmp_path, "csv", (HEADER + "\na,b,0,0,0\n\n\nc,d,0,0,0\n\n").encode())) == 2
    assert len(read(tmp_path, "jsonl", jsonl_bytes(NAMES, ROWS).replace(b"\n", b"\n\r\n \n"))) == 3


def test_a_line_separator_inside_a_json_post_ends_no_line(tmp_path: Path) -> None:
    row = {"seeker_post": "one\u2028two\x85three", "response_post": "x", "ER": 0, "EX": 0, "IP": 0}
    (pair,) = read(tmp_path, "jsonl", json.dumps(row, ensure_ascii=False).encode()).pairs
    assert pair.seeker == "one\u2028two\x85three"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_10_mb_cell_that_nobody_asked_for_is_no_fault(tmp_path: Path, kind: str) -> None:
    row = one_row(notes="x" * 10_000_000)
    assert len(read(tmp_path, kind, WRITERS[kind](list(row), [list(row.values())]))) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_utf_16_is_named(tmp_path: Path, kind: str, encoding: str) -> None:
    data = WRITERS[kind](NAMES, ROWS).decode().encode(encoding)
    assert fault(tmp_path, kind, data) == f"posts.{kind}: UTF-16 found, expected UTF-8; save it again as UTF-8"


def test_a_byte_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    message = "posts.csv, line 3: byte 0xe9 is not UTF-8; save it again as UTF-8"
    assert fault(tmp_path, "csv", HEADER.encode() + b"a,b,0,0,0\ncaf\xe9,b,0,0,0\n") == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "posts.csv: empty, expected a header with the columns seeker_post, response_post, ER, EX, IP"),
        (HEADER, "posts.csv: no rows, expected at least one pair"),
        ("\ufeff\n" + HEADER, "posts.csv: column 'seeker_post' is missing; there are none"),
        ("seeker_post;response_post;ER;EX;IP\na;b;0;0;0\n",
         "posts.csv: the columns are separated by semicolons, expected commas; save it as CSV with commas"),
        ('"seeker_post"\t"response_post"\tER\tEX\tIP\n',
         "posts.csv: the columns are separated by tabs, expected commas; save it as CSV with commas"),
        ("sep=,\n" + HEADER,
         "posts.csv: a line 'sep=' stands before the header, expected the header in the first line; delete that line"),
        ("seeker_post,response_post,warm\na,b,0\n",
         "posts.csv: column 'ER' is missing; there are seeker_post, response_post, 1 of other names; "
         "a table with tasks of its own needs --schema FILE.toml"),
        ("er," + HEADER, "posts.csv: columns 'er' and 'ER' are both 'ER', expected one of them"),
        ("seeker_post,response_post,ER,EX\na,b,0,0\n",
         "posts.csv: column 'IP' is missing; there are seeker_post, response_post, ER, EX"),
        ("I am lost,,ER,EX,IP\n", "posts.csv: column 'seeker_post' is missing; there are ER, EX, IP, 2 of other names"),
        ("lost,found,1,0,2\n",
         "posts.csv: column 'seeker_post' is missing; there are 5 of other names"),
        ("ER," + HEADER, "posts.csv: column 'ER' stands twice in the header"),
        ("ER_spans,ER_spans," + HEADER, "posts.csv: column 'ER_spans' stands twice in the header"),
        (HEADER + "a,b,0,0,0\na,b,0,0\n", "posts.csv, row 2: 4 cells found, expected 5"),
        (HEADER + 'a,"b" c,0,0,0\n', "posts.csv, row 1 (line 2): not a valid CSV row: ',' expected after '\"'"),
        (HEADER + 'a,b,0,0,0\na,"b,0,0,0\nc,d,0,0,0\n',
         "posts.csv, row 2 (line 4): not a valid CSV row: unexpected end of data"),
    ],
)  # fmt: skip
def test_a_malformed_csv_is_one_line(tmp_path: Path, data: str, message: str) -> None:
    assert fault(tmp_path, "csv", data.encode()) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "posts.jsonl: no rows, expected at least one pair"),
        ("\n{\n", "posts.jsonl, row 1: not valid JSON: Expecting property name enclosed in double quotes; "
         "expected one object per line (JSON Lines)"),
        ("[1]", "posts.jsonl, row 1: a list found, expected one object per line (JSON Lines)"),
        ("{}", "posts.jsonl, row 1: column 'seeker_post' is missing"),
        ("[" * 200_000, "posts.jsonl, row 1: not valid JSON: RecursionError; expected one object per line (JSON Lines)"),
        ('{"ER": ' + "1" * 5000 + "}",
         "posts.jsonl, row 1: not valid JSON: ValueError; expected one object per line (JSON Lines)"),
    ],
)  # fmt: skip
def test_a_malformed_json_line_is_one_line(tmp_path: Path, data: str, message: str) -> None:
    assert fault(tmp_path, "jsonl", data.encode()) == message


def test_a_key_that_stands_twice_in_a_json_line_is_refused(tmp_path: Path) -> None:
    line = json.dumps(one_row(notes={"a": 1}))
    data = f'{line}\n{line[:-1]}, "ER": 2}}\n'.encode()
    assert fault(tmp_path, "jsonl", data) == "posts.jsonl, row 2: column 'ER' stands twice"
    both = f'{line[:-1]}, "er": 2}}\n'.encode()
    assert fault(tmp_path, "jsonl", both) == "posts.jsonl: columns 'ER' and 'er' are both 'ER', expected one of them"
    other = f'{line[:-1]}, "notes": [{{"ER": 1, "ER": 2}}]}}\n'.encode()  # nobody asked for it
    assert len(read(tmp_path, "jsonl", other)) == 1


def test_a_column_that_one_json_line_lacks_is_named_with_the_row(tmp_path: Path) -> None:
    data = jsonl_bytes(NAMES, ROWS) + b'{"seeker_post": "a", "response_post": "b", "ER": 0, "EX": 0}\n'
    assert fault(tmp_path, "jsonl", data) == "posts.jsonl, row 4: column 'IP' is missing"


def test_a_broken_parquet_file_is_one_line(tmp_path: Path) -> None:
    data = parquet_bytes(NAMES, ROWS)
    message = "posts.parquet: not a readable Parquet file (ArrowInvalid)"
    assert [fault(tmp_path, "parquet", bad) for bad in (b"", b"PAR1", data[: len(data) // 2])] == [message] * 3
    assert fault(tmp_path, "parquet", parquet_bytes(NAMES[2:6], [["a", "b", 0, 0]])) == (
        "posts.parquet: column 'IP' is missing; there are seeker_post, response_post, ER, EX"
    )
    assert fault(tmp_path, "parquet", parquet_bytes(NAMES, [])) == "posts.parquet: no rows, expected at least one pair"


@pytest.mark.parametrize("kind", WRITERS)
def test_a_column_is_the_kits_up_to_case_spaces_hyphens_and_invisible_characters(tmp_path: Path, kind: str) -> None:
    names = [
        "Pair ID",
        "\ufeffSeeker-Id",
        "Seeker Post",
        "response_post\u200b",
        "er",
        "EX",
        "IP",
        "Er Spans",
        "EXspans",
        "IP_spans",
    ]
    corpus = read(tmp_path, kind, WRITERS[kind](names, ROWS))
    assert corpus.pairs == read(tmp_path, kind, WRITERS[kind](NAMES, ROWS)).pairs
    assert corpus.columns_read == ("pair_id", "seeker_id", "ER_spans", "EX_spans", "IP_spans")
    assert corpus.columns_ignored == 0


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("seeker_ids", "seeker_id"),
        ("seekr_id", "seeker_id"),
        ("seeker_ld", "seeker_id"),
        ("SeekerDi", "seeker_id"),
        ("sekeer_id", "seeker_id"),
        ("pairs_id", "pair_id"),
        ("pari_id", "pair_id"),
        ("ER_span", "ER_spans"),
        ("ER_spanz", "ER_spans"),
        ("ER_sapns", "ER_spans"),
    ],
)
def test_an_optional_column_that_is_off_by_a_letter_is_refused(tmp_path: Path, kind: str, column: str, meant: str) -> None:
    row = one_row(**{column: "b"})
    assert fault(tmp_path, kind, WRITERS[kind](list(row), [list(row.values())])) == (
        f"posts.{kind}: column {column!r} is almost {meant!r}, which would be read; rename it so, or to something else"
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_other_columns_are_counted_and_ignored(tmp_path: Path, kind: str) -> None:
    row = one_row(seeker_ids="x", seeker_id="s", user="u", notes="n", paired="yes")
    corpus = read(tmp_path, kind, WRITERS[kind](list(row), [list(row.values())]))
    assert (corpus.columns_read, corpus.columns_ignored) == (("seeker_id",), 4)


def test_the_spans_of_a_task_that_the_schema_leaves_out_are_just_another_column(tmp_path: Path) -> None:
    row = one_row(ER_spans="b", EX=1)
    corpus = read(tmp_path, "csv", WRITERS["csv"](list(row), [list(row.values())]), EPITOME.select(["EX", "IP"]))
    assert (corpus.columns_read, corpus.columns_ignored) == ((), 2)


def test_a_few_bytes_of_parquet_do_not_unpack_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_UNPACKED", 1_000_000)
    row = one_row(seeker_post="so tired " * 100, response_post="so sorry " * 100)
    data = parquet_bytes(list(row), [list(row.values())] * 5_000)
    assert len(data) < 10_000
    assert fault(tmp_path, "parquet", data) == (
        f"posts.parquet: {len(data):,} bytes that unpack to more than {max(1_000_000, 200 * len(data)):,}, expected at most 200 "
        "times as many; save it as CSV or JSON Lines"
    )


def test_a_few_bytes_of_parquet_are_not_a_million_rows(tmp_path: Path) -> None:
    data = arrow_bytes({name: pyarrow.repeat(cell, 1_000_000) for name, cell in one_row().items()})
    assert fault(tmp_path, "parquet", data) == (
        f"posts.parquet: 1,000,000 rows in {len(data):,} bytes found, expected at most one per byte; save it as CSV or JSON Lines"
    )
