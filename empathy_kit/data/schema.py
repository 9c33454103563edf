"""Which tasks there are, and their labels: EPITOME's three mechanisms, or those of a TOML file."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from empathy_kit.errors import KitError, shown
from empathy_kit.reading import open_regular

MISSING = -1
"""The level of a pair that has no label for a task."""

POSTS = ("seeker_post", "response_post")
IDS = ("pair_id", "seeker_id")
RESERVED = (*POSTS, *IDS)
"""Columns of a table that belong to the kit: no task may have one of these as its name or column."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?")  # of ASCII digits: int() would read "1_000" and "\u0661" too
_JOINERS = "\u200c\u200d"  # not printable to Python, and part of words in Persian and Hindi
_LONGEST = 200  # characters of a title or a label
_MOST = 1000  # tasks, and labels of one
_LARGEST = 1_000_000  # bytes of a schema's file


def fold(name: str) -> str:
    """A column's name without case, white space, hyphens, underscores and invisible characters: what people vary in a header."""
    folded = unicodedata.normalize("NFC", name.casefold())
    return "".join(sign for sign in folded if sign not in "-_" and not sign.isspace() and sign.isprintable())


def as_number(text: str) -> Decimal | None:
    """The number that a text is in plain decimal writing: "1" and "1.0" are one."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


@dataclass(frozen=True)
class TaskSchema:
    """One task: what a table calls it, and its labels."""

    name: str  # in options and files: -o loss.ER.gamma 3
    title: str  # for people
    column: str  # of the table; its spans stand in <column>_spans
    labels: tuple[str, ...]  # lowest first; a pair's level is a position in it

    @property
    def spans_column(self) -> str:
        """The table's column with the annotated evidence."""
        return f"{self.column}_spans"


@dataclass(frozen=True)
class Schema:
    """The tasks of a corpus, in order."""

    tasks: tuple[TaskSchema, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names."""
        return tuple(task.name for task in self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def index(self, name: str) -> int:
        """A task's position."""
        return self.names.index(name)

    def select(self, names: Sequence[str] | None) -> Schema:
        """The schema of some tasks, in this schema's order; of all where ``names`` is None.

        Raises:
            KitError: an unknown name, one given twice, or none at all.
        """
        if names is None:
            return self
        for name in names:
            if name not in self.names:
                raise KitError(f"--tasks: {shown(name)} is unknown; there are {', '.join(self.names)}")
            if names.count(name) > 1:
                raise KitError(f"--tasks: {name} is given twice, expected each task once")
        if not names:
            raise KitError(f"--tasks: no task is given; there are {', '.join(self.names)}")
        return Schema(tuple(task for task in self.tasks if task.name in names))

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON and TOML have it."""
        return {"tasks": [{**asdict(task), "labels": list(task.labels)} for task in self.tasks]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "schema") -> Schema:
        """The schema in a mapping as `to_dict` makes it; ``title`` and ``column`` default to the name.

        Args:
            content: ``{"tasks": [{"name": ..., "labels": [...]}, ...]}``.
            where: the file or setting, for messages.

        Raises:
            KitError: whatever of it is not as documented.
        """
        if not isinstance(content, Mapping):
            raise KitError(f"{where}: {_kind(content)} found, expected tables [[tasks]]")
        unknown = next((key for key in content if key != "tasks"), None)
        if unknown is not None:
            raise KitError(f"{where}: {shown(unknown)} is unknown, expected tables [[tasks]] only")
        tasks = content.get("tasks")
        if not isinstance(tasks, list | tuple) or not tasks:
            raise KitError(f"{where}: no task found, expected at least one table [[tasks]] with name and labels")
        if len(tasks) > _MOST:
            raise KitError(f"{where}: {len(tasks)} tasks found, expected at most {_MOST}")
        schema = cls(tuple(_task(task, f"{where}, task {number}") for number, task in enumerate(tasks, start=1)))
        _check_apart(schema, where)
        return schema


def _task(content: Any, where: str) -> TaskSchema:
    if not isinstance(content, Mapping):
        raise KitError(f"{where}: {_kind(content)} found, expected a table with name and labels")
    known = ("name", "title", "column", "labels")
    unknown = next((key for key in content if key not in known), None)
    if unknown is not None:
        raise KitError(f"{where}: {shown(unknown)} is unknown, expected {', '.join(known)}")
    if "name" not in content:
        raise KitError(f"{where}: name is missing, expected name and labels")
    name = content["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise KitError(
            f"{where}: name is {shown(name)}, expected a letter, then letters (a to z), digits, hyphens or underscores, "
            "at most 64 in all"
        )
    where = f"{where} ({name})"
    texts = {key: _text(content.get(key, name), key, where) for key in ("title", "column")}
    if "labels" not in content:
        raise KitError(f"{where}: labels are missing, expected a list of two or more, lowest first")
    return TaskSchema(name, texts["title"], texts["column"], _labels(content["labels"], where))


def _labels(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list | tuple) or len(given) < 2:
        found = f"{len(given)} found" if isinstance(given, list | tuple) else f"{_kind(given)} found"
        raise KitError(f"{where}: labels: {found}, expected a list of two or more, lowest first")
    if len(given) > _MOST:
        raise KitError(f"{where}: labels: {len(given)} found, expected at most {_MOST}")
    labels = tuple(_label(label, where) for label in given)
    seen: dict[str | Decimal, str] = {}
    for label in labels:
        # "1" and "1.0" are one label too: pandas writes whole numbers as 1.0 where a column has gaps.
        number = as_number(label)
        other = seen.get(label if number is None else number)
        if other is not None:
            twice = "stands twice" if other == label else f"stands twice, as {shown(other)} too"
            raise KitError(f"{where}: label {shown(label)} {twice}, expected each label once")
        seen[label if number is None else number] = label
    return labels


def _label(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) and abs(value) < 10**18 else _text(value, "a label", where)


def _text(value: Any, what: str, where: str) -> str:
    text = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else ""
    if not text or len(text) > _LONGEST or not all(sign.isprintable() or sign in _JOINERS for sign in text):
        kind = "text or whole numbers" if what == "a label" else "printable text"
        raise KitError(f"{where}: {what} is {shown(value)}, expected {kind} of at most {_LONGEST} characters")
    return text


def _kind(value: Any) -> str:
    """What a value is, in the words of TOML and JSON."""
    kinds = {dict: "a table", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "something else")


def _check_apart(schema: Schema, where: str) -> None:
    """No two tasks may share a name or a column, and none may take a column of the kit.

    Compared as `fold` has them, because tables are read so: "ER" and "er" would be one column.
    """
    taken = {fold(column): f"a column of the kit ({column})" for column in RESERVED}
    names: set[str] = set()
    for task in schema.tasks:
        if task.name in names:
            raise KitError(f"{where}: task {task.name} stands twice, expected each name once")
        names.add(task.name)
        own = (("name", task.name), ("column", task.column), ("spans column", task.spans_column))
        for what, value in own:
            if not fold(value):
                raise KitError(f"{where}: {what} {shown(value)} of task {task.name} has no letter or digit, expected one")
            owner = taken.get(fold(value))
            if owner is not None:
                raise KitError(f"{where}: {what} {shown(value)} of task {task.name} is taken by {owner}, expected another")
        if fold(task.name) == fold(task.spans_column):
            raise KitError(f"{where}: name {task.name!r} is its own spans column, expected another")
        taken |= {fold(value): f"{what} {shown(value)} of task {task.name}" for what, value in own}


EPITOME = Schema(
    (
        TaskSchema("ER", "emotional reactions", "ER", ("0", "1", "2")),
        TaskSchema("EX", "explorations", "EX", ("0", "1", "2")),
        TaskSchema("IP", "interpretations", "IP", ("0", "1", "2")),
    )
)
"""The three mechanisms of empathy of Sharma et al. (EMNLP 2020, arXiv 2009.08441); level 0 is none, 1 weak, 2 strong."""


def read_schema(path: Path) -> Schema:
    """The schema in a TOML file of tables ``[[tasks]]``.

    Raises:
        KitError: the file cannot be read, is not TOML, or holds something else.
    """
    try:
        with open_regular(path) as stream:  # never a whole device or a table given by mistake
            data = stream.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise KitError(f"--schema {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > _LARGEST:
        raise KitError(f"--schema {path}: more than {_LARGEST:,} bytes found, expected a short TOML file of tables [[tasks]]")
    try:
        content = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise KitError(f"--schema {path}: not UTF-8; save it again as UTF-8") from None
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, and a number of 5,000 digits
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        raise KitError(f"--schema {path}: not valid TOML: {reason}") from None
    return Schema.from_dict(content, f"--schema {path}")
