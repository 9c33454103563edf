"""The kit as a scikit-learn classifier: pairs of posts in, labels of one or several tasks out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from empathy_kit.config import RunConfig, configure
from empathy_kit.data.cells import Row, not_post
from empathy_kit.data.pairs import Corpus, Pair, unescape
from empathy_kit.data.schema import MISSING, Schema, TaskSchema
from empathy_kit.data.splits import hold_out
from empathy_kit.errors import KitError
from empathy_kit.options import parse
from empathy_kit.plugins import load_registry
from empathy_kit.runs.memory import train

SETTINGS = (
    *("loss", "rationale", "head", "sampler", "trunk", "encoder", "options", "posts", "max_tokens", "freeze_layers"),
    *("epochs", "batch_size", "encoder_lr", "lr", "select", "patience", "device"),
)
"""Parameters that are settings of a run, with the same names and defaults."""

POSTS = ("seeker post", "response post")


class EstimatorError(KitError, ValueError):
    """A KitError that is also a ValueError, which scikit-learn raises for wrong parameters and data."""


class Post(NamedTuple):
    """A pair of posts after reading."""

    seeker: str
    response: str


class EmpathyClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifier of (seeker post, response post) pairs that fine-tunes an encoder.

    Most parameters are settings of a run; a run's other settings keep their defaults. In addition:

    Args:
        options: options of the plugins, such as ``{"loss.gamma": 1.5}``; ``{"loss.ER.gamma": 3}`` is for one task.
        validation_fraction: share of the pairs that chooses the epoch and is not trained on. Pairs with the same seeker post,
            or the same group, stay together. If it is 0, or there are too few pairs, the training pairs choose the epoch.
        random_state: the seed of the split, the initial weights, the batches and dropout.

    Attributes:
        classes_: labels in sorted order, (C,); for several tasks a list of these.
        tasks_: the tasks' names: y's column names where they can be used in options, else y, or y0, y1, ...
        n_features_in_: always 2.
        feature_names_in_: X's column names, (2,); only where it has names that are all text.
        history_: one mapping per epoch with its losses and validation scores, and whether it is the best so far.
        validation_indices_: positions in X of the pairs that chose the epoch; empty where the training pairs did.
        trained_: the model, as settings and bytes.
    """

    def __init__(
        self,
        loss: str = "ce",
        *,
        rationale: str = "none",
        head: str = "linear",
        sampler: str = "all",
        trunk: str = "gru",
        encoder: str = "minilm",
        options: Mapping[str, Any] | None = None,
        posts: str = "both",
        max_tokens: int = 64,
        freeze_layers: int = 0,
        epochs: int = 5,
        batch_size: int = 32,
        encoder_lr: float = 5e-5,
        lr: float = 1e-3,
        select: str = "macro-f1",
        patience: int = 2,
        device: str = "auto",
        validation_fraction: float = 0.15,
        random_state: Any = 0,
    ) -> None:
        self.loss = loss
        self.rationale = rationale
        self.head = head
        self.sampler = sampler
        self.trunk = trunk
        self.encoder = encoder
        self.options = options
        self.posts = posts
        self.max_tokens = max_tokens
        self.freeze_layers = freeze_layers
        self.epochs = epochs
        self.batch_size = batch_size
        self.encoder_lr = encoder_lr
        self.lr = lr
        self.select = select
        self.patience = patience
        self.device = device
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Train on labelled pairs.

        Args:
            X: (n, 2) texts, the seeker post first.
            y: (n,) labels, or (n, T) labels of T tasks, where None or NaN is a missing label.
            groups: (n,) identifiers of the seekers, text or whole numbers; a pair whose identifier is missing (None, NaN or
                empty text) is grouped by its seeker post, and so is every pair where groups is None.

        Raises:
            ValueError: parameters, posts, labels or groups are not as described.
        """
        with _kit_errors():
            if y is None:
                validate_data(self, X, y, skip_check_array=True)  # raises, in scikit-learn's words
            names, classes, levels = _targets(y)
            posts = self._read(X, reset=True)
            check_consistent_length(posts, levels, groups)
            schema = _schema(names, classes)
            settings = {name: _plain(getattr(self, name)) for name in SETTINGS}
            settings |= {"options": settings["options"] or {}, "seed": _seed(self.random_state), "schema": schema}
            config = configure(RunConfig(), settings)
            corpus = Corpus("X", _pairs(posts, levels, groups), {}, schema=schema)
            split = hold_out(corpus, _fraction(self.validation_fraction), config.seed)
            trained = train(config, load_registry(), corpus, split)
        for text in trained.warnings:
            warnings.warn(text, stacklevel=2)
        self.classes_ = classes[0] if len(classes) == 1 else classes
        self.tasks_ = schema.names
        self.history_ = trained.history
        self.validation_indices_ = np.array(split.validation, dtype=np.intp)
        self.trained_ = trained
        return self

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Probabilities of the labels in ``classes_``.

        Args:
            X: (n, 2) texts, the seeker post first.

        Returns:
            (n, C) float64 whose rows sum to 1; for several tasks a list of these.

        Raises:
            ValueError: posts that are not as described, or a plugin that is missing.
        """
        check_is_fitted(self)
        with _kit_errors():
            posts = self._read(X, reset=False)
            ready = self.trained_.ready
            scored = [each.probabilities for each in ready.predictor.predict(ready.tokenization.encode(posts))]
        for text in ready.warnings:
            warnings.warn(text, stacklevel=2)
        # The model's softmax is in float32, and scikit-learn's metrics expect sums of 1 in float64.
        found = [np.stack([each[name] for each in scored]) for name in self.tasks_]
        found = [rows / rows.sum(axis=1, keepdims=True) for rows in found]
        return found if isinstance(self.classes_, list) else found[0]

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The likeliest labels: (n,), or (n, T) for several tasks.

        Raises:
            ValueError: as `predict_proba`.
        """
        found = self.predict_proba(X)
        if not isinstance(self.classes_, list):
            best: NDArray[Any] = self.classes_[found.argmax(axis=1)]
            return best
        columns = [labels[rows.argmax(axis=1)] for labels, rows in zip(self.classes_, found, strict=True)]
        kinds = {labels.dtype.kind for labels in self.classes_}
        return np.stack(columns if len(kinds) == 1 else [column.astype(object) for column in columns], axis=1)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy; for several tasks the mean of their accuracies, each over the pairs that have its label.

        A task without a label among these pairs, or with weights of 0 alone, is left out of the mean.

        Raises:
            ValueError: as `predict_proba`, or no task has a label.
        """
        found = self.predict(X)
        if found.ndim == 1:
            return float(accuracy_score(y, found, sample_weight=sample_weight))
        true = check_array(y, dtype=object, ensure_all_finite=False, input_name="y")
        check_consistent_length(true, found)
        scores = []
        for column, guess in zip(true.T, found.T, strict=True):
            known = _known(column)
            weights = None if sample_weight is None else np.asarray(sample_weight)[known]
            if not (known.any() if weights is None else weights.any()):
                continue
            right = np.array([label == said for label, said in zip(column[known], guess[known], strict=True)])
            scores.append(float(np.average(right, weights=weights)))
        if not scores:
            raise EstimatorError("y: no task has a label that counts, expected at least one")
        return sum(scores) / len(scores)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags

    def _read(self, X: Any, *, reset: bool) -> list[Post]:  # noqa: N803
        """The posts, read by the rules for a table."""
        dimensions = getattr(X, "ndim", None) or np.asarray(X, dtype=object).ndim
        if dimensions != 2:  # scikit-learn's message would show the posts
            raise EstimatorError(
                f"X is {dimensions}-dimensional, expected (n, 2) texts. Reshape your data: [(seeker, response), ...]"
            )
        cells = validate_data(self, X, reset=reset, dtype=object, ensure_min_features=2)
        if cells.shape[1] != 2:
            raise EstimatorError(f"X has {cells.shape[1]} features, expected 2: the seeker post and the response post")
        return [Post(*(_checked(at, name, text) for name, text in zip(POSTS, row, strict=True))) for at, row in enumerate(cells)]


def _checked(at: int, name: str, text: Any) -> str:
    fault = not_post(text)
    if fault:
        raise EstimatorError(f"X, pair {at}, {name}: {fault}")
    return unescape(text)


def _targets(y: Any) -> tuple[list[str], list[NDArray[Any]], NDArray[np.int64]]:
    """The tasks' names, their classes, and levels (n, T), which are MISSING where the label is missing."""
    values = check_array(y, dtype=None, ensure_2d=False, ensure_all_finite=False, input_name="y")
    single = values.ndim == 1 or values.shape[1] == 1
    if single:
        values = column_or_1d(values, warn=True)
        assert_all_finite(values, input_name="y")
    columns = [values] if single else list(values.T)
    names = _names(list(getattr(y, "columns", [getattr(y, "name", None)])), len(columns))
    classes = []
    levels = np.full((len(values), len(columns)), MISSING, dtype=np.int64)
    for at, (name, column) in enumerate(zip(names, columns, strict=True)):
        known = _known(column)
        if single and not known.all():
            raise EstimatorError(f"y: no label at position {int(np.argmin(known))}, expected one for every pair")
        found = column[known]
        if found.dtype == object and not any(isinstance(label, str) for label in found):
            found = np.array(found.tolist())  # numbers next to a column of text
        try:
            labels, levels[known, at] = np.unique(found, return_inverse=True)
        except TypeError:
            raise EstimatorError(f"y: the labels of {name} cannot be sorted, expected all of one type") from None
        check_classification_targets(found)
        if len(labels) < 2:
            count = "1 class" if len(labels) else "no class"
            raise EstimatorError(f"y: {name} has {count}, expected at least 2 classes")
        classes.append(labels)
    return names, classes, levels


def _known(column: Iterable[Any]) -> NDArray[np.bool_]:
    """Where a column has a value: missing values are None, NaN, NaT (not equal to themselves) and pandas' NA."""
    return np.array([value is not None and type(value).__name__ != "NAType" and value == value for value in column], dtype=bool)


def _names(given: Sequence[Any], tasks: int) -> list[str]:
    """The names of y's columns, if all of them are valid names of tasks."""
    try:
        return list(Schema.from_dict({"tasks": [{"name": name, "labels": [0, 1]} for name in given]}).names)
    except KitError:
        return ["y"] if tasks == 1 else [f"y{at}" for at in range(tasks)]


def _schema(names: Sequence[str], classes: Sequence[NDArray[Any]]) -> Schema:
    named = {name: [str(label) for label in labels.tolist()] for name, labels in zip(names, classes, strict=True)}
    for each in (named, {name: [str(at) for at in range(len(labels))] for name, labels in named.items()}):
        found = Schema(tuple(TaskSchema(name, name, name, tuple(labels)) for name, labels in each.items()))
        try:
            return Schema.from_dict(found.to_dict())  # as a record holds it
        except KitError as error:  # labels that no table has, such as "" or one twice but for a space: positions stand for them
            fault = error
    raise EstimatorError(f"y: {fault}")


class _Group(Row):
    """A seeker's identifier, read by the rule for a table's; its faults name the argument and the pair."""

    def error(self, column: str, problem: str) -> EstimatorError:
        return EstimatorError(f"{column}, pair {self.number}: {problem}")


def _pairs(posts: Sequence[Post], levels: NDArray[np.int64], groups: Any) -> tuple[Pair, ...]:
    seekers = [""] * len(posts)
    if groups is not None:
        given = np.asarray(groups, dtype=object)
        if given.shape[1:] not in ((), (1,)):
            raise EstimatorError(f"groups has shape {given.shape}, expected (n,) identifiers")
        cells = [_plain(cell) if known else None for cell, known in zip(given.flat, _known(given.flat), strict=True)]
        seekers = [_Group("", at, {"groups": cell}).identifier("groups") for at, cell in enumerate(cells)]
    return tuple(
        Pair(row, str(row), seeker, post.seeker, post.response, tuple(labels))
        for row, (post, seeker, labels) in enumerate(zip(posts, seekers, levels.tolist(), strict=True), start=1)
    )


def _plain(value: Any) -> Any:
    """A parameter as a plain Python value: a grid over a numpy array yields numpy's numbers."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _seed(random_state: Any) -> Any:
    """An integer is the seed itself; anything else draws one, as in scikit-learn."""
    plain = _plain(random_state)
    return plain if isinstance(plain, int) else int(check_random_state(plain).randint(2**31))


def _fraction(given: Any) -> float:
    try:
        fraction: float = parse(float, _plain(given))
    except ValueError as error:
        raise EstimatorError(f"validation_fraction {given}: {error}") from None
    if not 0 <= fraction < 1:
        raise EstimatorError(f"validation_fraction {given}: out of range, expected at least 0 and less than 1")
    return fraction


_NAMES = {"-o": "options", "--seed": "random_state"}


@contextmanager
def _kit_errors() -> Iterator[None]:
    """Turn the flags that the kit's messages name into parameters."""
    try:
        yield
    except EstimatorError:
        raise
    except KitError as error:
        raise EstimatorError(re.sub(r"(?<!\S)(--[a-z][a-z-]*|-o)\b", _parameter, str(error))) from None


def _parameter(flag: re.Match[str]) -> str:
    return _NAMES.get(flag[0], flag[0].lstrip("-").replace("-", "_"))
