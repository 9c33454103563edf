"""The pair, and the corpus: what every reader produces and everything after it consumes."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

MECHANISMS = ("ER", "EX", "IP")
MECHANISM_TITLES = {"ER": "emotional reactions", "EX": "explorations", "IP": "interpretations"}
LEVELS = ("0", "1", "2")

# Entities end in a semicolon here: without it, html.unescape would also turn the "&not" of "this&nothing" into a sign.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def unescape(text: str) -> str:
    """Text with its HTML entities resolved once, as forums export them (``&gt;``, ``&amp;``, ``&#39;``)."""
    return _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)


@dataclass(frozen=True)
class Span:
    """A stretch of a response's characters: ``response[start:end]``."""

    start: int
    end: int


@dataclass(frozen=True)
class Pair:
    """A seeker post, a response post, and how empathic the response is. The texts never show in a repr."""

    row: int  # data row in its file, from 1; the header is not counted
    pair_id: str = field(repr=False)
    seeker_id: str = field(repr=False)
    seeker: str = field(repr=False)
    response: str = field(repr=False)
    levels: tuple[int, ...]  # one a mechanism, in the order of MECHANISMS
    spans: tuple[tuple[Span, ...], ...] = ((), (), ())  # one tuple a mechanism, into response
    unplaced: tuple[int, ...] = (0, 0, 0)  # annotated spans that could not be found in response, a mechanism

    def annotated(self, mechanism: int) -> bool:
        """Whether all evidence for this level is known: level 0 has none; above it every span must be placed."""
        return self.levels[mechanism] == 0 or (bool(self.spans[mechanism]) and not self.unplaced[mechanism])


@dataclass(frozen=True)
class Placement:
    """How the annotated spans were found in the responses; row numbers, never text."""

    exact: int = 0
    whitespace: int = 0  # found once white space and case were ignored
    fuzzy: int = 0  # found word by word
    lost: tuple[tuple[int, str], ...] = ()  # (row, mechanism) of each span that was not found
    bare: tuple[tuple[int, str], ...] = ()  # (row, mechanism) of each level above 0 that has no span

    @property
    def total(self) -> int:
        """All annotated spans."""
        return self.exact + self.whitespace + self.fuzzy + len(self.lost)


@dataclass(frozen=True)
class Corpus:
    """All pairs of one source, in file order, with where they came from."""

    name: str
    pairs: tuple[Pair, ...] = field(repr=False)
    sources: dict[str, str]  # file name to sha256 of its bytes
    span_columns: dict[str, tuple[str, str]] = field(default_factory=dict)  # mechanism to the file and column of its spans
    placement: Placement = Placement()

    def __len__(self) -> int:
        return len(self.pairs)

    def sha256(self) -> str:
        """A hash of everything that a run can see of the pairs, whatever files they came in."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            spans = [[(span.start, span.end) for span in part] for part in pair.spans]
            digest.update(json.dumps([pair.seeker_id, pair.seeker, pair.response, pair.levels, spans, pair.unplaced]).encode())
        return digest.hexdigest()


def class_counts(pairs: tuple[Pair, ...] | list[Pair]) -> dict[str, tuple[int, ...]]:
    """How many pairs have each level, a mechanism."""
    return {
        name: tuple(sum(pair.levels[index] == level for pair in pairs) for level in range(len(LEVELS)))
        for index, name in enumerate(MECHANISMS)
    }


def same_words(text: str) -> str:
    """A key under which two posts are duplicates: case and white space do not count."""
    return " ".join(text.lower().split())


@dataclass(frozen=True)
class Duplicates:
    """Pairs that occur more than once (same words in both posts), each time labelled anew."""

    groups: int
    surplus: int  # rows beyond the first of each group
    agreement: dict[str, float]  # share of the groups whose labels all agree, a mechanism
    conflicting: int  # groups that disagree on at least one mechanism


def duplicates(corpus: Corpus) -> Duplicates:
    """The repeated pairs, and how well their labels agree: a ceiling for any model."""
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in corpus.pairs:
        groups[same_words(pair.seeker), same_words(pair.response)].append(pair)
    repeated = [group for group in groups.values() if len(group) > 1]
    agree: Counter[str] = Counter()
    conflicting = 0
    for group in repeated:
        same = [len({pair.levels[index] for pair in group}) == 1 for index in range(len(MECHANISMS))]
        agree.update(name for name, equal in zip(MECHANISMS, same, strict=True) if equal)
        conflicting += not all(same)
    return Duplicates(
        groups=len(repeated),
        surplus=sum(len(group) - 1 for group in repeated),
        agreement={name: agree[name] / len(repeated) for name in MECHANISMS} if repeated else {},
        conflicting=conflicting,
    )
