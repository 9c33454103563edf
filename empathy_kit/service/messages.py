"""What goes over the wire: requests, answers and errors, as OpenAPI describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

from empathy_kit.data.pairs import Span
from empathy_kit.inference.prediction import Prediction

UNCERTAIN = 0.6
"""A label with a smaller calibrated probability is called uncertain."""
MOST_PAIRS = 64
MOST_BYTES = 2**20


class _Strict(BaseModel):
    """Fields of the names that are declared, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _of_known_names(cls, given: Any) -> Any:
        """Stop at the first other name. Pydantic lists all, and a cheap body of 100,000 would keep the server busy."""
        if isinstance(given, dict) and not given.keys() <= cls.model_fields.keys():
            raise PydanticKnownError("extra_forbidden")
        return given


class PairOfPosts(_Strict):
    """A seeker post and the response to it."""

    seeker_post: str = Field(default="", description="may be left out where the model does not read seeker posts", repr=False)
    response_post: str = Field(repr=False)


class PredictRequest(_Strict):
    """Pairs to predict."""

    pairs: list[PairOfPosts] = Field(min_length=1, max_length=MOST_PAIRS)


class Evidence(BaseModel):
    """A stretch of the response, as it was sent, that supports a label."""

    start: int = Field(description="in characters (Unicode code points)")
    end: int = Field(description="in characters, exclusive")
    utf16_start: int = Field(description="in UTF-16 code units, as JavaScript counts")
    utf16_end: int


class TaskAnswer(BaseModel):
    """The prediction of one task."""

    label: str
    level: int = Field(description="the label's position, lowest first")
    probabilities: dict[str, float] = Field(description="label to calibrated probability; they sum to 1")
    uncertain: bool = Field(description=f"the label's probability is below {UNCERTAIN}")
    evidence: list[Evidence] | None = Field(description="empty at the lowest label; null where the model marks no evidence")


class PairAnswer(BaseModel):
    """The prediction of one pair."""

    tasks: dict[str, TaskAnswer]
    seeker_truncated: bool = Field(description="longer than the model reads")
    response_truncated: bool


class PredictAnswer(BaseModel):
    """Predictions in the order of the pairs."""

    digest: str = Field(description="which model: sha256 of its manifest")
    predictions: list[PairAnswer]


class Fault(BaseModel):
    """What was wrong with a request; it never repeats a post."""

    code: Literal[
        "empty_post",
        "internal_error",
        "invalid_request",
        "invalid_text",
        "method_not_allowed",
        "not_found",
        "not_json",
        "not_ready",
        "too_busy",
        "too_large",
        "too_late",
        "too_long",
        "unauthorized",
        "unknown_host",
        "headers_too_large",
    ]
    message: str
    pair: int | None = Field(default=None, description="position in pairs, from 0")
    field: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: Fault


class Refused(Exception):  # noqa: N818 - an answer
    """A request that is answered with a `Fault`."""

    def __init__(self, status: int, fault: Fault, headers: dict[str, str] | None = None) -> None:
        super().__init__(fault.code)
        self.status, self.fault, self.headers = status, fault, headers or {}


def answer(digest: str, pairs: list[PairOfPosts], predictions: list[Prediction]) -> PredictAnswer:
    """Predictions as they go over the wire."""
    return PredictAnswer(
        digest=digest, predictions=[_pair(pair.response_post, each) for pair, each in zip(pairs, predictions, strict=True)]
    )


def _pair(response: str, prediction: Prediction) -> PairAnswer:
    tasks = {
        name: TaskAnswer(
            label=task.label,
            level=task.level,
            probabilities=dict(task.probabilities),
            uncertain=task.probabilities[task.label] < UNCERTAIN,
            evidence=None if task.evidence is None else [_evidence(span, response) for span in task.evidence],
        )
        for name, task in prediction.tasks.items()
    }
    return PairAnswer(tasks=tasks, seeker_truncated=prediction.seeker_truncated, response_truncated=prediction.response_truncated)


def _evidence(span: Span, response: str) -> Evidence:
    start = _units(response[: span.start])
    return Evidence(start=span.start, end=span.end, utf16_start=start, utf16_end=start + _units(response[span.start : span.end]))


def _units(text: str) -> int:
    """UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
