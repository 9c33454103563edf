"""Tables to predict, in every format, and a job that predicts one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from pretend import pretend_model

from empathy_kit.inference import scoring
from empathy_kit.inference.scoring import Job, predict_table
from empathy_kit.inference.tables import Columns

COLUMNS = Columns("seeker_post", "response_post", keep_all=True)
ROWS = [{"n": n, "seeker_post": f"I am {n} sad & tired", "response_post": f"so sorry, {n} hugs"} for n in range(1, 54)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: list[dict[str, Any]] = pa.parquet.read_table(path).to_pylist()
    return found


def work(job: Job, **changes: Any) -> scoring.Progress:
    return list(predict_table(job, pretend_model(**changes)))[-1]
