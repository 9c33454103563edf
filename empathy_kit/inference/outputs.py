"""Predictions as CSV, JSON Lines or Parquet: written in parts, which are then joined to one file."""

from __future__ import annotations

import base64
import csv
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from empathy_kit.data.schema import Schema
from empathy_kit.errors import KitError, shown
from empathy_kit.files import sha256
from empathy_kit.inference.prediction import arrow_type, columns

CRLF = "\r\n"
ROW = "row"  # the first column: the row number of the input, from 1
GROUP = 2**26  # bytes of parts that become one row group of Parquet: a file's writer and its readers hold an entry for each group


class Output:
    """The columns of a file of predictions, and how it is written.

    A kept column of a Parquet input keeps its type. From a CSV it is text, and from JSON Lines it has its JSON type,
    which is written to Parquet as JSON text. Kept values are copied as they are; only JSON, which has no NaN and no
    infinity, gets null for them.
    """

    def __init__(self, suffix: str, schema: Schema, kept: Sequence[str], types: dict[str, Any], *, evidence: bool) -> None:
        self.suffix = suffix
        self.names = [ROW, *kept, *columns(schema, evidence=evidence)]
        self._kept = len(kept)
        self._types = types

    def write_part(self, path: Path, rows: Sequence[Sequence[Any]]) -> None:
        """Write some rows; the header of a CSV comes with the joined file."""
        if self.suffix == ".parquet":
            import pyarrow.parquet

            pyarrow.parquet.write_table(self._table(rows), path)
        else:
            path.write_text(self.text(rows), encoding="utf-8", newline="")

    def text(self, rows: Sequence[Sequence[Any]]) -> str:
        """The rows as CSV without a header, or as JSON Lines."""
        if self.suffix == ".csv":
            return csv_lines([_cell(value) for value in self._values(row)] for row in rows)
        return "".join(_json(dict(zip(self.names, self._values(row), strict=True))) + "\n" for row in rows)

    def join(self, parts: Sequence[Path], out: Path) -> None:
        """Concatenate parts into one file; no more of them are in memory than become one row group."""
        if self.suffix == ".parquet":
            import pyarrow.parquet

            held: list[Any] = []
            with pyarrow.parquet.ParquetWriter(out, self._arrow()) as writer:
                for number, part in enumerate(parts, start=1):
                    held.append(pyarrow.parquet.read_table(part, schema=self._arrow()))
                    if number == len(parts) or sum(table.nbytes for table in held) >= GROUP:
                        writer.write_table(pyarrow.concat_tables(held))
                        held.clear()
            return
        with out.open("wb") as whole:
            if self.suffix == ".csv":
                whole.write(csv_lines([self.names]).encode())
            for part in parts:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, whole)

    def _arrow(self) -> Any:
        import pyarrow

        kept = [(name, self._types.get(name, pyarrow.string())) for name in self.names[1 : 1 + self._kept]]
        predicted = [(name, arrow_type(name)) for name in self.names[1 + self._kept :]]
        return pyarrow.schema([(ROW, pyarrow.int64()), *kept, *predicted])

    def _table(self, rows: Sequence[Sequence[Any]]) -> Any:
        import pyarrow

        schema = self._arrow()
        values = [self._values(row) for row in rows]
        cells = [[row[at] for row in values] for at in range(len(self.names))]
        for at in range(1, 1 + self._kept):
            if self.names[at] not in self._types:
                cells[at] = [value if value is None else str(_cell(value)) for value in cells[at]]
        arrays = [_array(values, entry) for values, entry in zip(cells, schema, strict=True)]
        return pyarrow.Table.from_arrays(arrays, schema=schema)

    def _values(self, row: Sequence[Any]) -> list[Any]:
        # Six digits are more than a model's accuracy, and stay the same in every call on a machine.
        given, predicted = row[: 1 + self._kept], row[1 + self._kept :]
        return [*given, *(round(value, 6) if type(value) is float else value for value in predicted)]


def _array(values: list[Any], entry: Any) -> Any:
    import pyarrow

    try:
        return pyarrow.array(values, type=entry.type)
    except pyarrow.ArrowException:  # some types give values that they do not take back
        raise KitError(
            f"column {shown(entry.name)}: its type, {entry.type}, cannot be kept in a Parquet output; "
            "leave it out of --keep, or use a .csv or .jsonl output"
        ) from None


def skipped_of(out: Path) -> Path:
    """The file next to an output that lists the rows that could not be predicted."""
    return out.with_name(f"{out.name}.skipped.csv")


def refuse_skipped(out: Path, *, unless_equal: Path | None = None) -> None:
    """Refuse to overwrite a file that has the name of the list of skipped rows.

    Raises:
        KitError: there is one, and it does not have the bytes of ``unless_equal``.
    """
    found = skipped_of(out)
    if not (found.exists() or found.is_symlink()):
        return
    if unless_equal is None or not found.is_file() or sha256(found) != sha256(unless_equal):
        raise KitError(
            f"--out {out}: the skipped rows are listed in {found}, which already exists; move it, or use another --out"
        )


def _cell(value: Any) -> Any:
    """A value as text, for formats that have only text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict | list | tuple):
        return _json(value)
    return value if isinstance(value, str | int) else _text(value)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_text)


def _text(value: Any) -> str:
    """A date, a decimal and whatever else Parquet has, as it is written; bytes in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    """A value without NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV."""
    lines = _Lines()
    # Before Python 3.13 the writer quotes only those line ends that are in its own: a lone carriage return would end the row.
    csv.writer(lines, lineterminator=CRLF).writerows(rows)
    return "".join(lines)


class _Lines(list[str]):
    """What a CSV writer writes, row by row, each with the end of a line."""

    def write(self, row: str) -> None:
        self.append(f"{row.removesuffix(CRLF)}\n")
