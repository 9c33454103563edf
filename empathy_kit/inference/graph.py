"""An exported model at work: onnxruntime, tokenizers and numpy, without torch and transformers."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empathy_kit.core.scored import WINDOW, Scored, in_windows
from empathy_kit.core.tokens import Tokenization, TokenPair
from empathy_kit.data.schema import Schema
from empathy_kit.errors import KitError
from empathy_kit.inference.saturation import saturates
from empathy_kit.processor import cores
from empathy_kit.runs import record

FORMAT = 1
GRAPH, TOKENIZER, EXPORT = "model.onnx", "tokenizer.json", "export.json"
EVIDENCE = "evidence"  # the graph's output of the span head, (B, T, L); the others are named "p_TASK", (B, C)
INPUTS = ("seeker", "seeker_mask", "response", "response_mask")  # (B, Ls) int64, bool, (B, L) int64, bool

BATCH = 8
"""Pairs in one call: their states stay in a core's own cache. 64 take a quarter longer per pair."""

MOST_BYTES = {GRAPH: 2**31, TOKENIZER: 2**27, EXPORT: 2**24}
MOST_TOKENS = 100_000


class GraphEngine:
    """A model as an ONNX graph. Batches are shared out over threads, each of which computes one by itself.

    So all cores are busy, each in its own cache. For one pair alone, two threads gain nothing: its products are too small.
    """

    def __init__(self, graph: Path, tasks: Sequence[str], *, pad_id: int, threads: int | None = None) -> None:
        """Open a graph.

        Args:
            graph: the file.
            tasks: the names of its tasks.
            pad_id: what stands where a post is shorter than its neighbours.
            threads: how many batches are computed at once; one per core where None.

        Raises:
            KitError: onnxruntime is missing, or the file is no such graph.
        """
        self.threads = threads or cores()
        self.tasks = tuple(tasks)
        self.pad_id = pad_id
        self.window = WINDOW
        self._session = open_session(graph)
        self._outputs = [each.name for each in self._session.get_outputs()]
        found = ({each.name for each in self._session.get_inputs()}, [name for name in self._outputs if name != EVIDENCE])
        if found != (set(INPUTS), [f"p_{name}" for name in tasks]):
            raise KitError(f"{graph}: not a graph for the tasks {', '.join(tasks)}; export the run again")
        self._pool: ThreadPoolExecutor | None = None
        self._opening = Lock()

    @property
    def origin(self) -> dict[str, str]:
        """As of `Engine`."""
        return {"library": f"onnxruntime {needed('onnxruntime').__version__}", "device": "cpu"}

    def predict(self, pairs: Iterable[TokenPair]) -> Iterator[Scored]:
        """Predict pairs in their order. Memory is bounded by the window, however many there are."""
        return in_windows(pairs, BATCH, self.window, self._score, self._shared_out)

    def _shared_out(
        self, score: Callable[[list[TokenPair]], Iterable[Scored]], batches: list[list[TokenPair]]
    ) -> Iterable[Iterable[Scored]]:
        if self.threads == 1 or len(batches) == 1:
            return map(score, batches)
        with self._opening:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="empathy-kit")
        return self._pool.map(score, batches)

    def _score(self, pairs: list[TokenPair]) -> list[Scored]:
        outputs = dict(zip(self._outputs, self._session.run(None, feed(pairs, self.pad_id)), strict=True))
        spans = outputs.get(EVIDENCE)
        return [
            Scored(
                {name: outputs[f"p_{name}"][row].astype(np.float64) for name in self.tasks},
                None if spans is None else spans[row, :, : len(pair.response)],
            )
            for row, pair in enumerate(pairs)
        ]


def feed(pairs: Sequence[TokenPair], pad_id: int) -> dict[str, NDArray[Any]]:
    """A batch as a graph takes it: both posts padded to the longest."""
    found: dict[str, NDArray[Any]] = {}
    for side, rows in (("seeker", [pair.seeker for pair in pairs]), ("response", [pair.response for pair in pairs])):
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, pad_id, np.int64)
        ids[mask] = np.concatenate(rows)
        found |= {side: ids, f"{side}_mask": mask}
    return found


def open_session(graph: Path | bytes) -> Any:
    """Onnxruntime's session on the CPU, which computes in the thread that calls it.

    Raises:
        KitError: onnxruntime is missing, or the file is no graph.
    """
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    if saturates(runtime):
        # Then int8 would give wrong numbers without an error. With this entry weights become uint8, which is right, and slower on
        # processors that do not need it.
        options.add_session_config_entry("session.x64quantprecision", "1")
    # Without session.set_denormal_as_zero, though it is faster: it changes the arithmetic of the whole thread that opens this.
    settings = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": ["SkipLayerNormFusion", "BiasGeluFusion"]}
    try:
        return runtime.InferenceSession(str(graph) if isinstance(graph, Path) else graph, options, **settings)
    except Exception as error:  # onnxruntime has a dozen classes
        what = graph if isinstance(graph, Path) else "the graph"
        raise KitError(f"{what}: onnxruntime {runtime.__version__} cannot open it: {_one_line(error)}") from None


def needed(module: str, *, extra: str = "light", purpose: str = "predict with exported models") -> Any:
    """A module of an extra.

    Raises:
        KitError: it is not installed.
    """
    # Since 1.32 onnxruntime reports its use to its makers, and keeps an identifier in the user's cache, unless this is set before
    # it is loaded. Nothing leaves the machine that the user did not send.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        return importlib.import_module(module)
    except ImportError:
        raise KitError(f"{module} is not installed: pip install 'empathy-kit[{extra}]' to {purpose}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class GraphTokenizer:
    """A fast tokenizer without transformers: it answers the calls that `Tokenization` makes, with the same ids."""

    def __init__(self, path: Path, pad_id: int) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises Exception itself
            raise KitError(f"{path}: not a tokenizer: {_one_line(error)}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # A post that reads "</s>" is text. Set once, because threads share the tokenizer: older versions of the library raise
        # "Already borrowed" where one thread sets what another reads with.
        self._tokenizer.encode_special_tokens = True
        self.pad_token_id = pad_id

    def __call__(
        self,
        texts: str | list[str],
        *,
        add_special_tokens: bool = True,
        **_: object,  # no truncation, no padding, offsets, no special tokens in a text: what is asked for is what it gives
    ) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": self._tokenizer.encode(texts, add_special_tokens=add_special_tokens).ids}
        coded = self._tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        return {"input_ids": [each.ids for each in coded], "offset_mapping": [each.offsets for each in coded]}


def open_export(folder: Path, *, threads: int | None = None) -> tuple[dict[str, Any], Tokenization, GraphEngine]:
    """An exported folder's description, what reads posts for it, and what computes; every byte compared with the manifest.

    Args:
        folder: what ``empathy-kit export`` wrote.
        threads: as of `GraphEngine`.

    Raises:
        KitError: a folder that was changed or is of another format, sizes that no export has, or no onnxruntime.
    """
    for name, most in MOST_BYTES.items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else -1
        if size < 0:
            raise KitError(f"{folder / name}: missing, expected an exported model; export the run again")
        if size > most:
            raise KitError(f"{folder / name}: {size:,} bytes found, expected at most {most:,}")
    record.verify(folder)
    description = _description(folder / EXPORT)
    tasks = Schema.from_dict(description["schema"]).names
    tokenizer = GraphTokenizer(folder / TOKENIZER, description["pad_id"])
    limits: tuple[int, Any] = (description["max_tokens"], description["truncate"])
    try:
        tokenization = Tokenization(tokenizer, *limits, seekers=description["posts"] == "both")
    except ValueError as error:
        raise KitError(f"{folder / EXPORT}: {error}") from None
    engine = GraphEngine(folder / GRAPH, tasks, pad_id=description["pad_id"], threads=threads)
    return description, tokenization, engine


def _description(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        told = found["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KitError(f"{path}: unreadable, expected the description of an exported model") from None
    if told != FORMAT:
        raise KitError(f"{path}: format {told!r} found, expected {FORMAT}; export the run again with this version of the kit")
    known: dict[str, bool] = {
        "schema": isinstance(found.get("schema"), dict | list),
        "pad_id": type(found.get("pad_id")) is int and 0 <= found["pad_id"] < 2**31,
        "max_tokens": type(found.get("max_tokens")) is int and 0 < found["max_tokens"] <= MOST_TOKENS,
        "truncate": found.get("truncate") in ("head", "head-tail"),
        "posts": found.get("posts") in ("both", "response"),
    }
    wrong = [name for name, right in known.items() if not right]
    if wrong:
        raise KitError(f"{path}: {wrong[0]} {str(found.get(wrong[0]))[:40]!r} found, which no export has; export the run again")
    return found
