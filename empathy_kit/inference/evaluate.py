"""Evaluate a model on a labelled table: scores with intervals, calibration, and how many pairs it has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from empathy_kit.core.calibration import calibration, tempered
from empathy_kit.core.metrics import Scores, SpanScores, runs, score, score_spans
from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import Labels, whole_stretches
from empathy_kit.data.cells import LabelReader
from empathy_kit.data.pairs import Corpus, Pair, placeholder_rows
from empathy_kit.data.schema import MISSING, Schema, TaskSchema
from empathy_kit.data.sources import load_corpus
from empathy_kit.errors import KitError, shown
from empathy_kit.inference.model import EmpathyModel
from empathy_kit.inference.prediction import EVIDENCE
from empathy_kit.runs.record import LATER, Record
from empathy_kit.runs.seen import Overlap

Value = TypeVar("Value")

SEED = 0
"""The seed of the resampling: the default of a run, so that evaluating a run repeats its recorded intervals."""


@dataclass(frozen=True)
class TaskEvaluation:
    """One task's scores. Levels are positions in the labels."""

    labels: tuple[str, ...]  # the model's, lowest first
    scores: Scores  # their majority label is that of these pairs: no constant answer has a higher accuracy
    temperature: float
    ece_before: float  # expected calibration error of the model's probabilities as they are
    ece_after: float  # at the model's temperature, as `predict` returns the probabilities
    spans: SpanScores | None  # None where the model marks no evidence, or these pairs have no annotated spans


@dataclass(frozen=True)
class Evaluation:
    """A model's scores on a labelled table."""

    model: str  # the title of its run
    digest: str  # sha256 of the model folder's manifest
    oracle: bool  # its own run saw annotated spans at inference; here it sees none
    data: str
    sha256: str  # of everything that the kit reads from the data
    pairs: int  # in the data
    seen: Overlap | None  # None where the model has no hashes of its training posts
    unseen: int | None  # pairs that it was neither trained nor validated on
    scored: int  # all pairs, or the unseen ones alone
    tasks: Mapping[str, TaskEvaluation]
    left_out: tuple[str, ...]  # tasks of the model that no scored pair has a label for
    warnings: tuple[str, ...]  # of the model, and of placeholders in place of the scored pairs' posts


def read_labelled(model: EmpathyModel, data: str, schema: Schema | None = None) -> Corpus:
    """The labelled pairs to score a model on.

    Args:
        model: the model, whose tasks are read.
        data: sample, reddit, a folder or a table.
        schema: the table's tasks and labels; None takes the model's, of which the table may lack some.

    Raises:
        KitError: the data does not exist, or has a fault.
    """
    return load_corpus(data, schema or model.schema, flag="DATA", partial=schema is None)


def evaluate(model: EmpathyModel, corpus: Corpus, *, unseen: bool = False) -> Evaluation:
    """Score a model on every labelled pair, or on those whose seeker post it was neither trained nor validated on.

    Labels are matched by their text. The model sees neither labels nor annotated spans.

    Raises:
        KitError: no task in common, a label that the model does not know, or nothing to score.
    """
    pairs = _aligned(model.schema, corpus)
    overlap, strangers = model.seen.overlap(corpus.pairs) if model.seen else (None, None)
    if unseen:
        pairs = [pairs[at] for at in _left(strangers, corpus)]
    labelled = {
        name: [at for at, pair in enumerate(pairs) if pair.levels[index] != MISSING]
        for index, name in enumerate(model.schema.names)
    }
    if not any(labelled.values()):
        which = f"--unseen: none of the {len(pairs)} unseen pairs of {corpus.name}" if unseen else f"{corpus.name}: no pair"
        raise KitError(f"{which} has a label for {', '.join(labelled)}, expected one for at least one of them")
    warning = placeholder_rows(pairs, seekers=model.reads_seekers).warning
    read = list(model.tokenization.labelled(pairs))
    answers = list(model.engine.predict(tokens for tokens, _, _ in read))
    tasks = {
        task.name: _score(
            index,
            task,
            [(answers[at], read[at][1]) for at in labelled[task.name]],
            marked=any(pairs[at].spans[index] for at in labelled[task.name]),
            temperature=model.temperatures.get(task.name, 1.0),
        )
        for index, task in enumerate(model.schema.tasks)
        if labelled[task.name]
    }
    return Evaluation(
        model=_title(model.about),
        digest=model.digest,
        oracle=bool(model.about.get("oracle", False)),
        data=corpus.name,
        sha256=corpus.sha256(),
        pairs=len(corpus),
        seen=overlap,
        unseen=None if strangers is None else len(strangers),
        scored=len(pairs),
        tasks=tasks,
        left_out=tuple(name for name in model.schema.names if name not in tasks),
        warnings=(*model.warnings, *([warning] if warning else [])),
    )


def _left(strangers: list[int] | None, corpus: Corpus) -> list[int]:
    """The positions that remain with ``--unseen``."""
    if strangers is None:
        raise KitError("--unseen: the model has no hashes of its training posts, which older kits did not keep; train it again")
    if not strangers:
        raise KitError(
            f"--unseen: the model was trained or validated on the seeker post of every pair of {corpus.name} ({len(corpus)}); "
            "nothing is left to score"
        )
    return strangers


def _aligned(schema: Schema, corpus: Corpus) -> list[Pair]:
    """The pairs with one level per task of the model: the position of the label with the same text, or MISSING."""
    positions = [corpus.schema.names.index(name) if name in corpus.schema.names else None for name in schema.names]
    if all(position is None for position in positions):
        raise KitError(
            f"{corpus.name}: its tasks are {', '.join(corpus.schema.names)}, expected one of the model's, "
            f"{', '.join(schema.names)}; give them the model's names in --schema"
        )
    levels = [
        {MISSING: MISSING} if position is None else _levels(corpus.name, task, corpus.schema.tasks[position])
        for task, position in zip(schema.tasks, positions, strict=True)
    ]

    def take(values: Sequence[Value], default: Value) -> tuple[Value, ...]:
        return tuple(default if position is None else values[position] for position in positions)

    return [
        replace(
            pair,
            levels=tuple(known[level] for known, level in zip(levels, take(pair.levels, MISSING), strict=True)),
            spans=take(pair.spans, ()),
            unplaced=take(pair.unplaced, 0),
        )
        for pair in corpus.pairs
    ]


def _levels(name: str, ours: TaskSchema, theirs: TaskSchema) -> dict[int, int]:
    """A table's level of a task -> the model's level with the same label."""
    reader = LabelReader(ours)
    found = {MISSING: MISSING}
    for level, label in enumerate(theirs.labels):
        same = reader.level(label)
        if same is None:
            raise KitError(
                f"{name}: task {ours.name} has the label {shown(label)}, which the model does not know; "
                f"its labels are {', '.join(ours.labels)}"
            )
        found[level] = same
    return found


def _score(
    index: int, task: TaskSchema, found: Sequence[tuple[Scored, Labels]], *, marked: bool, temperature: float
) -> TaskEvaluation:
    true = np.array([labels.levels[index] for _, labels in found])
    rows = np.stack([scored.probabilities[task.name] for scored, _ in found])
    return TaskEvaluation(
        labels=task.labels,
        scores=score(true, rows, majority=int(np.bincount(true).argmax()), seed=SEED),
        temperature=temperature,
        ece_before=calibration(rows, true).ece,
        ece_after=calibration(tempered(rows, temperature), true).ece,
        spans=_score_spans(index, found) if marked else None,
    )


def _score_spans(index: int, found: Sequence[tuple[Scored, Labels]]) -> SpanScores | None:
    """Scores as in a run: every marked token counts, even where the predicted level is the lowest."""
    gold, predicted = [], []
    for scored, labels in found:
        if scored.evidence is not None and labels.gold_known[index]:
            gold.append(labels.evidence[index])
            predicted.append(whole_stretches(runs(scored.evidence[index] > EVIDENCE), labels.cut))
    return score_spans(gold, predicted, SEED) if gold else None


def _title(about: Mapping[str, Any]) -> str:
    """The model's title in tables: that of its run."""
    names = [each.name for each in fields(Record) if each.name not in LATER]  # which no title needs
    if not all(name in about for name in names):
        return str(about.get("title", "the model"))
    return Record(**{name: about[name] for name in names}).title
