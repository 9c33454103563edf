"""Token ids -> batches of like length. Labels are values of their own: no model can read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from empathy_kit.contracts import Texts
from empathy_kit.core.tokens import Labels, TokenPair


@dataclass(frozen=True)
class Examples:
    """A part's pairs: texts and labels, side by side and apart."""

    texts: tuple[TokenPair, ...] = field(repr=False)
    labels: tuple[Labels, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Sequence[int]) -> Examples:
        """The examples at these positions."""
        return Examples(tuple(self.texts[at] for at in positions), tuple(self.labels[at] for at in positions))

    def levels(self) -> Tensor:  # (N, T) int64
        """All labels, -1 where missing."""
        return torch.tensor([each.levels for each in self.labels], dtype=torch.int64)


@dataclass(frozen=True)
class Targets:
    """What a batch is to be compared with."""

    levels: Tensor  # (B, T) int64, -1 where missing
    gold: Tensor  # (B, T, L) bool: response tokens inside an annotated span
    gold_known: Tensor  # (B, T) bool
    complete: bool = False  # every label is known to be there: found out on the CPU, for a device would have to be waited for

    def to(self, device: torch.device) -> Targets:
        """The same on a device."""
        levels, gold, known = (part.to(device, non_blocking=True) for part in (self.levels, self.gold, self.gold_known))
        return replace(self, levels=levels, gold=gold, gold_known=known)


def collate_texts(pairs: Sequence[TokenPair], pad_id: int, pad_to: int | None = None) -> Texts:
    """Pad pairs to their own longest post, or all to one length."""
    return Texts(*pad([pair.seeker for pair in pairs], pad_id, pad_to), *pad([pair.response for pair in pairs], pad_id, pad_to))


def collate_targets(labels: Sequence[Labels], length: int) -> Targets:
    """The labels of a batch whose responses are padded to a length."""
    gold = torch.zeros(len(labels), len(labels[0].levels), length, dtype=torch.bool)
    for row, each in enumerate(labels):
        for task, positions in enumerate(each.gold):
            gold[row, task, list(positions)] = True
    return Targets(
        levels=torch.tensor([each.levels for each in labels], dtype=torch.int64),
        gold=gold,
        gold_known=torch.tensor([each.gold_known for each in labels]),
        complete=all(level >= 0 for each in labels for level in each.levels),
    )


def pad(rows: Sequence[Sequence[int]], pad_id: int, pad_to: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows -> ids (N, L) int64, padded on the right, and a mask (N, L) that is True at what is no padding."""
    lengths = [len(row) for row in rows]
    longest = pad_to or max(lengths)
    # One tensor of all rows: a tensor per row, as torch's own `pad_sequence` wants them, takes longer.
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows], dtype=torch.int64)
    return ids, torch.arange(longest) < torch.tensor(lengths)[:, None]


POOL = 8
"""Batches that are sorted by length together in training: enough to cut padding, few enough to keep batches mixed."""


def training_order(
    lengths: Sequence[int],
    sampled: Tensor,  # (M,) int64: positions in lengths, repeats allowed
    batch_size: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """One epoch's batches: shuffled, then like lengths together within each pool of ``POOL`` batches, pools' batches shuffled."""
    shuffled = sampled[torch.randperm(len(sampled), generator=generator)].tolist()
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), batch_size * POOL):
        pool = sorted(shuffled[start : start + batch_size * POOL], key=lambda index: lengths[index])
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
