"""Kept cells are copied as they are, into whatever format."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from job_tables import COLUMNS, ROWS, read, work, write

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
