"""Kept cells are copied as they are, into whatever format."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from job_tables import COLUMNS, ROWS, read, work, write

from empathy_kit import KitError
from empathy_kit.inference.scoring import Job


@pytest.mark.parametrize("source", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("out", [".csv", ".jsonl", ".parquet"])
def test_kept_numbers_are_copied_as_they_are(tmp_path: Path, source: str, out: str) -> None:
    places = (1.2e-7, 52.520006599, -0.1234567890123)
    job = Job(write(tmp_path / f"in{source}", [{**ROWS[0], "n": n} for n in places]), tmp_path / f"out{out}", COLUMNS)
    work(job)
    assert [float(row["n"]) for row in read(job.out)] == list(places)


@pytest.mark.parametrize("source", [".jsonl", ".parquet"])
def test_kept_numbers_that_json_does_not_have_are_null_there(tmp_path: Path, source: str) -> None:
    rows = [{**ROWS[0], "n": n, "all": [n, 0.5], "of": {"n": n}} for n in (math.nan, math.inf, -math.inf)]
    job = Job(write(tmp_path / f"in{source}", rows), tmp_path / "out.jsonl", COLUMNS)
    work(job)
    for line in job.out.read_text().splitlines():
        row = json.loads(line, parse_constant=pytest.fail)
        assert (row["n"], row["all"], row["of"]) == (None, [None, 0.5], {"n": None})
    work(replace(job, out=tmp_path / "out.csv"))
    assert [(row["n"], row["all"]) for row in read(tmp_path / "out.csv")] == [(n, "[null, 0.5]") for n in ("nan", "inf", "-inf")]


@pytest.mark.parametrize("source", [".csv", ".jsonl", ".parquet"])
def test_line_ends_within_a_kept_cell_do_not_end_its_row(tmp_path: Path, source: str) -> None:
    ends = ["one\rtwo", "one\ntwo", "one\r\ntwo", "\r", 'a "quoted" word', ""]
    rows = [{**row, "note": note} for row, note in zip(ROWS, ends, strict=False)]
    job = Job(write(tmp_path / f"in{source}", rows), tmp_path / "out.csv", COLUMNS)
    work(job)
    assert [row["note"] for row in read(job.out)] == ends
    assert job.out.read_bytes().endswith(b"\n")
    assert job.out.read_bytes().count(b"\r") == 3  # those of the cells alone


@pytest.mark.parametrize(("out", "empty"), [(".csv", ""), (".jsonl", None)])
def test_kept_dates_numbers_and_bytes_are_text_without_quotation_marks_of_their_own(
    tmp_path: Path, out: str, empty: str | None
) -> None:
    kept = {
        "day": (date(2024, 1, 2), "2024-01-02"),
        "moment": (datetime(2024, 1, 2, 3, 4, 5), "2024-01-02 03:04:05"),
        "price": (Decimal("1.50"), "1.50"),
        "key": (b"ab\xff", "YWL/"),
    }
    rows = [{**ROWS[0], **{name: given for name, (given, _) in kept.items()}}, {**ROWS[1], **dict.fromkeys(kept)}]
    job = Job(write(tmp_path / "in.parquet", rows), tmp_path / f"out{out}", COLUMNS)
    work(job)
    first, second = read(job.out)
    assert {name: first[name] for name in kept} == {name: text for name, (_, text) in kept.items()}
    assert {second[name] for name in kept} == {empty}


def test_kept_nanoseconds_are_those_of_the_input_whether_pandas_is_installed_or_not(tmp_path: Path) -> None:
    at = 1_704_164_645_000_000_000  # 2024-01-02 03:04:05
    moments = pa.list_(pa.struct([("at", pa.timestamp("ns"))]))
    kept = {
        "moment": ([at, at + 1_000, at + 1], pa.timestamp("ns")),
        "there": ([None, at, at + 999_999_999], pa.timestamp("ns", "+01:00")),
        "took": ([90_000_000_000, 86_400_000_001_000, -1], pa.duration("ns")),
        "time": ([3_600_000_000_000, None, 1], pa.time64("ns")),
        "moments": ([None, [], [{"at": at}, None, {"at": at + 1}]], moments),
        "by": ([None, [("a", at)], [("b", at + 1)]], pa.map_(pa.string(), pa.timestamp("ns"))),
    }
    posts = {name: ["sad", "mad", "glad"] for name in ("seeker_post", "response_post")}
    given = pa.table({**posts, **{name: pa.array(values, kind) for name, (values, kind) in kept.items()}})
    pa.parquet.write_table(given, tmp_path / "in.parquet")
    job = Job(tmp_path / "in.parquet", tmp_path / "out.jsonl", COLUMNS)
    work(job)
    assert [[row[name] for row in read(job.out)] for name in kept] == [
        ["2024-01-02 03:04:05", "2024-01-02 03:04:05.000001", "2024-01-02 03:04:05.000000001"],
        [None, "2024-01-02 04:04:05+01:00", "2024-01-02 04:04:05.999999999+01:00"],
        ["0:01:30", "1 day, 0:00:00.000001", "-1 day, 23:59:59.999999999"],
        ["01:00:00", None, "00:00:00.000000001"],
        [None, [], [{"at": "2024-01-02 03:04:05"}, None, {"at": "2024-01-02 03:04:05.000000001"}]],
        [None, [["a", "2024-01-02 03:04:05"]], [["b", "2024-01-02 03:04:05.000000001"]]],
    ]
    work(replace(job, out=tmp_path / "out.csv"))
    assert [row["time"] for row in read(tmp_path / "out.csv")] == ["01:00:00", "", "00:00:00.000000001"]
    work(replace(job, out=tmp_path / "out.parquet"))
    before, after = (pa.parquet.read_table(path).select(list(kept)) for path in (job.source, tmp_path / "out.parquet"))
    assert after.equals(before)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 2**60, 1], pa.timestamp("us")),
        ([0, 10**7, 1], pa.date32()),
        ([0, 253_402_300_799_000, 1], pa.timestamp("ms", "+09:00")),  # the last second of the year 9999 is in the next one there
    ],
)
def test_a_kept_time_that_python_cannot_hold_is_a_bad_row(tmp_path: Path, values: list[int], kind: pa.DataType) -> None:
    times = pa.array(values, pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
    posts = {name: ["sad", "mad", "glad"] for name in ("seeker_post", "response_post")}
    pa.parquet.write_table(pa.table({**posts, "at": times}), tmp_path / "in.parquet")
    job = Job(tmp_path / "in.parquet", tmp_path / "out.parquet", COLUMNS)
    with pytest.raises(KitError) as error:
        work(job)
    reason = "a value that Python cannot hold found (OverflowError); leave this column out of --keep"
    assert str(error.value) == (
        f"in.parquet, row 2, column 'at': {reason}; use --errors skip to predict the other rows and list the bad ones"
    )
    assert work(replace(job, skip_errors=True)).bad == 1
    kept = pa.parquet.read_table(job.out)
    assert (kept["row"].to_pylist(), kept["at"].combine_chunks()) == ([1, 3], times.take([0, 2]))


def test_a_parquet_cell_that_is_not_utf_8_costs_its_row_alone(tmp_path: Path) -> None:
    broken = pa.array([b"sad", b"caf\xe9", b"glad"]).view(pa.string())
    table = pa.table({"seeker_post": broken, "response_post": ["hug"] * 3})
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    job = Job(tmp_path / "in.parquet", tmp_path / "out.csv", COLUMNS, skip_errors=True)
    assert work(job).bad == 1
    assert job.skipped.read_text().splitlines()[1:] == [
        '2,seeker_post,"not UTF-8, or half a surrogate pair, found; save it again as UTF-8"'
    ]


def test_a_kept_column_of_a_type_that_parquet_does_not_take_back_is_named(tmp_path: Path) -> None:
    flags = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8()))
    pa.parquet.write_table(
        pa.table({"seeker_post": ["a", "b"], "response_post": ["c", "d"], "ok": flags}), tmp_path / "in.parquet"
    )
    job = Job(tmp_path / "in.parquet", tmp_path / "out.parquet", COLUMNS)
    with pytest.raises(KitError) as error:
        work(job)
    assert str(error.value) == (
        "column 'ok': its type, extension<arrow.bool8>, cannot be kept in a Parquet output; "
        "leave it out of --keep, or use a .csv or .jsonl output"
    )
    work(replace(job, out=tmp_path / "out.jsonl"))
    assert [row["ok"] for row in read(tmp_path / "out.jsonl")] == [True, None]
