"""Which labels of a data set are probably wrong, and why, as values without text or ids."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from empathy_kit.comparison.out_of_fold import OutOfFold
from empathy_kit.core.confident import Confident, confident
from empathy_kit.core.metrics import Floats
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.schema import MISSING, TaskSchema
from empathy_kit.errors import KitError

DIGITS = 6  # as in a run's predictions


@dataclass(frozen=True)
class Fault:
    """A label that is probably wrong."""

    row: int  # data row, from 1
    task: str
    rank: int  # within the task, from 1: the least believed label first
    label: str
    suggested: str
    label_probability: float
    suggested_probability: float
    margin: float  # the label's probability less the largest other one, below 0
    reason: str


@dataclass(frozen=True)
class TaskAudit:
    """What was found of one task."""

    labelled: int  # pairs
    judged: int  # labelled pairs that a model has predicted without having seen them
    thresholds: dict[str, float | None]  # label to its mean probability over the pairs that have it; None where none has it
    faults: tuple[Fault, ...]  # by rank


@dataclass(frozen=True)
class Audit:
    """What was found of a data set."""

    data: str
    sha256: str
    pairs: int
    covered: int  # labelled pairs that a model has predicted for some task without having seen them
    source: str  # of the probabilities
    tasks: dict[str, TaskAudit]


def audit(corpus: Corpus, found: OutOfFold) -> Audit:
    """Judge every labelled pair whose probabilities are known.

    Raises:
        KitError: a task with fewer than two labels among the judged pairs.
    """
    tasks = {name: _judge(corpus, corpus.schema.select([name]).tasks[0], shares) for name, shares in found.probabilities.items()}
    levels = np.array([pair.levels for pair in corpus.pairs])  # (N, T)
    labelled = {name: levels[:, corpus.schema.index(name)] != MISSING for name in tasks}
    covered = np.stack([labelled[name] & _known(shares) for name, shares in found.probabilities.items()]).any(axis=0)
    return Audit(corpus.name, corpus.sha256(), len(corpus), int(covered.sum()), found.source, tasks)


def _known(shares: Floats) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.isfinite(shares[:, 0])
    return known


def _judge(corpus: Corpus, task: TaskSchema, shares: Floats) -> TaskAudit:
    index = corpus.schema.index(task.name)
    levels = np.array([pair.levels[index] for pair in corpus.pairs], dtype=np.int64)
    labelled = levels != MISSING
    judged = np.flatnonzero(labelled & _known(shares))
    there = len(set(levels[judged].tolist()))
    if there < 2:
        raise KitError(
            f"{corpus.name}: {task.name} has {there} label{'s' * (there != 1)} among its {len(judged)} judged pairs "
            f"({int(labelled.sum())} are labelled), expected at least 2; use --tasks without {task.name}"
        )
    said = confident(levels[judged], shares[judged])
    faults = tuple(
        _fault(corpus.pairs[judged[at]].row, rank, task, int(levels[judged[at]]), shares[judged[at]], said, at)
        for rank, at in enumerate(said.faults.tolist(), start=1)
    )
    means = [None if np.isnan(mean) else round(float(mean), DIGITS) for mean in said.thresholds]
    return TaskAudit(int(labelled.sum()), len(judged), dict(zip(task.labels, means, strict=True)), faults)


def _fault(row: int, rank: int, task: TaskSchema, level: int, shares: Floats, said: Confident, at: int) -> Fault:
    other = int(said.suggested[at])
    label, suggested = task.labels[level], task.labels[other]
    reason = (
        f"{suggested} has probability {shares[other]:.2f}, pairs with this label have {said.thresholds[other]:.2f} on average; "
        f"{label} has {shares[level]:.2f}, pairs with this label have {said.thresholds[level]:.2f}"
    )
    own, its, margin = (round(float(value), DIGITS) for value in (shares[level], shares[other], said.margin[at]))
    return Fault(row, task.name, rank, label, suggested, own, its, margin, reason)


def as_csv(found: Audit) -> str:
    """The probable faults of all tasks as a table, its header first."""
    columns = [entry.name for entry in fields(Fault)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for task in found.tasks.values():
        writer.writerows([getattr(fault, column) for column in columns] for fault in task.faults)
    return text.getvalue()
