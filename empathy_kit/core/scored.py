"""What a model returns for one pair, and the batches that pairs go through it in. No torch is loaded here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from empathy_kit.core.metrics import Floats
from empathy_kit.core.tokens import TokenPair
from empathy_kit.errors import NotFinite

WINDOW = 4096
"""Pairs that are read ahead, so that posts of like length share a batch: all that a stream keeps in memory."""

MEND = "the model or a plugin is at fault; after --precision fp16 try --device cpu, otherwise train it again"
"""What to do where a trained model's probabilities are no numbers: on a CPU, one that was trained in fp16 predicts in float32."""


def refuse_not_finite(task: str, rows: Floats, to_do: str) -> None:  # (N, C)
    """Check a task's probabilities of N pairs.

    Raises:
        NotFinite: a pair's are no finite numbers.
    """
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise NotFinite(task, int((~finite).sum()), len(rows), int(finite.argmin()), to_do)


@dataclass(frozen=True)
class Scored:
    """What a model returns for one pair."""

    probabilities: dict[str, Floats]  # task to (C,) float64, sums to 1
    evidence: NDArray[np.float32] | None = field(repr=False)
    """(T, L): the probability that each response token is evidence for each task; None without a span head."""


class Engine(Protocol):
    """What computes: the model in torch, or an exported graph."""

    @property
    def origin(self) -> dict[str, str]:
        """What the numbers depend on in addition to the model: the "library" with its version, and the kind of "device"."""

    def predict(self, pairs: Iterable[TokenPair]) -> Iterator[Scored]:
        """Predict pairs in their order, with bounded memory."""


Score = Callable[[list[TokenPair]], Iterable[Scored]]


def in_windows(
    pairs: Iterable[TokenPair],
    batch_size: int,
    window: int,
    score: Score,
    run: Callable[[Score, list[list[TokenPair]]], Iterable[Iterable[Scored]]] = map,
) -> Iterator[Scored]:
    """Score pairs in batches of like length, and return them in their order.

    Args:
        pairs: what to score.
        batch_size: pairs per batch.
        window: pairs that are read ahead.
        score: scores one batch.
        run: applies ``score`` to batches, one after the other or several at once, and returns the results in order.

    Raises:
        NotFinite: probabilities that are no numbers; the position is that among the pairs that were read ahead together.
    """
    waiting = iter(pairs)
    while chunk := list(itertools.islice(waiting, window)):
        batches = list(inference_order([pair.tokens for pair in chunk], batch_size))
        found: dict[int, Scored] = {}
        for batch, scored in zip(batches, run(score, [[chunk[at] for at in batch] for batch in batches]), strict=True):
            found.update(zip(batch, scored, strict=True))
        scores = [found[at] for at in range(len(chunk))]
        for name in scores[0].probabilities:
            rows = np.concatenate([each.probabilities[name] for each in scores]).reshape(len(scores), -1)
            refuse_not_finite(name, rows, MEND)
        yield from scores


def inference_order(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of like length, longest first: what does not fit into memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return (order[at : at + batch_size] for at in range(0, len(order), batch_size))
