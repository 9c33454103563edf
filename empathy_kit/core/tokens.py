"""Posts -> token ids, once. No torch is loaded here: a model that was exported reads posts by the same code."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from empathy_kit.core.batch import Examples

Truncate = Literal["head", "head-tail"]
_Coded = tuple[list[int], list[tuple[int, int]]]  # token ids, and each token's characters
CHUNK = 1024  # posts in one call of the tokenizer: its offsets take many times the memory of the ids that are kept


class Posts(Protocol):
    """What of a pair is read to predict."""

    @property
    def seeker(self) -> str: ...
    @property
    def response(self) -> str: ...


P = TypeVar("P", bound="Posts")


class LabelledPosts(Posts, Protocol):
    """What of a pair is read to train and to score."""

    @property
    def levels(self) -> tuple[int, ...]: ...
    @property
    def spans(self) -> tuple[tuple[Stretch, ...], ...]: ...
    def annotated(self, index: int) -> bool:
        """Whether all evidence for this task's label is known."""


class Stretch(Protocol):
    """Characters ``start:end`` of a response."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


@dataclass(frozen=True)
class TokenPair:
    """Both posts as token ids, special tokens included."""

    seeker: list[int] = field(repr=False)  # ids decode back to the post
    response: list[int] = field(repr=False)

    @property
    def tokens(self) -> int:
        """The length that padding and time depend on."""
        return len(self.seeker) + len(self.response)


@dataclass(frozen=True)
class Labels:
    """What one pair is to be compared with, one value per task."""

    levels: tuple[int, ...]  # positions in the task's labels; -1 where missing
    gold: tuple[tuple[int, ...], ...]  # positions in the response's tokens that are evidence
    gold_known: tuple[bool, ...]  # False where evidence exists that the annotation does not show, or the label is missing
    # Evidence as stretches of the whole response's tokens, start and end each, what is cut away included; and where the cut is:
    # from position cut[0] of the shown tokens on, a token is cut[1] places later in the whole response.
    evidence: tuple[tuple[tuple[int, int], ...], ...] = ()
    cut: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Read:
    """A pair to predict."""

    tokens: TokenPair
    places: list[tuple[int, int]] = field(repr=False)  # the response's characters of each of its tokens; (0, 0) where special
    cut: int  # position of the shown response's token before which others were cut away
    seeker_truncated: bool
    response_truncated: bool


@dataclass(frozen=True)
class Truncation:
    """What a length limit takes away, in pairs."""

    max_tokens: int
    seekers: int  # seeker posts that were cut
    responses: int  # responses that were cut
    evidence_lost: tuple[int, ...]  # per task: pairs with evidence all of which was cut away
    evidence: tuple[int, ...]  # per task: pairs with evidence


class Tokenization:
    """A fast tokenizer with a length limit: texts to ids, characters to tokens; without ``seekers``, their posts are empty."""

    def __init__(self, tokenizer: object, max_tokens: int, truncate: Truncate, *, seekers: bool = True) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.truncate = truncate
        self.seekers = seekers
        self.pad_id: int = getattr(tokenizer, "pad_token_id", None) or 0
        self._prefix, self._suffix = _special_tokens(tokenizer)
        self.empty: list[int] = [*self._prefix, *self._suffix] or [_any_special(tokenizer)]  # a post without words
        self._room = max_tokens - len(self._prefix) - len(self._suffix)
        if self._room < 2:
            raise ValueError(f"{max_tokens} tokens leave no room for text")

    def encode(self, posts: Iterable[Posts]) -> Iterator[TokenPair]:
        """Both posts of every pair as ids, in order; memory is bounded however many there are."""
        for _, (seeker, _), (response, _) in self._coded(posts):
            yield self._shown(seeker, response)

    def read(self, posts: Iterable[Posts]) -> Iterator[Read]:
        """The same, with where the response's tokens stand in it, and what was cut."""
        for _, (seeker, _), (response, offsets) in self._coded(posts):
            around = [(0, 0)] * len(self._prefix), [(0, 0)] * len(self._suffix)
            places = [*around[0], *(offsets[at] for at in self._kept(len(response))), *around[1]] or [(0, 0)]
            cut = (self.seekers and len(seeker) > self._room, len(response) > self._room)
            yield Read(self._shown(seeker, response), places, self._head(len(response)) + len(self._prefix), *cut)

    def labelled(
        self, pairs: Iterable[LabelledPosts], tasks: Sequence[int] | None = None
    ) -> Iterator[tuple[TokenPair, Labels, bool]]:
        """Posts as ids, apart from them their labels with the annotated spans placed on the response's tokens, pair by pair.

        Args:
            pairs: what to read.
            tasks: positions of the tasks to keep; all where None.

        Yields:
            ids, labels, and whether the seeker post was cut.
        """
        head = len(self._prefix)
        for pair, (seeker, _), (response, offsets) in self._coded(pairs):
            kept = range(len(pair.levels)) if tasks is None else tasks
            shown = self._kept(len(response))
            covered = [_covered(offsets, pair.spans[task]) for task in kept]
            whole = [set().union(*spans) for spans in covered]
            labels = Labels(
                levels=tuple(pair.levels[task] for task in kept),
                gold=tuple(tuple(head + new for new, old in enumerate(shown) if old in tokens) for tokens in whole),
                gold_known=tuple(pair.annotated(task) for task in kept),
                evidence=tuple(tuple((head + tokens[0], head + tokens[-1] + 1) for tokens in spans) for spans in covered),
                cut=(head + self._head(len(response)), len(response) - len(shown)),
            )
            yield self._shown(seeker, response), labels, len(seeker) > self._room

    def encode_labelled(self, pairs: Sequence[LabelledPosts], tasks: Sequence[int] | None = None) -> tuple[Examples, Truncation]:
        """All that `labelled` yields as one value to train on, and what the length limit takes away."""
        from empathy_kit.core.batch import Examples

        kept = range(len(pairs[0].levels) if pairs else 0) if tasks is None else tasks
        read = list(self.labelled(pairs, kept))
        labels = tuple(each for _, each, _ in read)
        truncation = Truncation(
            max_tokens=self.max_tokens,
            seekers=sum(cut for _, _, cut in read),
            responses=sum(each.cut[1] > 0 for each in labels),
            evidence_lost=tuple(sum(bool(each.evidence[at]) and not each.gold[at] for each in labels) for at in range(len(kept))),
            evidence=tuple(sum(bool(each.evidence[at]) for each in labels) for at in range(len(kept))),
        )
        return Examples(tuple(texts for texts, _, _ in read), labels), truncation

    def _coded(self, pairs: Iterable[P]) -> Iterator[tuple[P, _Coded, _Coded]]:
        waiting = iter(pairs)
        while chunk := list(itertools.islice(waiting, CHUNK)):
            sides = (self._call([pair.seeker for pair in chunk]), self._call([pair.response for pair in chunk]))
            yield from zip(chunk, *sides, strict=True)

    def _call(self, texts: list[str]) -> list[_Coded]:
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

    def _head(self, length: int) -> int:
        """How many tokens of a post are kept before the place where it is cut."""
        if length <= self._room:
            return length
        return self._room if self.truncate == "head" else self._room - self._room // 2

    def _kept(self, length: int) -> list[int]:
        head = self._head(length)
        return [*range(head), *range(max(head, length - (self._room - head)), length)]

    def _shown(self, seeker: list[int], response: list[int]) -> TokenPair:
        return TokenPair(self._shortened(seeker) if self.seekers else self.empty, self._shortened(response))

    def _shortened(self, ids: list[int]) -> list[int]:
        return [*self._prefix, *(ids[at] for at in self._kept(len(ids))), *self._suffix] or self.empty


def _any_special(tokenizer: object) -> int:
    """A token that stands for no text, of a tokenizer that adds none by itself: no post may be without a token."""
    found = (getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad"))
    return next((each for each in found if each is not None), 0)


def _special_tokens(tokenizer: object) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a single text: [CLS] and [SEP], or <s> and </s>."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    whole = tokenizer("a")["input_ids"]  # type: ignore[operator]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise ValueError(f"{type(tokenizer).__name__} changes a text's own tokens when it adds special ones")


def _covered(offsets: Sequence[tuple[int, int]], spans: Sequence[Stretch]) -> list[list[int]]:
    """Per span the tokens that share a character with it. A byte-level token's leading space counts as its own."""
    found = ([at for at, (start, end) in enumerate(offsets) if start < span.end and span.start < end] for span in spans)
    return [tokens for tokens in found if tokens]


def whole_stretches(shown: Iterable[tuple[int, int]], cut: tuple[int, int]) -> list[tuple[int, int]]:
    """Stretches of the shown tokens as stretches of the whole response's; one that crosses the cut becomes two."""
    place, missing = cut
    found = []
    for start, end in shown:
        if missing and start < place < end:
            found += [(start, place), (place + missing, end + missing)]
        else:
            moved = missing if start >= place else 0
            found.append((start + moved, end + moved))
    return found
