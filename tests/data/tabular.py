"""Tables as bytes, for the tests of their readers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from empathy_kit.data.pairs import Corpus
from empathy_kit.data.schema import EPITOME, Schema
from empathy_kit.data.tables import load_table
from empathy_kit.errors import KitError

NAMES = ["pair_id", "seeker_id", "seeker_post", "response_post", "ER", "EX", "IP", "ER_spans", "EX_spans", "IP_spans"]
ROWS: list[list[Any]] = [
    [1, "s1", "No calls, \"not one\"\nsince May.", "So sorry. What happened? 🤗", 2, 2, 0, ["So sorry."], ["What happened?"], []],
    [2, "s1", "I &lt;3 nights, hate days", "You sound worn out &amp; alone", 0, 0, 1, [], [], ["worn out &amp; alone"]],
    [3, "s2", "сегодня плохо", "Hugs. Truly, hugs.", 1, 0, 0, ["Hugs.", "hugs"], [], []],
]  # fmt: skip
HEADER = "seeker_post,response_post,ER,EX,IP\n"


def csv_bytes(names: list[str], rows: list[list[Any]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([names, *(["|".join(cell) if isinstance(cell, list) else cell for cell in row] for row in rows)])
    return out.getvalue().encode("utf-8", "surrogatepass")


def jsonl_bytes(names: list[str], rows: list[list[Any]]) -> bytes:
    return "".join(json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows).encode()


def parquet_bytes(names: list[str], rows: list[list[Any]]) -> bytes:
    columns = (
        [pyarrow.array(column) for column in zip(*rows, strict=True)] if rows else [pyarrow.array([], "string")] * len(names)
    )
    return arrow_bytes(dict(zip(names, columns, strict=True)))


def arrow_bytes(columns: dict[str, pyarrow.Array]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(list(columns.values()), list(columns)), out)
    return out.getvalue()


WRITERS: dict[str, Callable[[list[str], list[list[Any]]], bytes]] = {
    "csv": csv_bytes,
    "jsonl": jsonl_bytes,
    "parquet": parquet_bytes,
}


def one_row(**cells: object) -> dict[str, object]:
    """A row of EPITOME's columns, with some cells changed or added."""
    return {"seeker_post": "a", "response_post": "b", "ER": 0, "EX": 0, "IP": 0} | cells


def read(folder: Path, kind: str, data: bytes, schema: Schema = EPITOME) -> Corpus:
    path = folder / f"posts.{kind}"
    path.write_bytes(data)
    return load_table(path, schema)


def fault(folder: Path, kind: str, data: bytes, schema: Schema = EPITOME) -> str:
    with pytest.raises(KitError) as error:
        read(folder, kind, data, schema)
    return str(error.value)
