"""Rows of a table file - CSV, JSON Lines or Parquet - read whole, checked, and blamed by file, row and column."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empathy_kit.data.pairs import LEVELS, MECHANISMS, Corpus, Pair, unescape
from empathy_kit.data.spans import Placer
from empathy_kit.errors import KitError

MAX_CELL = 100_000
"""The most characters a cell may hold. The longest real reply is a tenth of it; a longer cell is a broken quote."""

MAX_SPANS = 100
"""The most spans a cell may hold. The real data's fullest has six."""

REQUIRED = ("seeker_post", "response_post", *MECHANISMS)
OPTIONAL = ("pair_id", "seeker_id", *(f"{name}_spans" for name in MECHANISMS))

# What a message may show of a cell that is no level: a short number is nobody's post.
_NUMBER = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{1,3})?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Row:
    """One row of a table; raises with file, row and column where a cell is not what it should be."""

    file: str
    number: int  # from 1; the header is not counted
    cells: dict[str, Any] = field(repr=False)

    def error(self, column: str, problem: str) -> KitError:
        """A fault of one cell, in one line."""
        return KitError(f"{self.file}, row {self.number}, column {column!r}: {problem}")

    def text(self, column: str) -> str:
        """A cell's text, as it stands; empty where there is none."""
        value = self.cells.get(column)
        return "" if value is None else self._checked(column, value)

    def _checked(self, column: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(column, f"{type(value).__name__} found, expected text")
        if len(value) > MAX_CELL:
            raise self.error(column, f"{len(value):,} characters found, expected at most {MAX_CELL:,}")
        if "\0" in value:
            raise self.error(column, "a NUL byte found, expected text")
        if _SURROGATE.search(value):  # JSON can spell one, and no tokenizer takes it
            raise self.error(column, "half a surrogate pair found, expected text")
        return value

    def post(self, column: str) -> str:
        """A post: text that is not empty, entities resolved."""
        value = unescape(self.text(column))
        if not value.strip():
            raise self.error(column, "empty, expected a post")
        return value

    def level(self, column: str) -> int:
        """A level."""
        value = self.cells.get(column)
        shown = value.strip() if isinstance(value, str) else value
        for level, name in enumerate(LEVELS):
            # "1.0" too: pandas writes it so where a column has gaps.
            if shown in (name, f"{name}.0") or (shown == level and not isinstance(shown, bool)):
                return level
        # Never the cell itself: in a table whose columns are shifted it is somebody's post.
        if shown in (None, ""):
            found = "nothing"
        else:
            found = str(shown) if _NUMBER.fullmatch(str(shown)) else f"{type(value).__name__} of another value"
        raise self.error(column, f"{found} found, expected 0, 1 or 2")

    def identifier(self, column: str) -> str:
        """An identifier: text, or a whole number."""
        value = self.cells.get(column)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text(column).strip()

    def quotes(self, column: str) -> list[str]:
        """Annotated spans: a list of text, or text with ``|`` between the spans."""
        value = self.cells.get(column)
        if isinstance(value, list | tuple):
            if len(value) > MAX_SPANS:
                raise self.error(column, f"{len(value)} spans found, expected at most {MAX_SPANS}")
            if not all(isinstance(part, str) for part in value):
                raise self.error(column, "a list of other things found, expected a list of text")
            return [self._checked(column, part) for part in value]
        quotes = self.text(column).split("|")
        if len(quotes) > MAX_SPANS:
            raise self.error(column, f"{len(quotes)} spans found, expected at most {MAX_SPANS}")
        return quotes


def read_bytes(path: Path) -> bytes:
    """A file's bytes, or the reason why not in one line."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise KitError(f"{path}: no such file") from None
    except OSError as error:
        raise KitError(f"{path}: cannot be read: {error.strerror}") from None


def _decode(name: str, data: bytes) -> str:
    # Without a byte order mark UTF-16 shows by the NUL in its first or second byte: a header starts with a Latin letter.
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[:2].count(0) == 1:
        raise KitError(f"{name}: UTF-16 found, expected UTF-8; save it again as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise KitError(f"{name}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save it again as UTF-8") from None


def read_csv(name: str, data: bytes, columns: Sequence[str]) -> list[Row]:
    """The rows of a comma-separated table (RFC 4180) that must have the given columns."""
    text = _decode(name, data)
    # The module's limit is one for the whole process and raises without naming the column: Row.text checks instead.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None:
                header = [column.strip() for column in cells]
                _check_header(name, header, columns)
            elif cells:  # a blank line is no row
                if len(cells) != len(header):
                    raise KitError(f"{name}, row {len(rows) + 1}: {len(cells)} cells found, expected {len(header)}")
                rows.append(Row(name, len(rows) + 1, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise KitError(f"{name}, row {len(rows) + 1} (line {reader.line_num}): not a valid CSV row: {error}") from None
    if header is None:
        raise KitError(f"{name}: empty, expected a header with the columns {', '.join(columns)}")
    return rows


def _check_header(name: str, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        # Only names that the kit knows are shown: in a file with no header the cells are ids and posts.
        known = [cell for cell in header if cell in (*REQUIRED, *OPTIONAL, *columns)]
        others = len(header) - len(known)
        there_are = ", ".join([*known, *([f"{others} of other names"] if others else [])])
        raise KitError(f"{name}: column {missing[0]!r} is missing; there are {there_are or 'none'}")
    for column in header:
        if header.count(column) > 1 and (column in columns or column in OPTIONAL):
            raise KitError(f"{name}: column {column!r} stands twice in the header")


def read_jsonl(name: str, data: bytes, columns: Sequence[str]) -> list[Row]:
    """The rows of a JSON Lines table: one object a line."""
    rows: list[Row] = []
    for line in _decode(name, data).split("\n"):  # not splitlines(): a post may hold U+2028
        if not line.strip():
            continue
        number = len(rows) + 1
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise KitError(f"{name}, row {number}: not valid JSON: {reason}") from None
        if not isinstance(cells, dict):
            raise KitError(f"{name}, row {number}: a {type(cells).__name__} found, expected an object")
        for column in columns:
            if column not in cells:
                raise KitError(f"{name}, row {number}: column {column!r} is missing")
        rows.append(Row(name, number, cells))
    return rows


def read_parquet(name: str, data: bytes, columns: Sequence[str]) -> list[Row]:
    """The rows of a Parquet table."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        _check_header(name, table.column_names, columns)
        # The columns that nobody asked for stay unread: their types need not have a Python value.
        cells = table.select([column for column in table.column_names if column in (*columns, *OPTIONAL)]).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise KitError(f"{name}: not a readable Parquet file ({type(error).__name__})") from None
    return [Row(name, number, row) for number, row in enumerate(cells, start=1)]


READERS = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}


def load_table(path: Path, name: str | None = None) -> Corpus:
    """One table with the columns of `REQUIRED`, and any of `OPTIONAL`.

    Raises:
        KitError: the file, or the first cell of it that is not as documented.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise KitError(f"{path}: a {path.suffix or 'nameless'} file, expected {', '.join(READERS)} or a folder")
    data = read_bytes(path)
    rows = read(path.name, data, REQUIRED)
    if not rows:
        raise KitError(f"{path.name}: no rows, expected at least one pair")
    placer = Placer()
    pairs = tuple(_pair(row, placer) for row in rows)
    columns = {mechanism: (path.name, f"{mechanism}_spans") for mechanism in MECHANISMS}
    return Corpus(name or path.stem, pairs, {path.name: hashlib.sha256(data).hexdigest()}, columns, placer.result())


def _pair(row: Row, placer: Placer) -> Pair:
    response = row.post("response_post")
    levels = tuple(row.level(name) for name in MECHANISMS)
    quotes = [row.quotes(f"{name}_spans") for name in MECHANISMS]
    for name, level, texts in zip(MECHANISMS, levels, quotes, strict=True):
        if level == 0 and any(text.strip() for text in texts):
            raise row.error(f"{name}_spans", "a span found, expected none at level 0")
    spans, unplaced = placer.place_all(row.number, response, levels, quotes)
    return Pair(
        row=row.number,
        pair_id=row.identifier("pair_id") or str(row.number),
        seeker_id=row.identifier("seeker_id"),
        seeker=row.post("seeker_post"),
        response=response,
        levels=levels,
        spans=spans,
        unplaced=unplaced,
    )
