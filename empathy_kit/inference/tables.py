"""Rows of a table of pairs, read one at a time; reading continues after a bad row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from empathy_kit.data.cells import not_post
from empathy_kit.data.pairs import Placeholders, is_placeholder, unescape
from empathy_kit.data.readers import ONE_PER_LINE, Header
from empathy_kit.data.schema import fold
from empathy_kit.errors import KitError, shown
from empathy_kit.files import sha256
from empathy_kit.inference.nanoseconds import Unheld, cells_of
from empathy_kit.reading import open_regular

FORMATS = (".csv", ".jsonl", ".parquet")
PAGE = 2**20  # bytes of a Parquet file that are read at once
LONGEST = 2**24  # most characters of a cell or bytes of a line; a broken quote can swallow the rest of a file
NOT_TEXT = "not UTF-8, or half a surrogate pair, found; save it again as UTF-8"
DEEPEST = 100  # lists and objects in each other in a kept column: Python's own limit would be a traceback


@dataclass(frozen=True)
class Columns:
    """Which of a table's columns are read, and which are copied to the output."""

    seeker: str | None  # None where the model does not see the seeker posts
    response: str
    keep: tuple[str, ...] = ()
    keep_all: bool = False  # keep every other column too, but for those that are read as posts


@dataclass(frozen=True)
class Input:
    """One row to predict."""

    number: int  # from 1; the header is not counted
    seeker: str = field(repr=False)
    response: str = field(repr=False)
    kept: tuple[Any, ...] = field(repr=False)


@dataclass(frozen=True)
class Bad:
    """One row that cannot be predicted, and why; never its content."""

    number: int
    column: str  # empty where the fault is in the whole row
    reason: str
    alone: bool = True  # False where the rows after it are likely to be as bad: another format, or other columns

    def refusal(self, file: str) -> KitError:
        """The error that ends a job which skips no row."""
        skip = "; use --errors skip to predict the other rows and list the bad ones"
        return KitError(f"{self.error(file)}{skip * self.alone}")

    def error(self, file: str) -> KitError:
        """The same as an error of one line."""
        column = f", column {shown(self.column)}" if self.column else ""
        return KitError(f"{file}, row {self.number}{column}: {self.reason}")


class PairTable:
    """A CSV, JSON Lines or Parquet file, or a stream of JSON Lines.

    Raises:
        KitError: a file cannot be read, has another ending, or lacks a column.
    """

    def __init__(self, path: Path | None, columns: Columns, stream: io.BufferedReader | None = None) -> None:
        self.path = path
        self.name = "standard input" if path is None else path.name
        self._stream = stream
        if path is not None and path.suffix.lower() not in FORMATS:
            raise KitError(f"{path}: a {path.suffix or 'nameless'} file, expected {', '.join(FORMATS)}")
        names: dict[str, str] = {}  # folded, to the first of the names that are one column of a table
        for name in (columns.seeker, columns.response, *columns.keep):
            if name is not None:
                names.setdefault(fold(name), name)
        keep = tuple(names[fold(name)] for name in columns.keep)
        twice = next((name for name in keep if keep.count(name) > 1), None)
        if twice is not None:
            raise KitError(f"column {shown(twice)} is given twice with --keep; give it once")
        if columns.seeker is not None and fold(columns.seeker) == fold(columns.response):
            both = f"column {shown(columns.response)} is named for both posts"
            raise KitError(f"{both}; give --seeker-column and --response-column two different columns")
        self.columns = replace(columns, response=names[fold(columns.response)], keep=keep)
        self.required = list(names.values())
        self._names: dict[str, str] = {}  # requested name to the table's own name
        self.kept: tuple[str, ...] = keep  # all kept columns, known from the first row on
        self.types: dict[str, Any] = {}  # Arrow types of a Parquet file's kept columns
        self.fraction = 0.0  # of the file, read so far
        self.swallowed = 0  # lines read so far that a broken row of a CSV took after its first
        self.placeholders = Placeholders()  # of the rows read so far
        self._hashed: tuple[int, ...] | None = None  # which file it was when its hash was computed

    def sha256(self) -> str:
        """A hash of the file's bytes."""
        if self.path is None:
            raise ValueError("a stream has no hash before it is read")
        self._open().close()  # or the reason why it cannot be read
        self._hashed = self._state()
        try:
            return sha256(self.path)
        except OSError as error:
            raise self._unread(error) from None

    def refuse_changed(self) -> None:
        """Refuse a file that was changed after its hash was computed: its rows are not those of the hash.

        Raises:
            KitError: it was.
        """
        if self._hashed is not None and self._state() != self._hashed:
            raise KitError(f"{self.name}: changed while it was read; predict a copy that nothing changes")

    def _state(self) -> tuple[int, ...]:
        assert self.path is not None
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_size, found.st_mtime_ns, found.st_ino

    def rows(self) -> Iterator[Input | Bad]:
        """Every row in order.

        Raises:
            KitError: the whole table cannot be read.
        """
        kind = ".jsonl" if self.path is None else self.path.suffix.lower()
        read = {".csv": self._csv, ".jsonl": self._jsonl, ".parquet": self._parquet}[kind]
        try:
            with self._open() as stream:
                yield from read(stream)
        except OSError as error:
            raise self._unread(error) from None

    def _open(self) -> io.BufferedReader:
        if self.path is None:
            assert self._stream is not None
            return self._stream
        try:
            return open_regular(self.path)
        except FileNotFoundError:
            raise KitError(f"{self.path}: no such file") from None
        except OSError as error:
            raise self._unread(error) from None

    def _unread(self, error: OSError) -> KitError:
        return KitError(f"{self.path or self.name}: cannot be read: {error.strerror or type(error).__name__}")

    def _csv(self, stream: io.BufferedReader) -> Iterator[Input | Bad]:
        start = stream.read(4)
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start[:2].count(0) == 1:
            raise KitError(f"{self.name}: UTF-16 found, expected UTF-8; save it again as UTF-8")
        stream.seek(0)
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
        # Bytes that are not UTF-8 become surrogates, which the check of each cell finds: a bad byte costs only its row.
        with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield from self._csv_rows(csv.reader(text, strict=True), stream, size)

    def _csv_rows(self, reader: Any, stream: io.BufferedReader, size: int) -> Iterator[Input | Bad]:
        columns: list[str] | None = None
        number = 0
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if columns is None:
                    raise KitError(f"{self.name}, line {reader.line_num}: not a valid CSV header: {error}") from None
                number += 1
                self.swallowed += reader.line_num - start
                yield Bad(number, "", _broken(start, reader.line_num, error))
                continue
            if columns is None:
                columns = self._begin([column.strip() for column in cells])
            elif cells:  # a blank line is not a row
                number += 1
                self.fraction = min(1.0, stream.tell() / size)
                if len(cells) != len(columns):
                    yield Bad(number, "", f"{len(cells)} cells found, expected {len(columns)}")
                else:
                    yield self._row(number, dict(zip(columns, cells, strict=True)))
        if columns is None:
            raise KitError(f"{self.name}: empty, expected a header with the columns {', '.join(self.required)}")

    def _jsonl(self, stream: io.BufferedReader) -> Iterator[Input | Bad]:
        size = self.path.stat().st_size if self.path is not None else 0
        number, done = 0, 0
        first: set[str] = set()
        fault: KitError | None = None  # of the first row, until a row has the needed columns
        begun = 0  # the row that had them
        while line := stream.readline(LONGEST):
            done += len(line)
            whole = len(line) < LONGEST or line.endswith(b"\n")
            while not line.endswith(b"\n") and len(line) == LONGEST:
                line = stream.readline(LONGEST)
                done += len(line)
            self.fraction = min(1.0, done / size) if size else 0.0
            if number == 0:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            number += 1
            if not whole:
                yield Bad(number, "", f"a line of {LONGEST:,} bytes or more found, expected one row per line")
                continue
            try:
                content = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
            except UnicodeDecodeError:
                yield Bad(number, "", "not UTF-8; save it again as UTF-8")
                continue
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error) or type(error).__name__
                other = number == 1 and isinstance(error, json.JSONDecodeError | RecursionError)
                lines = f"; expected {ONE_PER_LINE}" if other else ""
                yield Bad(number, "", f"not valid JSON: {reason}{lines}", alone=not other)
                continue
            if not isinstance(content, dict):
                yield Bad(number, "", f"a {type(content).__name__} found, expected {ONE_PER_LINE}", alone=number > 1)
                continue
            if not begun:
                try:
                    self._begin(list(content))
                except KitError as error:
                    fault = fault or error
                    yield Bad(number, "", str(error).removeprefix(f"{self.name}: "), alone=number > 1)
                    continue
                first, begun = set(content), number
            missing = next((name for name in self.required if self._names[name] not in content), None)
            later = next((name for name in content if name not in first), None) if self.columns.keep_all else None
            if missing is not None:
                yield Bad(number, missing, "missing")
            elif later is not None:
                yield Bad(number, "", f"column {shown(later)} is not in row {begun}, whose columns are kept; add it there too")
            else:
                yield self._row(number, content)
        if fault is not None and not begun:
            raise fault

    def _parquet(self, stream: io.BufferedReader) -> Iterator[Input | Bad]:
        import pyarrow
        import pyarrow.parquet

        number = 0
        try:
            # Read page by page: by default a row group, which may be the whole table, would be in memory.
            table = pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=PAGE)
            schema = table.schema_arrow
            columns = self._begin(schema.names)
            wanted = [column for column in columns if column in {*self._names.values(), *self.kept}]
            self.types = {name: schema.field(name).type for name in self.kept}
            for batch in table.iter_batches(batch_size=1_000, columns=wanted):
                cells = {name: cells_of(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
                for at in range(batch.num_rows):
                    number += 1
                    yield self._row(number, {name: column[at] for name, column in cells.items()})
                self.fraction = number / table.metadata.num_rows
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise KitError(f"{self.name}: not a readable Parquet file ({type(error).__name__})") from None

    def _begin(self, columns: Sequence[str]) -> list[str]:
        """Find the requested columns."""
        flags = {self.columns.response: "--response-column"}
        if self.columns.seeker is not None:
            flags[self.columns.seeker] = "--seeker-column"
        # A new one, because it remembers the columns of rows that were refused.
        header = Header(self.name, self.required, flags=flags)
        header.check(columns)
        found = header.names(columns)
        self._names = {name: column for name, column in zip(found, columns, strict=True) if name is not None}
        posts = {self._names[name] for name in (self.columns.seeker, self.columns.response) if name is not None}
        if self.columns.keep_all:
            named = {self._names[name] for name in self.columns.keep}
            others = [column for column in columns if column in named or column not in posts]
            twice = next((column for column in others if others.count(column) > 1), None)
            if twice is not None:
                raise KitError(f"{self.name}: column {shown(twice)} occurs twice in the header; rename one, or do not keep it")
            self.kept = tuple(others)
        else:
            self.kept = tuple(self._names[name] for name in self.columns.keep)
        for name in (*posts, *self.kept):
            if _fault(name):
                raise KitError(
                    f"{self.name}: column {shown(name)}: the name is not UTF-8, or has half a surrogate pair; rename it"
                )
        return list(columns)

    def _row(self, number: int, cells: dict[str, Any]) -> Input | Bad:
        for name in (self.columns.seeker, self.columns.response):
            if name is not None:
                post = cells[self._names[name]]
                text = "" if post is None else post
                fault = _fault(text) or not_post(text)
                if fault:
                    return Bad(number, name, fault)
        kept = tuple(cells.get(name) for name in self.kept)
        for name, value in zip(self.kept, kept, strict=True):
            fault = _fault(value)
            if fault:
                return Bad(number, name, fault)
        seeker = "" if self.columns.seeker is None else cells[self._names[self.columns.seeker]]
        response = cells[self._names[self.columns.response]]
        if is_placeholder(unescape(seeker)) or is_placeholder(unescape(response)):
            self.placeholders = self.placeholders.add(number)
        return Input(number, seeker, response, kept)


def _broken(first: int, last: int, error: csv.Error) -> str:
    if first == last:
        return f"line {first}: not a valid CSV row: {error}"
    return f"lines {first} to {last}: not a valid CSV row: {error}; find the quote that is not closed or not doubled"


def _fault(value: object, depth: int = 0) -> str | None:
    """Detect what Python cannot hold, and text, also within lists and objects, that is not UTF-8 or that no file can hold."""
    if isinstance(value, Unheld):
        unheld = f"a value that Python cannot hold found ({value.error}); leave this column out of --keep"
        return NOT_TEXT if value.error == UnicodeDecodeError.__name__ else unheld
    if isinstance(value, str):
        surrogate = not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value)
        return NOT_TEXT if surrogate else None
    if not isinstance(value, dict | list | tuple):
        return None
    if depth == DEEPEST:
        return f"lists or objects more than {DEEPEST} deep found"
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    return next(filter(None, (_fault(each, depth + 1) for each in inner)), None)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a name occurs twice in one object")
    return found
