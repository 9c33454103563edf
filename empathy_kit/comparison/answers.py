"""Predictions of runs and yardsticks, read from their CSV files: one row per test pair, several columns per task."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from empathy_kit.comparison.statistics import Answers
from empathy_kit.data.schema import TaskSchema
from empathy_kit.errors import KitError
from empathy_kit.reading import read_regular

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class AnswerTable:
    """A file of predictions: ``id``, then per task ``NAME_true`` (empty where the label is missing) and predicted columns."""

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            KitError: it cannot be read, or is not such a table.
        """
        self.path = path
        try:
            text = read_regular(path).decode("utf-8-sig")
            header, *rows = list(csv.reader(io.StringIO(text, newline="")))
            self._columns = dict(zip(header, zip(*rows, strict=True), strict=True))
            self.ids: tuple[str, ...] = self._columns["id"]
            whole = len(self._columns) == len(header) and len(set(self.ids)) == len(self.ids)  # no name occurs twice
        except OSError as error:
            raise KitError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, csv.Error):  # ValueError: no row, rows of other lengths, not UTF-8
            whole = False
        if not whole:
            raise KitError(f"{path}: not a table of answers, expected columns id, NAME_true, ... and a row for each test pair")

    def has(self, task: TaskSchema, what: str) -> bool:
        """Whether the table has this column of a task: ``predicted``, ``swapped`` or ``p0``."""
        return f"{task.name}_{what}" in self._columns

    def answers(self, task: TaskSchema, what: str = "predicted") -> Answers:
        """A task's true and predicted levels and, where the table has them, probabilities, for the labelled pairs only.

        Raises:
            KitError: a column is missing, or has cells that are not levels of the task or not probabilities.
        """
        known = self._labelled(task)
        ids = tuple(name for name, labelled in zip(self.ids, known, strict=True) if labelled)
        true, predicted = (self._levels(f"{task.name}_{column}", task, known) for column in ("true", what))
        ranked = what == "predicted" and self.has(task, "p0")
        return Answers(ids, true, predicted, self.probabilities(task) if ranked else None)

    def probabilities(self, task: TaskSchema) -> Floats:  # (N, C)
        """A task's probabilities, for the labelled pairs only.

        Raises:
            KitError: a column is missing, or has cells that are not probabilities.
        """
        known = self._labelled(task)
        names = [f"{task.name}_p{level}" for level in range(len(task.labels))]
        try:
            values = np.stack([np.array(self._column(name), dtype=np.float64)[known] for name in names], axis=1)
        except ValueError:
            values = np.full((1, 1), np.nan)
        if not ((values >= 0) & (values <= 1)).all():
            raise KitError(f"{self.path}: {task.name}_p0 to {names[-1]} have values that are not probabilities from 0 to 1")
        if (abs(values.sum(1) - 1) > 1e-3).any():
            raise KitError(f"{self.path}: {task.name}_p0 to {names[-1]} do not sum to 1")
        return values

    def _column(self, name: str) -> tuple[str, ...]:
        if name not in self._columns:
            raise KitError(f"{self.path}: column {name} is missing")
        return self._columns[name]

    def _labelled(self, task: TaskSchema) -> NDArray[np.bool_]:
        return np.array([bool(cell) for cell in self._column(f"{task.name}_true")])

    def _levels(self, name: str, task: TaskSchema, known: NDArray[np.bool_]) -> Ints:
        levels = {str(level): level for level in range(len(task.labels))}
        cells = [cell for cell, labelled in zip(self._column(name), known, strict=True) if labelled]
        if any(cell not in levels for cell in cells):
            raise KitError(f"{self.path}: {name} has values that are not levels 0 to {len(levels) - 1}")
        return np.array([levels[cell] for cell in cells], dtype=np.int64)
