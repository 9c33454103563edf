"""`load`: a finished run, an exported folder or a published model -> a model that predicts one pair or millions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from empathy_kit.core.scored import WINDOW, Engine
from empathy_kit.core.tokens import Tokenization
from empathy_kit.data.cells import MAX_CELL, is_missing, not_post, not_text
from empathy_kit.data.pairs import unescape
from empathy_kit.data.schema import Schema
from empathy_kit.errors import KitError
from empathy_kit.inference.graph import EXPORT, open_export
from empathy_kit.inference.prediction import Prediction, arrow_type, columns, make_prediction, row
from empathy_kit.runs import record
from empathy_kit.runs.seen import Seen, read_seen

if TYPE_CHECKING:
    import pandas
    import pyarrow

Table = TypeVar("Table", "pandas.DataFrame", "pyarrow.Table")
HUB = "hub:"


@dataclass(frozen=True)
class _Posts:
    """A pair as the model sees it: HTML entities are resolved, as in training."""

    seeker: str = field(repr=False)
    response: str = field(repr=False)


@dataclass(frozen=True)
class EmpathyModel:
    """A trained model that predicts. Several may live in one process, and several threads may share one."""

    schema: Schema  # the tasks that it predicts, and their labels
    tokenization: Tokenization = field(repr=False)
    engine: Engine = field(repr=False)
    temperatures: Mapping[str, float] = field(repr=False)  # per task, fitted on the run's validation part
    digest: str  # sha256 of the folder's manifest, which lists that of every file
    # The run's record as JSON has it, or the exported model's description; "hub": user/name@commit, of a published model.
    about: Mapping[str, Any] = field(repr=False)
    warnings: tuple[str, ...] = ()  # for the user: plugins of other versions, an ORACLE's scores
    seen: Seen | None = field(default=None, repr=False)  # its training posts' hashes; None in models of earlier versions
    code: Mapping[str, str] = field(default_factory=dict, repr=False)  # what else computes, and its version

    @property
    def reads_seekers(self) -> bool:
        """Whether the model sees the seeker posts."""
        return self.tokenization.seekers

    @property
    def marks_evidence(self) -> bool:
        """Whether the model has a span head: found out with one pair."""
        return any(task.evidence is not None for task in self.predict([("a", "a")])[0].tasks.values())

    @property
    def identity(self) -> dict[str, str]:
        """What its predictions depend on: "model", its digest, the "library" and "device" that compute, and other code."""
        return {"model": self.digest, **self.engine.origin, **self.code}

    def predict(self, pairs: Iterable[tuple[str, str]]) -> list[Prediction]:
        """Predict (seeker post, response post) pairs: one `Prediction` per pair, in the same order; an empty list for no pairs.

        Raises:
            KitError: a pair is not two texts, a post has nothing to read, or the model's probabilities are no numbers.
        """
        _refuse_table(pairs)
        waiting = list(pairs)
        for at, pair in enumerate(waiting):  # a bad one is found before the others are computed in vain
            self._checked(at, pair)
        return list(self.stream(waiting))

    def stream(self, pairs: Iterable[tuple[str, str]], *, window: int = WINDOW) -> Iterator[Prediction]:
        """Predict any number of pairs in bounded memory, in their order.

        Args:
            pairs: (seeker post, response post) each. A model without seeker posts accepts any text as the first, even "".
            window: how many pairs are read ahead, so that posts of similar length share a batch. 1 answers each pair at once.

        Raises:
            KitError: the window is empty, or as `predict`, after the predictions of all pairs before the bad one. If the model
                fails, those of the window that it is in are not given.
        """
        if window < 1:
            raise KitError(f"window: {window} found, expected 1 pair or more")
        _refuse_table(pairs)
        return self._stream(iter(pairs), window)

    def _stream(self, waiting: Iterator[tuple[str, str]], window: int) -> Iterator[Prediction]:
        for start in itertools.count(0, window):
            chunk = list(itertools.islice(waiting, window))
            if not chunk:
                return
            posts, fault = [], None
            for at, pair in enumerate(chunk, start):
                try:
                    posts.append(self._checked(at, pair))
                except KitError as error:
                    fault = error
                    break
            yield from self._predicted(posts, [response for _, response in chunk[: len(posts)]])
            if fault is not None:
                raise fault

    def _predicted(self, posts: list[_Posts], responses: list[str]) -> Iterator[Prediction]:
        if not posts:
            return
        reads = list(self.tokenization.read(posts))
        scored = self.engine.predict(read.tokens for read in reads)
        for one, read, response in zip(scored, reads, responses, strict=True):
            yield make_prediction(one, read, response, self.schema, self.temperatures)

    def predict_table(
        self,
        table: Table,
        *,
        seeker_column: str = "seeker_post",
        response_column: str = "response_post",
        evidence: bool = False,
    ) -> Table:
        """A pandas or pyarrow table with columns added: label and probabilities per task, and whether a post was truncated.

        Args:
            table: one pair per row.
            seeker_column: column of the seeker posts; it may be missing where the model does not see them.
            response_column: column of the responses.
            evidence: also add per task a column of lists of ``{"start", "end", "text"}``.

        Raises:
            KitError: a column is missing, occurs twice or would occur twice, or a cell is no post.
        """
        names = list(table.columns if hasattr(table, "iloc") else table.column_names)
        needed = [*([seeker_column] if self.reads_seekers else []), response_column]
        for name in needed:
            _check_column(name, names, "response_column" if name == response_column else "seeker_column")
        added = columns(self.schema, evidence=evidence)
        twice = next((name for name in added if name in names), None)
        if twice is not None:
            raise KitError(f"column {twice!r} is in the table already; rename the table's column")
        cells = [_column(table, name) for name in needed]
        seekers = cells[0] if self.reads_seekers else [""] * len(cells[-1])
        pairs = list(zip(seekers, cells[-1], strict=True))
        for number, posts in enumerate(zip(*cells, strict=True), start=1):
            for name, post in zip(needed, posts, strict=True):
                if (fault := post_fault(post)) is not None:
                    raise KitError(f"row {number}, column {name!r}: {fault[1]}")
        rows = [row(each, pair[1], evidence=evidence) for each, pair in zip(self.stream(pairs), pairs, strict=True)]
        values: dict[str, list[Any]] = {name: [one[at] for one in rows] for at, name in enumerate(added)}
        return _with_columns(table, values)

    def _checked(self, at: int, pair: tuple[str, str]) -> _Posts:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise KitError(f"pair {at}: expected a seeker post and a response post, found {type(pair).__name__}")
        posts = []
        for name, post in zip(("seeker post", "response post"), pair, strict=True):
            if name == "seeker post" and not self.reads_seekers:
                posts.append("")
                continue
            fault = post_fault(post)
            if fault:
                raise KitError(f"pair {at}, {name}: {fault[1]}")
            posts.append(unescape(post))
        return _Posts(*posts)


def post_fault(post: object) -> tuple[Literal["invalid_text", "too_long", "empty_post"], str] | None:
    """Why a model cannot read a post: a short code, and a line without the post; None where it can.

    What stands for a missing value in Python and pandas counts as empty.
    """
    post = "" if is_missing(post) else post
    fault = not_post(post)
    if fault is None:
        return None
    if not_text(post) is None:
        return "empty_post", fault
    return "too_long" if isinstance(post, str) and len(post) > MAX_CELL else "invalid_text", fault


def _refuse_table(pairs: object) -> None:
    """Refuse a table, which as an iterable is the names of its columns, or the columns."""
    if hasattr(pairs, "columns"):
        raise KitError("pairs: a table found, expected (seeker post, response post) for each pair; use predict_table")


def _check_column(name: str, names: Sequence[Any], argument: str) -> None:
    if names.count(name) == 1:
        return
    if name in names:
        raise KitError(f"column {name!r} occurs {names.count(name)} times, expected once; rename the others")
    if name in map(str, names):
        raise KitError(f"column {name!r}: its name is not text, as it has to be; rename the table's columns")
    advice = f"; name yours with the argument {argument}" if names else ""
    raise KitError(f"column {name!r} is missing; there are {', '.join(map(str, names)) or 'none'}{advice}")


def _column(table: Any, name: str) -> list[Any]:
    column = table[name]
    return list(column.tolist() if hasattr(table, "iloc") else column.to_pylist())


def _with_columns(table: Any, values: dict[str, list[Any]]) -> Any:
    # The types of an empty table are given, because no value shows them.
    if hasattr(table, "iloc"):
        added = table.assign(**values)
        return added if len(added) else added.astype({name: arrow_type(name).to_pandas_dtype() for name in values})
    import pyarrow

    for name, cells in values.items():
        table = table.append_column(name, pyarrow.array(cells, type=arrow_type(name)))
    return table


def load(
    source: str | Path,
    *,
    device: Literal["auto", "cpu"] | None = None,
    threads: int | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
) -> EmpathyModel:
    """Load a model for prediction. No pickle and no code from the folder is used; every byte is compared with the manifest.

    Args:
        source: a run's folder, an exported folder (which needs no torch), or ``hub:user/name`` with or without ``@revision``.
        device: of a run's model: "cpu", or "auto" for an accelerator if there is one; None takes the run's setting.
        threads: CPU threads of an exported model; None uses all cores.
        plugins: of a run's model: the file of a plugin that is one Python file, or a list of such files.

    Raises:
        KitError: there is no model, it was changed, its plugins are missing, or the hub does not answer.
    """
    if str(source).startswith(HUB):
        from empathy_kit.inference.hub import fetch

        name = str(source).removeprefix(HUB)
        folder = fetch(name)
        model = load(folder, device=device, threads=threads, plugins=plugins)
        return replace(model, about={**model.about, "hub": f"{name.partition('@')[0]}@{folder.name}"})
    folder = Path(source)
    if os.path.isfile(folder / EXPORT):  # noqa: PTH113 - Path's own raises for names that cannot be
        description, tokenization, engine = open_export(folder, threads=threads)
        schema = Schema.from_dict(description["schema"])
        return EmpathyModel(
            schema=schema,
            tokenization=tokenization,
            engine=engine,
            temperatures=read_temperatures(folder / record.CALIBRATION),
            digest=digest(folder),
            about=description,
            seen=read_seen(folder),
            code={name: importlib.metadata.version(name) for name in ("tokenizers", "numpy")},
        )
    return _of_run(folder, device, plugins)


def _of_run(folder: Path, device: Literal["auto", "cpu"] | None, plugins: str | Path | Sequence[str | Path]) -> EmpathyModel:
    """The model of a finished run, with its calibration. Only this one needs torch."""
    from empathy_kit.plugins import load_registry
    from empathy_kit.runs.load import load as load_trained

    if not os.path.isdir(folder):  # noqa: PTH112 - Path's own raises for names that cannot be
        raise KitError(f"{folder}: no such folder; expected a run, an exported model, or hub:user/name")
    try:
        loaded = load_trained(folder, load_registry(plugins), device=device)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers", "safetensors"):
            raise
        raise KitError(
            f"{folder}: a run's model needs {error.name}: pip install 'empathy-kit[train]', or export the model where it is"
        ) from None
    return EmpathyModel(
        schema=loaded.record.tasks,
        tokenization=loaded.tokenization,
        engine=loaded.predictor,
        temperatures=read_temperatures(folder / record.MODEL / record.CALIBRATION),
        digest=digest(folder),
        about=asdict(loaded.record),
        warnings=loaded.warnings,
        seen=read_seen(folder / record.MODEL),
        code=loaded.code,
    )


def digest(folder: Path) -> str:
    """The sha256 of a model folder's manifest, which identifies the model because it lists the sha256 of every file."""
    return hashlib.sha256((folder / record.MANIFEST).read_bytes()).hexdigest()


def read_temperatures(path: Path) -> dict[str, float]:
    """Temperatures per task; empty for models of earlier versions, which had no calibration.

    Raises:
        KitError: the file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        found = {str(task): float(value) for task, value in json.loads(path.read_text(encoding="utf-8"))["temperatures"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = {"": math.nan}
    if not all(math.isfinite(value) and value > 0 for value in found.values()):
        raise KitError(f"{path}: no temperatures found, expected one number above 0 per task")
    return found
