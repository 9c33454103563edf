"""What training minimises: the losses of all tasks, over labelled pairs only, and the span loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empathy_kit.core import kernels
from empathy_kit.core.batch import Targets
from empathy_kit.core.losses.focal import focal_heads, in_one_call, is_focal
from empathy_kit.core.losses.probe import probe
from empathy_kit.core.model import Output, named
from empathy_kit.core.tokens import Labels, TokenPair
from empathy_kit.errors import KitError

Criterion = Callable[[Tensor, Tensor], Tensor]  # (N, C) float32, (N,) int64 -> (N,) float32


@dataclass(frozen=True)
class Counts:
    """What the means of a whole batch are taken over, for a process that has a share of it."""

    labelled: tuple[int, ...]  # pairs, per task
    tokens: int  # of responses, each once per task whose evidence is known

    @classmethod
    def of(cls, texts: Sequence[TokenPair], labels: Sequence[Labels]) -> Counts:
        """Count a batch."""
        labelled = tuple(sum(level >= 0 for level in levels) for levels in zip(*(each.levels for each in labels), strict=True))
        tokens = sum(len(pair.response) * sum(each.gold_known) for pair, each in zip(texts, labels, strict=True))
        return cls(labelled, tokens)


class Objective(nn.Module):
    """The sum over tasks of their mean losses, plus the weighted span loss.

    Losses that learn are its submodules: they are trained, moved, put into evaluation mode and saved with it.
    """

    def __init__(
        self, criteria: Mapping[str, Criterion], *, rationale_weight: float = 0.0, fused: kernels.Choice = "auto"
    ) -> None:
        super().__init__()
        self.criteria = dict(criteria)
        self.losses = named({name: loss for name, loss in criteria.items() if isinstance(loss, nn.Module)})
        self.rationale_weight = rationale_weight
        self.fused = fused

    def forward(
        self,
        output: Output,
        targets: Targets,
        mask: Tensor,  # (B, L) bool: the response's real tokens
        whole: Counts | None = None,
    ) -> Tensor:  # () float32
        """The loss of a batch, or of a share of the ``whole`` batch: the sum over all shares is then the batch's loss."""
        total = torch.zeros((), device=targets.levels.device)
        with kernels.fused(self.fused):
            together = one_launch(self.criteria, output.logits) if _complete(targets) else None
            if together is not None:
                gammas, weights = together
                losses = focal_heads(torch.stack(list(output.logits.values()), 1), targets.levels, gammas, weights)  # (B, T)
                total = losses.mean(0).sum() if whole is None else (losses.sum(0) / losses.new_tensor(whole.labelled)).sum()
            else:
                counts = None if whole is None else dict(zip(self.criteria, whole.labelled, strict=True))
                for name, criterion, logits, levels in self._labelled(output, targets):
                    mean = criterion.mean(logits, levels) if is_focal(criterion) else criterion(logits, levels).mean()
                    total = total + (mean if counts is None else mean * (len(levels) / counts[name]))
        if output.span_logits is not None and self.rationale_weight:
            tokens = None if whole is None else whole.tokens
            total = total + self.rationale_weight * span_loss(output.span_logits.float(), targets, mask, tokens)
        return total

    def sums(self, output: Output, targets: Targets) -> dict[str, float]:
        """Per task with a labelled pair in the batch, the sum of its losses."""
        with kernels.fused(self.fused):
            parts = self._labelled(output, targets)
            return {name: float(criterion(logits, levels).sum()) for name, criterion, logits, levels in parts}

    def status(
        self,
        device: torch.device,
        classes: Mapping[str, int],  # per task, of its logits
    ) -> str:
        """Which way the losses are computed on a device, and why. Each is called once to find out.

        Raises:
            KitError: fused kernels are required, and none can be used, or a loss does not use them.
        """
        with kernels.fused(self.fused):
            used = {name: probe(criterion, classes[name], device) for name, criterion in self.criteria.items()}
            status = kernels.status(device)
            kernel = kernels.current(torch.empty(0, 2, device=device))
        others = ", ".join(name for name, use in used.items() if not use.calls or (kernel and use.fused < use.calls))
        if self.fused == "on":
            found = kernels.find(device)
            if isinstance(found, str):
                raise KitError(f"fused on: no fused kernel for {device.type}: {found}; expected one, or auto")
            if others:
                raise KitError(f"fused on: the loss of {others} does not use the kit's kernels; expected auto")
        if others == ", ".join(used):
            return "their own code"
        return f"{status}; {others} by their own code" if others else status

    def _labelled(self, output: Output, targets: Targets) -> Iterator[tuple[str, Criterion, Tensor, Tensor]]:
        """Per task its criterion, and the logits and targets of its labelled pairs; tasks without any are left out."""
        complete = _complete(targets)
        for index, (name, criterion) in enumerate(self.criteria.items()):
            logits, levels = output.logits[name], targets.levels[:, index]
            if not complete:
                known = levels >= 0
                if not known.all():
                    logits, levels = logits[known], levels[known]
            if len(levels):
                yield name, criterion if is_focal(criterion) else _Checked(name, criterion), logits, levels


def _complete(targets: Targets) -> bool:
    """Whether no label is missing; on a GPU, to look at the labels would be to wait for all that it has still to do."""
    return targets.complete or not bool((targets.levels < 0).any())


class _Checked:
    """A third party's criterion, held to one value per item."""

    def __init__(self, name: str, criterion: Criterion) -> None:
        self.name, self.criterion = name, criterion

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        losses = self.criterion(logits, target)
        found, expected = getattr(losses, "shape", None), (len(target),)
        if found != expected:
            what = type(losses).__name__ if found is None else f"shape {tuple(found)}"
            raise KitError(f"loss of {self.name}: {what} found, expected one value per pair, shape {expected}")
        return losses


def one_launch(criteria: Mapping[str, Criterion], logits: Mapping[str, Tensor]) -> tuple[list[float], list[Tensor | None]] | None:
    """Gammas and weights, where one launch of a kernel can compute all tasks' losses."""
    losses = [criterion for criterion in criteria.values() if is_focal(criterion)]
    shapes = {rows.shape for rows in logits.values()}
    if len(losses) < len(criteria) or len(shapes) > 1 or not all(in_one_call(rows) for rows in logits.values()):
        return None
    return [loss.gamma for loss in losses], [loss.weight for loss in losses]


def span_loss(
    span_logits: Tensor,  # (B, T, L) float32
    targets: Targets,
    mask: Tensor,  # (B, L) bool
    tokens: int | None = None,
) -> Tensor:  # () float32
    """Mean binary cross-entropy over the response tokens of the tasks whose evidence is known.

    The mean is taken over the batch's own tokens, or, for a share of a batch, over as many as the whole batch has.
    """
    counted = targets.gold_known[..., None] & mask[:, None]  # (B, T, L)
    losses = F.binary_cross_entropy_with_logits(span_logits, targets.gold.float(), reduction="none")
    # where(), not a product: nothing that a padding position holds can reach the sum.
    return torch.where(counted, losses, 0.0).sum() / (counted.sum().clamp(min=1) if tokens is None else max(tokens, 1))
