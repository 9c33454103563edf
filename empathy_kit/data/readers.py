"""Rows of a table file - CSV, JSON Lines or Parquet - one after the other, their columns under the names that the kit has."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from empathy_kit.data.cells import Row
from empathy_kit.data.schema import IDS, POSTS, Schema, fold
from empathy_kit.errors import KitError, shown
from empathy_kit.reading import read_regular

_UNPACKED, _RATIO = 256_000_000, 200  # bytes, and times a Parquet file's size, that one may unpack to: posts pack to a third
# Rows that any Parquet file may have; a larger one has at most one per byte. Posts take more than that even where each is one of
# ten. Only a few pairs that are repeated thousands of times pack to less, and every row takes 1.4 kB of memory.
_ROWS = 100_000
_WORDS = frozenset({"paired"})  # one letter from pair_id, and a word of its own
ONE_PER_LINE = "one object per line (JSON Lines)"
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class Header:
    """Which columns a table has, which of them the kit reads, and as what.

    A name counts as the kit's where it differs in case, white space, hyphens, underscores or invisible characters only; an
    optional column's name that is off by a letter is refused, because it would be ignored without a word.
    """

    def __init__(
        self, file: str, required: Sequence[str], optional: Sequence[str] = (), *, flags: Mapping[str, str] | None = None
    ) -> None:
        """Expect these columns; ``flags`` are the options that name another in place of a required one."""
        self.file = file
        self._flags = flags or {}
        self.required = tuple(required)
        self.optional = tuple(optional)
        self._known = {fold(name): name for name in (*required, *optional)}
        self._read: dict[str, str] = {}  # a column of the kit to what the table calls it
        self._names: dict[str, str | None] = {}  # what the table calls a column to the kit's name, None where it is ignored

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The optional columns that were found."""
        return tuple(name for name in self.optional if name in self._read)

    @property
    def columns_ignored(self) -> int:
        """How many columns, by name, are not the kit's."""
        return len(self._names) - len(self._read)

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a table whose columns are not those that are required.

        Raises:
            KitError: one is missing, or one of the kit's occurs twice.
        """
        known = {self._known.get(fold(column)) for column in columns}
        missing = next((column for column in self.required if column not in known), None)
        if missing is not None:
            self._raise_missing(columns, missing)
        for column in columns:
            if fold(column) in self._known and columns.count(column) > 1:
                raise KitError(f"{self.file}: column {shown(column)} stands twice in the header")

    def names(self, columns: Sequence[str]) -> list[str | None]:
        """The kit's names of a table's columns, None where it has none.

        Raises:
            KitError: two columns that are one to the kit, or one that is almost an optional column.
        """
        new = dict.fromkeys(column for column in columns if column not in self._names)
        # The kit's own first: next to seeker_id, "seeker_ids" is just another column.
        for column in sorted(new, key=lambda column: fold(column) not in self._known):
            self._names[column] = self._recognise(column)
        return [self._names[column] for column in columns]

    def _recognise(self, column: str) -> str | None:
        known = self._known.get(fold(column))
        if known is None:
            close = next((name for name in self.optional if name not in self._read and _almost(column, name)), None)
            if close is not None:
                raise KitError(
                    f"{self.file}: column {shown(column)} is almost {close!r}, which would be read; "
                    "rename it so, or to something else"
                )
        elif known in self._read:
            raise KitError(
                f"{self.file}: columns {shown(self._read[known])} and {shown(column)} are both {known!r}, expected one of them"
            )
        else:
            self._read[known] = column
        return known

    def refuse_separator(self, header: Sequence[str]) -> None:
        """Refuse a header that holds more of the kit's columns where it is cut at another sign than the comma.

        Raises:
            KitError: it does.
        """
        found = sum(fold(cell) in self._known for cell in header)
        for sign, name in _SEPARATORS.items():
            cells = [cell.strip().strip('"') for cell in ",".join(header).split(sign)]
            if sum(fold(cell) in self._known for cell in cells) > found:
                raise KitError(f"{self.file}: the columns are separated by {name}, expected commas; save it as CSV with commas")

    def _raise_missing(self, header: Sequence[str], missing: str) -> None:
        if header and fold(header[0]).startswith("sep="):
            raise KitError(
                f"{self.file}: a line 'sep=' stands before the header, expected the header in the first line; delete that line"
            )
        self.refuse_separator(header)
        # Only names that the kit knows are shown: in a file with no header the cells are ids and posts.
        known = [self._known[fold(cell)] for cell in header if fold(cell) in self._known]
        others = len(header) - len(known)
        there_are = ", ".join([*known, *([f"{others} of other names"] if others else [])])
        # All labels but none of these: most likely the labels are others.
        foreign = self.optional and missing not in POSTS and others and not set(self.required) - set(POSTS) & set(known)
        advice = "; a table with tasks of its own needs --schema FILE.toml" if foreign else ""
        if missing in self._flags and others:
            advice = f"; name yours with {self._flags[missing]}"
        raise KitError(f"{self.file}: column {missing!r} is missing; there are {there_are or 'none'}{advice}")


def table_header(file: str, schema: Schema, *, partial: bool = False) -> Header:
    """The header of a table with a schema's tasks: both posts and every label are required, ids and spans optional.

    In a ``partial`` table a task's column may be missing, too.
    """
    labels, spans = ([getattr(task, kind) for task in schema.tasks] for kind in ("column", "spans_column"))
    return Header(file, POSTS, (*labels, *IDS, *spans)) if partial else Header(file, (*POSTS, *labels), (*IDS, *spans))


def _almost(column: str, known: str) -> bool:
    """Whether a column's name becomes another by one letter that is added or left out.

    Or, of an id or the word "spans", by one that is exchanged or two neighbours that are swapped; "ER" and "EX" are two labels.
    """
    name, meant = fold(column), fold(known)
    spans = meant.endswith("spans")
    if name in _WORDS or (spans and not name.startswith(meant.removesuffix("spans"))):
        return False  # "X_spans" of a task that the schema leaves out is no slip of a task's "XY_spans"
    short, long = sorted((name, meant), key=len)
    same = next((at for at, (one, other) in enumerate(zip(short, long, strict=False)) if one != other), len(short))
    if len(long) != len(short):
        return short[same:] == long[same + 1 :]
    swapped = name[:same] + name[same : same + 2][::-1] + name[same + 2 :]
    return (spans or known in IDS) and (name[same + 1 :] == meant[same + 1 :] or swapped == meant)


def read_bytes(path: Path) -> bytes:
    """A file's bytes, or the reason why not in one line."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise KitError(f"{path}: no such file") from None
    except OSError as error:
        raise KitError(f"{path}: cannot be read: {error.strerror}") from None


def _opened(name: str, data: bytes, newline: str) -> io.TextIOWrapper:
    """A file's text, decoded piece by piece: all of it at once takes up to four bytes per character."""
    # Without a byte order mark UTF-16 shows by the NUL in its first or second byte: a header starts with a Latin letter.
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[:2].count(0) == 1:
        raise KitError(f"{name}: UTF-16 found, expected UTF-8; save it again as UTF-8")
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=newline)


def _not_utf8(name: str, data: bytes) -> KitError:
    """Where a file that could not be decoded is not UTF-8; a decoder that is given pieces knows the place in its piece alone."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return KitError(f"{name}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save it again as UTF-8")
    raise AssertionError("it can be decoded")


def read_csv(data: bytes, header: Header) -> Iterator[Row]:
    """The rows of a comma-separated table (RFC 4180)."""
    file = header.file
    # The module's limit is one for the whole process and raises without naming the column: Row checks instead.
    csv.field_size_limit(max(csv.field_size_limit(), len(data) + 1))
    reader = csv.reader(_opened(file, data, newline=""), strict=True)
    names: list[str | None] | None = None
    number = 0
    try:
        for cells in reader:
            if names is None:
                columns = [column.strip() for column in cells]
                header.check(columns)
                names = header.names(columns)
            elif cells:  # a blank line is not a row
                number += 1
                if len(cells) != len(names):
                    raise KitError(f"{file}, row {number}: {len(cells)} cells found, expected {len(names)}")
                yield Row(file, number, {name: cell for name, cell in zip(names, cells, strict=True) if name is not None})
    except UnicodeDecodeError:
        raise _not_utf8(file, data) from None
    except csv.Error as error:
        if names is None:
            header.refuse_separator([data.decode("utf-8-sig", "replace").partition("\n")[0]])
        raise KitError(f"{file}, row {number + 1} (line {reader.line_num}): not a valid CSV row: {error}") from None
    if names is None:
        raise KitError(f"{file}: empty, expected a header with the columns {', '.join(header.required)}")


def _read_lines(file: str, data: bytes) -> Iterator[str]:
    try:
        yield from _opened(file, data, newline="\n")  # no other sign ends a line: a post may hold U+2028
    except UnicodeDecodeError:
        raise _not_utf8(file, data) from None


def read_jsonl(data: bytes, header: Header) -> Iterator[Row]:
    """The rows of a JSON Lines table: one object per line."""
    file, number = header.file, 0
    members: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal members
        members = found  # the line's own object is the last to be complete
        return dict(found)

    for line in _read_lines(file, data):
        if not line.strip():
            continue
        number += 1
        try:
            content = json.loads(line, object_pairs_hook=keep)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            lines = f"; expected {ONE_PER_LINE}" if number == 1 else ""
            raise KitError(f"{file}, row {number}: not valid JSON: {reason}{lines}") from None
        if not isinstance(content, dict):
            raise KitError(f"{file}, row {number}: a {type(content).__name__} found, expected {ONE_PER_LINE}")
        cells: dict[str, Any] = {}
        for name, (_, value) in zip(header.names([key for key, _ in members]), members, strict=True):
            if name is None:
                continue
            if name in cells:
                raise KitError(f"{file}, row {number}: column {name!r} stands twice")
            cells[name] = value
        for column in header.required:
            if column not in cells:
                raise KitError(f"{file}, row {number}: column {column!r} is missing")
        yield Row(file, number, cells)


def read_parquet(data: bytes, header: Header) -> Iterator[Row]:
    """The rows of a Parquet table."""
    import pyarrow
    import pyarrow.parquet

    file, number = header.file, 0
    try:
        table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        header.check(table.schema_arrow.names)
        names = header.names(table.schema_arrow.names)
        # Columns that are not used stay unread: their types need not have a Python value.
        wanted = [column for column, name in zip(table.schema_arrow.names, names, strict=True) if name is not None]
        kit = [name for name in names if name is not None]
        rows = table.metadata.num_rows
        if rows > max(_ROWS, len(data)):
            raise KitError(
                f"{file}: {rows:,} rows in {len(data):,} bytes found, expected at most one per byte; save it as CSV or JSON Lines"
            )
        unpacked, limit = 0, max(_UNPACKED, _RATIO * len(data))
        for batch in table.iter_batches(batch_size=100, columns=wanted):
            unpacked += batch.nbytes
            if unpacked > limit:
                raise KitError(
                    f"{file}: {len(data):,} bytes that unpack to more than {limit:,}, expected at most {_RATIO} times as many; "
                    "save it as CSV or JSON Lines"
                )
            columns = {column: cells.to_pylist() for column, cells in zip(batch.schema.names, batch.columns, strict=True)}
            for cells in zip(*(columns[column] for column in wanted), strict=True):
                number += 1
                yield Row(file, number, dict(zip(kit, cells, strict=True)))
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise KitError(f"{file}: not a readable Parquet file ({type(error).__name__})") from None


READERS = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}
