"""A model's predictions for one pair in terms of its schema: labels, calibrated probabilities, evidence."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empathy_kit.core.calibration import tempered
from empathy_kit.core.metrics import runs
from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import Read
from empathy_kit.data.pairs import Span, original_places, unescape
from empathy_kit.data.schema import Schema

JOINER = "\u200d"  # makes one sign of two, such as an emoji of a couple

EVIDENCE = 0.5
"""The smallest probability at which a token counts as evidence."""


@dataclass(frozen=True)
class TaskPrediction:
    """The prediction of one task."""

    label: str  # the likeliest of the task's labels
    level: int  # its position in them, lowest first
    probabilities: Mapping[str, float]  # label to its calibrated probability; they sum to 1
    evidence: tuple[Span, ...] | None = field(repr=False)
    """Spans of the response, in characters, that support the label; empty at the lowest label, None without a span head."""


@dataclass(frozen=True)
class Prediction:
    """The predictions for one (seeker post, response post) pair."""

    tasks: Mapping[str, TaskPrediction]  # by the task's name, in the schema's order
    seeker_truncated: bool  # longer than the model reads: its middle or its end was cut
    response_truncated: bool

    def __getitem__(self, task: str) -> TaskPrediction:
        """The prediction of a task, by the task's name."""
        return self.tasks[task]


def make_prediction(scored: Scored, read: Read, response: str, schema: Schema, temperatures: Mapping[str, float]) -> Prediction:
    """Convert a model's outputs to labels, probabilities and evidence.

    Args:
        scored: the model's outputs.
        read: the tokens that it saw.
        response: the response as the caller gave it, with entities unresolved.
        schema: the model's tasks.
        temperatures: per task; 1 where it is missing.
    """
    tasks = {}
    for index, task in enumerate(schema.tasks):
        raw = scored.probabilities[task.name]
        level = int(raw.argmax())
        chances = tempered(raw, temperatures.get(task.name, 1.0)).tolist()
        evidence: tuple[Span, ...] | None = None
        if scored.evidence is not None:
            evidence = _spans(scored.evidence[index] > EVIDENCE, read, response) if level else ()
        tasks[task.name] = TaskPrediction(task.labels[level], level, dict(zip(task.labels, chances, strict=True)), evidence)
    return Prediction(tasks, read.seeker_truncated, read.response_truncated)


def _spans(marked: NDArray[np.bool_], read: Read, response: str) -> tuple[Span, ...]:
    """Marked tokens as stretches of the response's characters, without white space at their ends."""
    text = unescape(response)
    found = []
    for start, end in runs(marked):
        # Tokens before and after a cut are not adjacent.
        edges = [start, read.cut, end] if read.response_truncated and start < read.cut < end else [start, end]
        for first, last in pairwise(edges):
            places = [(one, other) for one, other in read.places[first:last] if one < other]  # special tokens have no characters
            if places:
                found.append(Span(places[0][0], places[-1][1]))
    whole: list[Span] = []
    for span in map(partial(_trimmed, text), found):
        if whole and span.start < whole[-1].end:  # halves of one sign
            span = Span(whole.pop().start, span.end)
        whole += [span] if span.start < span.end else []
    return original_places(whole, response)


def _trimmed(text: str, span: Span) -> Span:
    quote = text[span.start : span.end]
    start, end = span.start + len(quote) - len(quote.lstrip()), span.start + len(quote.rstrip())
    # Tokenizers that strip accents leave them out of a token's place, and so they do with what makes one sign of several.
    while start < end < len(text) and not _begins(text, end):
        end += 1
    while 0 < start < end and not _begins(text, start):
        start -= 1
    return Span(start, end)


def _begins(text: str, at: int) -> bool:
    """Whether a character begins what is read as one sign, as far as accents, vowel signs, emoji and flags go."""
    sign = text[at]
    if unicodedata.category(sign).startswith("M") or sign == JOINER or text[at - 1] == JOINER:
        return False
    if any(low <= sign <= high for low, high in _ADDED):
        return False
    letters = at  # of a flag, which are two each
    while letters and _FLAGS[0] <= text[letters - 1] <= _FLAGS[1]:
        letters -= 1
    return not (_FLAGS[0] <= sign <= _FLAGS[1] and (at - letters) % 2)


_ADDED = (("\U0001f3fb", "\U0001f3ff"), ("\U000e0020", "\U000e007f"))  # skin tones, and the tags of some flags
_FLAGS = ("\U0001f1e6", "\U0001f1ff")


def columns(schema: Schema, *, evidence: bool) -> list[str]:
    """The columns of predictions that are added to a table."""
    names: list[str] = []
    for task in schema.tasks:
        names += [f"{task.name}_predicted", *(f"{task.name}_p{level}" for level in range(len(task.labels)))]
        names += [f"{task.name}_evidence"] if evidence else []
    return [*names, "seeker_truncated", "response_truncated"]


def row(prediction: Prediction, response: str, *, evidence: bool) -> list[str | float | bool | list[dict[str, int | str]] | None]:
    """One pair's values for `columns`; evidence is a list of ``{"start", "end", "text"}``, or None without a span head."""
    values: list[str | float | bool | list[dict[str, int | str]] | None] = []
    for task in prediction.tasks.values():
        values += [task.label, *task.probabilities.values()]
        if evidence:
            spans = task.evidence
            quotes = None if spans is None else [asdict(span) | {"text": response[span.start : span.end]} for span in spans]
            values.append(quotes)
    return [*values, prediction.seeker_truncated, prediction.response_truncated]


def arrow_type(column: str) -> Any:
    """The Arrow type of one of `columns`."""
    import pyarrow

    evidence = pyarrow.struct({"start": pyarrow.int64(), "end": pyarrow.int64(), "text": pyarrow.string()})
    kinds = {"predicted": pyarrow.string(), "evidence": pyarrow.list_(evidence), "truncated": pyarrow.bool_()}
    return kinds.get(column.rpartition("_")[2], pyarrow.float64())
