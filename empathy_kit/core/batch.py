"""Pairs -> token ids, once -> batches of like length. Labels travel apart from texts, so that no model can read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

import torch
from torch import Tensor

Truncate = Literal["head", "head-tail"]


class LabelledPair(Protocol):
    """What of a pair is read here."""

    @property
    def seeker(self) -> str: ...
    @property
    def response(self) -> str: ...
    @property
    def levels(self) -> tuple[int, ...]: ...
    @property
    def spans(self) -> tuple[tuple[Stretch, ...], ...]: ...
    def annotated(self, mechanism: int) -> bool:
        """Whether all evidence for this mechanism's level is known."""


class Stretch(Protocol):
    """Characters ``start:end`` of a response."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


@dataclass(frozen=True, repr=False)
class Texts:
    """A batch as the model sees it. Ids of padding are the tokenizer's pad id; padding is on the right."""

    seeker: Tensor  # (B, Ls) int64
    seeker_mask: Tensor  # (B, Ls) bool
    response: Tensor  # (B, L) int64
    response_mask: Tensor  # (B, L) bool

    def to(self, device: torch.device) -> Texts:
        """The same on a device."""
        return Texts(*(getattr(self, entry.name).to(device, non_blocking=True) for entry in fields(self)))

    def __len__(self) -> int:
        return len(self.seeker)


@dataclass(frozen=True)
class Targets:
    """What a batch is to be compared with."""

    levels: Tensor  # (B, T) int64
    gold: Tensor  # (B, T, L) bool: response tokens inside an annotated span
    gold_known: Tensor  # (B, T) bool: False where evidence exists that the annotation does not show

    def to(self, device: torch.device) -> Targets:
        """The same on a device."""
        return Targets(*(getattr(self, entry.name).to(device, non_blocking=True) for entry in fields(self)))


@dataclass(frozen=True)
class TokenPair:
    """One pair as token ids, special tokens included."""

    seeker: list[int] = field(repr=False)  # ids decode back to the post
    response: list[int] = field(repr=False)
    levels: tuple[int, ...]
    gold: tuple[tuple[int, ...], ...]  # a mechanism: positions in response that are evidence
    gold_known: tuple[bool, ...]

    @property
    def tokens(self) -> int:
        """The length that padding and time depend on."""
        return len(self.seeker) + len(self.response)


@dataclass(frozen=True)
class Truncation:
    """What a length limit takes away, in pairs."""

    max_tokens: int
    seekers: int  # seeker posts that were cut
    responses: int  # responses that were cut
    evidence_lost: tuple[int, ...]  # a mechanism: pairs above level 0 all of whose evidence was cut away
    evidence: tuple[int, ...]  # a mechanism: pairs above level 0 with evidence


class Tokenization:
    """A fast tokenizer with a length limit: texts to ids, characters to tokens."""

    def __init__(self, tokenizer: object, max_tokens: int, truncate: Truncate) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise TypeError(f"{type(tokenizer).__name__} is not a fast tokenizer; character offsets need one")
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.truncate = truncate
        self.pad_id: int = getattr(tokenizer, "pad_token_id", None) or 0
        self._prefix, self._suffix = _special_tokens(tokenizer)
        self.empty: list[int] = [*self._prefix, *self._suffix]  # a post without words
        self._room = max_tokens - len(self._prefix) - len(self._suffix)
        if self._room < 2:
            raise ValueError(f"{max_tokens} tokens leave no room for text")

    def encode(self, pairs: Sequence[LabelledPair]) -> tuple[list[TokenPair], Truncation]:
        """Tokenise each post once, and place the annotated spans on the response's tokens."""
        seekers = self._call([pair.seeker for pair in pairs])
        responses = self._call([pair.response for pair in pairs])
        tokens: list[TokenPair] = []
        cut_seekers = cut_responses = 0
        mechanisms = len(pairs[0].levels) if pairs else 0
        lost, evidence = [0] * mechanisms, [0] * mechanisms
        for pair, (seeker_ids, _), (response_ids, offsets) in zip(pairs, seekers, responses, strict=True):
            cut_seekers += len(seeker_ids) > self._room
            cut_responses += len(response_ids) > self._room
            kept = self._kept(len(response_ids))
            gold: list[tuple[int, ...]] = []
            for index, spans in enumerate(pair.spans):
                whole = _covered(offsets, spans)
                visible = tuple(len(self._prefix) + place for place, old in enumerate(kept) if old in whole)
                gold.append(visible)
                evidence[index] += bool(whole)
                lost[index] += bool(whole) and not visible
            tokens.append(
                TokenPair(
                    seeker=self._wrap([seeker_ids[old] for old in self._kept(len(seeker_ids))]),
                    response=self._wrap([response_ids[old] for old in kept]),
                    levels=pair.levels,
                    gold=tuple(gold),
                    gold_known=tuple(pair.annotated(index) for index in range(mechanisms)),
                )
            )
        return tokens, Truncation(self.max_tokens, cut_seekers, cut_responses, tuple(lost), tuple(evidence))

    def _call(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        if not texts:
            return []
        # No truncation here: "head-tail" must see the whole post. verbose=False: the warning about long posts is answered.
        # split_special_tokens: a post that reads "</s>" or "[PAD]" is text, not the end of a post or padding inside it.
        coded = self._tokenizer(  # type: ignore[operator]
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            truncation=False,
            padding=False,
            verbose=False,
        )
        return list(zip(coded["input_ids"], coded["offset_mapping"], strict=True))

    def _kept(self, length: int) -> list[int]:
        if length <= self._room:
            return list(range(length))
        head = self._room if self.truncate == "head" else self._room - self._room // 2
        return [*range(head), *range(length - (self._room - head), length)]

    def _wrap(self, ids: list[int]) -> list[int]:
        return [*self._prefix, *ids, *self._suffix]


def _special_tokens(tokenizer: object) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a single text: [CLS] and [SEP], or <s> and </s>."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    whole = tokenizer("a")["input_ids"]  # type: ignore[operator]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise ValueError(f"{type(tokenizer).__name__} changes a text's own tokens when it adds special ones")


def _covered(offsets: Sequence[tuple[int, int]], spans: Sequence[Stretch]) -> set[int]:
    """Tokens that share at least one character with a span. A byte-level token's leading space counts as its own."""
    return {index for index, (start, end) in enumerate(offsets) if any(start < span.end and span.start < end for span in spans)}


def collate(pairs: Sequence[TokenPair], pad_id: int, pad_to: int | None = None) -> tuple[Texts, Targets]:
    """Pad pairs to their own longest post, or all to one length."""
    seeker, seeker_mask = _pad([pair.seeker for pair in pairs], pad_id, pad_to)
    response, response_mask = _pad([pair.response for pair in pairs], pad_id, pad_to)
    mechanisms = len(pairs[0].levels)
    gold = torch.zeros(len(pairs), mechanisms, response.shape[1], dtype=torch.bool)
    for row, pair in enumerate(pairs):
        for mechanism, positions in enumerate(pair.gold):
            gold[row, mechanism, list(positions)] = True
    return (
        Texts(seeker, seeker_mask, response, response_mask),
        Targets(
            levels=torch.tensor([pair.levels for pair in pairs]),
            gold=gold,
            gold_known=torch.tensor([pair.gold_known for pair in pairs]),
        ),
    )


def _pad(rows: Sequence[list[int]], pad_id: int, pad_to: int | None) -> tuple[Tensor, Tensor]:
    longest = pad_to or max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = True
    return ids, mask


POOL = 8
"""Batches that are sorted by length together in training: enough to cut padding, few enough to keep batches mixed."""


def training_order(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """One epoch's batches: shuffled, then like lengths together within each pool of ``POOL`` batches, pools' batches shuffled."""
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), batch_size * POOL):
        pool = sorted(shuffled[start : start + batch_size * POOL], key=lambda index: lengths[index])
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def inference_order(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of like length, longest first: what does not fit into memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return (order[at : at + batch_size] for at in range(0, len(order), batch_size))
