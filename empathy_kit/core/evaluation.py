"""Labelled pairs through a model: probabilities, the mean loss, predicted spans."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from empathy_kit.contracts import GoldAccess
from empathy_kit.core.batch import Examples, collate_targets, collate_texts
from empathy_kit.core.metrics import Floats
from empathy_kit.core.model import Model, Output
from empathy_kit.core.objective import Objective
from empathy_kit.core.precision import Precision, autocast
from empathy_kit.core.processes import Processes
from empathy_kit.core.scored import inference_order, refuse_not_finite


@dataclass(frozen=True)
class Evaluation:
    """What the model predicts for N pairs, in their order."""

    probabilities: dict[str, Floats]  # task to (N, C)
    loss: float  # the sum over tasks of the mean over labelled pairs, the span loss left out
    spans: list[NDArray[np.bool_]] | None  # per pair (T, tokens of its response); None without a span head
    seconds: float  # that it took

    def levels(self) -> dict[str, NDArray[np.int64]]:
        """The likeliest level, (N,) per task."""
        return {name: rows.argmax(1) for name, rows in self.probabilities.items()}


def evaluate(
    model: Model,
    objective: Objective,
    examples: Examples,
    *,
    pad_id: int,
    gold: GoldAccess,
    device: torch.device,
    precision: Precision = "no",
    pad_to: int | None = None,
    batch_size: int = 64,
    processes: Processes | None = None,
) -> Evaluation:
    """Evaluate without gradient, dropout or randomness; the answer does not depend on the order of the pairs.

    Several processes share the batches, and each gets the whole answer, with the same bits as one process's.

    Only an oracle's injector (gold "always") is shown the annotated spans here.
    """
    started = time.perf_counter()
    model.eval()
    objective.eval()
    pairs = len(examples)
    probabilities: dict[str, list[Tensor]] = {name: [torch.empty(0)] * pairs for name in model.heads}
    spans: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)] * pairs
    processes = processes or Processes()
    has_spans = False
    labelled = (examples.levels() >= 0).sum(0).tolist() if pairs else []
    # A pair counts as much as its task's labelled pairs are few: 1 where none is missing.
    weights = {name: pairs / known for name, known in zip(objective.criteria, labelled, strict=False) if known}
    batches = list(inference_order([pair.tokens for pair in examples.texts], batch_size))
    losses = torch.zeros(len(batches), len(objective.criteria), dtype=torch.float64)
    for at in processes.share(len(batches)):
        batch = batches[at]
        part = examples.take(batch)
        texts = collate_texts(part.texts, pad_id, pad_to).to(device)
        targets = collate_targets(part.labels, texts.response.shape[1]).to(device)
        with torch.inference_mode():
            with autocast(device, precision):
                output: Output = model(texts, targets.gold if gold == "always" else None)
            for name, head in model.heads.items():
                # Of a copy, and before the losses: what writes into its logits would change the loss that is reported, or put
                # labels into the probabilities. These are copied too: a head may fill the same tensor again for the next batch.
                shares = head.probabilities(output.logits[name].clone())  # type: ignore[operator]
                shares = shares.to("cpu", torch.float32, copy=True)
                for place, row in zip(batch, shares, strict=True):
                    probabilities[name][place] = row
            sums = objective.sums(output, targets)
            for task, name in enumerate(objective.criteria):
                losses[at, task] = sums.get(name, 0.0) * weights.get(name, 0.0)
        if output.span_logits is not None:
            has_spans = True
            marked = (output.span_logits > 0).cpu().numpy()
            for place, row in zip(batch, marked, strict=True):
                spans[place] = row[:, : len(examples.texts[place].response)]
    if processes.count > 1 and pairs:
        losses = processes.sum(losses)
        probabilities, has_spans, spans = _gathered(processes, examples, probabilities, spans if has_spans else None)
    found = {name: torch.stack(rows).double().numpy() for name, rows in probabilities.items() if rows}
    for name, rows in found.items():
        refuse_not_finite(name, rows, "try a smaller learning rate or another loss")
    return Evaluation(
        probabilities=found,
        loss=sum(losses.flatten().tolist()) / pairs if pairs else 0.0,
        spans=spans if has_spans else None,
        seconds=time.perf_counter() - started,
    )


def _gathered(
    processes: Processes,
    examples: Examples,
    probabilities: dict[str, list[Tensor]],  # per pair (C,), or (0,) where another process has it
    spans: list[NDArray[np.bool_]] | None,
) -> tuple[dict[str, list[Tensor]], bool, list[NDArray[np.bool_]]]:
    """What every process has found, for all pairs, and whether there are spans."""
    pairs, tasks = len(examples), len(examples.labels[0].levels)
    # A process without a batch does not know how many classes there are.
    found = [max(map(len, rows)) for rows in probabilities.values()]
    *classes, has_spans = processes.largest([*found, spans is not None])
    gathered = {}
    for (name, rows), width in zip(probabilities.items(), classes, strict=True):
        table = torch.zeros(pairs, width)
        for place, row in enumerate(rows):
            table[place, : len(row)] = row
        gathered[name] = list(processes.sum(table))  # all but one are 0, so that the sum is exact
    if not has_spans:
        return gathered, False, []
    lengths = [len(pair.response) for pair in examples.texts]
    marked = torch.zeros(pairs, tasks, max(lengths), dtype=torch.uint8)
    for place, mine in enumerate(spans or ()):
        if mine.size:
            marked[place, :, : lengths[place]] = torch.from_numpy(mine)
    every = processes.sum(marked).bool().numpy()
    return gathered, True, [every[place, :, :length] for place, length in enumerate(lengths)]
