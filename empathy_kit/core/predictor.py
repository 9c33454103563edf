"""A model that predicts: no labels, no losses, nothing that training needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from empathy_kit.core.batch import TokenPair, collate_texts, inference_order
from empathy_kit.core.metrics import Floats
from empathy_kit.core.model import Model, Output
from empathy_kit.core.precision import Precision, autocast, check_precision

WINDOW = 4096
"""Pairs that are read ahead, so that posts of like length share a batch: all that a stream keeps in memory."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one pair."""

    probabilities: dict[str, Floats]  # task to (C,) float64, sums to 1
    evidence: NDArray[np.float32] | None = field(repr=False)
    """(T, L): the probability that each response token is evidence for each task; None without a span head."""


class Predictor:
    """A model on one device at one precision. Several may live in one process, and several threads may share one."""

    def __init__(
        self,
        model: Model,
        *,
        pad_id: int,
        device: torch.device | str = "cpu",
        precision: Precision = "no",
        batch_size: int = 64,
        window: int = WINDOW,
    ) -> None:
        """Take a model over: it is moved to the device and put into evaluation mode, once.

        Raises:
            KitError: the device does not compute in this precision.
        """
        self.device = torch.device(device)
        check_precision(self.device, precision)
        self.model = model.to(self.device).eval()
        self.pad_id = pad_id
        self.precision = precision
        self.batch_size = batch_size
        self.window = window

    def predict(self, pairs: Iterable[TokenPair]) -> Iterator[Prediction]:
        """Predict pairs in their order. Memory is bounded by the window, however many there are."""
        waiting = iter(pairs)
        while chunk := list(itertools.islice(waiting, self.window)):
            yield from self._predict(chunk)

    def _predict(self, pairs: Sequence[TokenPair]) -> list[Prediction]:
        found: dict[int, Prediction] = {}
        for batch in inference_order([pair.tokens for pair in pairs], self.batch_size):
            texts = collate_texts([pairs[index] for index in batch], self.pad_id).to(self.device)
            with torch.inference_mode():
                with autocast(self.device, self.precision):
                    output: Output = self.model(texts)
                probabilities = {
                    name: head.probabilities(output.logits[name]).float().cpu().double().numpy()  # type: ignore[operator]
                    for name, head in self.model.heads.items()
                }
                spans = None if output.span_logits is None else output.span_logits.float().sigmoid().cpu().numpy()
            for row, place in enumerate(batch):
                evidence = None if spans is None else spans[row, :, : len(pairs[place].response)]
                found[place] = Prediction({name: rows[row] for name, rows in probabilities.items()}, evidence)
        return [found[place] for place in range(len(pairs))]
