"""Which tasks there are, and their labels: EPITOME's three mechanisms, or those of a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from empathy_kit.errors import KitError

MISSING = -1
"""The level of a pair that has no label for a task."""

POSTS = ("seeker_post", "response_post")
IDS = ("pair_id", "seeker_id")
RESERVED = (*POSTS, *IDS)
"""Columns of a table that belong to the kit: no task may have one of these as its name or column."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_LONGEST = 200  # characters of a title or a label
_MOST = 1000  # tasks, and labels of one


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
                raise KitError(f"--tasks: {name!r} is unknown; there are {', '.join(self.names)}")
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
            raise KitError(f"{where}: a {type(content).__name__} found, expected tables [[tasks]]")
        unknown = next((key for key in content if key != "tasks"), None)
        if unknown is not None:
            raise KitError(f"{where}: {_shown(unknown)} is unknown, expected tables [[tasks]] only")
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
        raise KitError(f"{where}: a {type(content).__name__} found, expected a table with name and labels")
    known = ("name", "title", "column", "labels")
    unknown = next((key for key in content if key not in known), None)
    if unknown is not None:
        raise KitError(f"{where}: {_shown(unknown)} is unknown, expected {', '.join(known)}")
    name = content.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise KitError(f"{where}: name is {_shown(name)}, expected a letter, then letters, digits, hyphens or underscores")
    where = f"{where} ({name})"
    texts = {key: _text(content.get(key, name), key, where) for key in ("title", "column")}
    labels = content.get("labels")
    if not isinstance(labels, list | tuple) or len(labels) < 2:
        found = f"{len(labels)} found" if isinstance(labels, list | tuple) else f"{_shown(labels)} found"
        raise KitError(f"{where}: labels: {found}, expected a list of two or more, lowest first")
    if len(labels) > _MOST:
        raise KitError(f"{where}: labels: {len(labels)} found, expected at most {_MOST}")
    names = tuple(_text(label, "a label", where) for label in labels)
    twice = next((label for label in names if names.count(label) > 1), None)
    if twice is not None:
        raise KitError(f"{where}: label {_shown(twice)} stands twice, expected each label once")
    return TaskSchema(name, texts["title"], texts["column"], names)


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _LONGEST:
        raise KitError(f"{where}: {what} is {_shown(value)}, expected printable text of at most {_LONGEST} characters")
    return value.strip()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_apart(schema: Schema, where: str) -> None:
    """No two tasks may share a name or a column, and none may take a column of the kit."""
    taken = dict.fromkeys(RESERVED, "a column of the kit")
    for task in schema.tasks:
        for what, value in (("name", task.name), ("column", task.column), ("spans column", task.spans_column)):
            owner = taken.get(value)
            if owner is not None and owner != f"task {task.name}":
                raise KitError(f"{where}: {what} {value!r} of task {task.name} is {owner}, expected another")
        taken |= dict.fromkeys((task.name, task.column, task.spans_column), f"task {task.name}")
        if schema.names.count(task.name) > 1:
            raise KitError(f"{where}: task {task.name} stands twice, expected each name once")


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
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise KitError(f"--schema {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KitError(f"--schema {path}: not UTF-8; save it again as UTF-8") from None
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise KitError(f"--schema {path}: not valid TOML: {error}") from None
    return Schema.from_dict(content, f"--schema {path}")
