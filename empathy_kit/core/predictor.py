"""A model that predicts: no labels, no losses, nothing that training needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from empathy_kit.core.batch import collate_texts
from empathy_kit.core.model import Model, Output
from empathy_kit.core.precision import Precision, autocast, check_precision
from empathy_kit.core.scored import WINDOW, Scored, in_windows
from empathy_kit.core.tokens import TokenPair


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

    @property
    def origin(self) -> dict[str, str]:
        """As of `Engine`."""
        return {"library": f"torch {torch.__version__}", "device": self.device.type}

    def predict(self, pairs: Iterable[TokenPair]) -> Iterator[Scored]:
        """Predict pairs in their order. Memory is bounded by the window, however many there are."""
        return in_windows(pairs, self.batch_size, self.window, self._score)

    def _score(self, pairs: Sequence[TokenPair]) -> Iterator[Scored]:
        texts = collate_texts(pairs, self.pad_id).to(self.device)
        with torch.inference_mode():
            with autocast(self.device, self.precision):
                output: Output = self.model(texts)
            probabilities = {
                name: head.probabilities(output.logits[name]).float().cpu().double().numpy()  # type: ignore[operator]
                for name, head in self.model.heads.items()
            }
            spans = None if output.span_logits is None else output.span_logits.float().sigmoid().cpu().numpy()
        for row, pair in enumerate(pairs):
            evidence = None if spans is None else spans[row, :, : len(pair.response)]
            yield Scored({name: rows[row] for name, rows in probabilities.items()}, evidence)
