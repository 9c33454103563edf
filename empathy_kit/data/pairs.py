"""The pair, and the corpus: what every reader produces and everything after it consumes."""

from __future__ import annotations

import hashlib
import html
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.entities import html5
from json.encoder import encode_basestring_ascii

from empathy_kit.data.schema import EPITOME, MISSING, Schema

# Entities end in a semicolon here: without it, html.unescape would also turn the "&not" of "this&nothing" into a sign.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def unescape(text: str) -> str:
    """Text with its HTML entities resolved once, as forums export them (``&gt;``, ``&amp;``, ``&#39;``)."""
    return _ENTITY.sub(_resolved, text) if "&" in text else text


def _resolved(entity: re.Match[str]) -> str:
    # html.unescape alone takes the longest known beginning, and would turn "&nothing;" into "\u00aching;".
    found = entity.group()
    return html.unescape(found) if found[1] == "#" or found[1:] in html5 else found


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a response's characters: ``response[start:end]``."""

    start: int
    end: int


def original_places(spans: Sequence[Span], text: str) -> tuple[Span, ...]:
    """Stretches of `unescape`'s text as stretches of the text that it was given; part of an entity is all of it."""
    places: list[tuple[int, int]] = []  # of each unescaped character
    at = 0
    for entity in _ENTITY.finditer(text):
        places += [(place, place + 1) for place in range(at, entity.start())]
        places += [entity.span()] * len(_resolved(entity))
        at = entity.end()
    places += [(place, place + 1) for place in range(at, len(text))]
    return tuple(Span(places[span.start][0], places[span.end - 1][1]) for span in spans)


@dataclass(frozen=True, slots=True)
class Pair:
    """A seeker post, a response post, and how empathic the response is. The texts never show in a repr."""

    row: int  # data row in its file, from 1; the header is not counted
    pair_id: str = field(repr=False)
    seeker_id: str = field(repr=False)
    seeker: str = field(repr=False)
    response: str = field(repr=False)
    levels: tuple[int, ...]  # one per task of the corpus' schema: a position in its labels, or MISSING
    spans: tuple[tuple[Span, ...], ...] = ()  # one tuple per task, into response
    unplaced: tuple[int, ...] = ()  # annotated spans that could not be found in response, per task

    def __post_init__(self) -> None:
        """Left out, spans and unplaced are those of a pair without annotated spans."""
        if not self.spans:
            object.__setattr__(self, "spans", ((),) * len(self.levels))
        if not self.unplaced:
            object.__setattr__(self, "unplaced", (0,) * len(self.levels))

    def annotated(self, task: int) -> bool:
        """Whether all evidence for this label is known: the lowest has none; above it every span must be placed."""
        return self.levels[task] == 0 or (self.levels[task] > 0 and bool(self.spans[task]) and not self.unplaced[task])


@dataclass(frozen=True)
class Placement:
    """How the annotated spans were found in the responses; row numbers, never text."""

    exact: int = 0
    whitespace: int = 0  # found once white space, case and the style of quotation marks and dashes were ignored
    fuzzy: int = 0  # found word by word
    lost: tuple[tuple[int, str], ...] = ()  # (row, task) of each span that was not found
    bare: tuple[tuple[int, str], ...] = ()  # (row, task) of each label above the lowest without a span, where spans are given
    unlabelled: int = 0  # spans of pairs whose label is missing: not looked for, not used

    @property
    def total(self) -> int:
        """All annotated spans of labelled pairs."""
        return self.exact + self.whitespace + self.fuzzy + len(self.lost)


@dataclass(frozen=True)
class Corpus:
    """All pairs of one source, in file order, with where they came from."""

    name: str
    pairs: tuple[Pair, ...] = field(repr=False)
    sources: dict[str, str]  # file name to sha256 of its bytes
    span_columns: dict[str, tuple[str, str]] = field(default_factory=dict)  # task to the file and column of its spans
    placement: Placement = Placement()
    schema: Schema = EPITOME
    columns_read: tuple[str, ...] = ()  # the optional columns that a table has
    columns_ignored: int = 0  # how many others it has

    def __len__(self) -> int:
        return len(self.pairs)

    def sha256(self) -> str:
        """A hash of everything that a run can see of the pairs, whatever files they came in.

        Titles and columns are not seen; EPITOME's own labels are left out, so that older records stay comparable.
        """
        digest = hashlib.sha256()
        seen = [[task.name, task.labels] for task in self.schema.tasks]
        if seen != [[task.name, task.labels] for task in EPITOME.tasks]:
            digest.update(json.dumps(seen).encode())
        for pair in self.pairs:
            spans = [[[span.start, span.end] for span in part] for part in pair.spans]
            texts = ", ".join(map(encode_basestring_ascii, (pair.seeker_id, pair.seeker, pair.response)))
            # As json.dumps has it, which would make an encoder for each pair: Python writes lists of numbers as JSON does.
            digest.update(f"[{texts}, {[*pair.levels]}, {spans}, {[*pair.unplaced]}]".encode())
        return digest.hexdigest()


def class_counts(pairs: Sequence[Pair], schema: Schema) -> dict[str, tuple[int, ...]]:
    """How many pairs have each label, per task; a missing label is counted nowhere."""
    counts: dict[str, tuple[int, ...]] = {}
    for index, task in enumerate(schema.tasks):
        found = Counter(pair.levels[index] for pair in pairs)
        counts[task.name] = tuple(found[level] for level in range(len(task.labels)))
    return counts


def labelled(pairs: Sequence[Pair], schema: Schema) -> dict[str, int]:
    """How many pairs have a label, per task."""
    return {name: sum(counts) for name, counts in class_counts(pairs, schema).items()}


_PLACEHOLDER = re.compile(
    r"[\[(<]?\s*(?:removed|deleted)(?:\s+by\s+(?:\w+\s*){1,2})?\s*[\])>]?|n/?a|nan|none|null|\\n|<na>", re.IGNORECASE
)
_NAMED = 5  # rows that a warning names; `data check` names all


def placeholders(pairs: Sequence[Pair]) -> tuple[tuple[int, str], ...]:
    """(row, column) of each placeholder in place of a post: ``[removed]``, ``[deleted]``, or a usual word for a missing value."""
    return tuple(
        (pair.row, column)
        for pair in pairs
        for column, post in (("seeker_post", pair.seeker), ("response_post", pair.response))
        if is_placeholder(post)
    )


def is_placeholder(post: str) -> bool:
    """Whether a post, its entities resolved, is one of these."""
    return len(post) < 100 and _PLACEHOLDER.fullmatch(post.strip()) is not None


@dataclass(frozen=True)
class Placeholders:
    """How many rows have a placeholder in place of a post, and the first of them."""

    count: int = 0
    first: tuple[int, ...] = ()

    def add(self, row: int) -> Placeholders:
        """Those of one more row; nothing grows with a table."""
        return Placeholders(self.count + 1, self.first if self.count >= _NAMED else (*self.first, row))

    @property
    def warning(self) -> str | None:
        """One line on them, None where there are none."""
        if not self.count:
            return None
        one, more = self.count == 1, self.count - len(self.first)
        rows = ", ".join(map(str, self.first)) + (f" and {more:,} more" if more else "")
        return (
            f"{self.count:,} {'row has' if one else 'rows have'} a placeholder such as [removed] or NA in place of a post "
            f"({'row' if one else 'rows'} {rows}), which is read as its text; leave {'it' if one else 'them'} out"
        )


def placeholder_rows(pairs: Sequence[Pair], *, seekers: bool = True) -> Placeholders:
    """The rows with a placeholder in place of a post; without ``seekers``, of a response."""
    found = Placeholders()
    for row in dict.fromkeys(row for row, column in placeholders(pairs) if seekers or column == "response_post"):
        found = found.add(row)
    return found


def letters(post: str) -> str:
    """What copies of one post share: letters and digits, without case, white space, punctuation, emoji and typography."""
    text = unicodedata.normalize("NFKC", post).casefold()
    return _NO_LETTERS.sub("" if text.isascii() else _marks, text) or text.strip()


_NO_LETTERS = re.compile(r"[\W_]+")


def _marks(between: re.Match[str]) -> str:
    """Of what the pattern takes for no letters, the signs that write vowels in many scripts, and accents that stand alone."""
    return "".join(sign for sign in between[0] if unicodedata.category(sign)[0] == "M" and not "\ufe00" <= sign <= "\ufe0f")


def same_words(text: str) -> bytes:
    """A key under which two posts are copies of one: a hash of their `letters`, much shorter than a post."""
    return hashlib.blake2b(letters(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class Duplicates:
    """Pairs that occur more than once (same words in both posts), each time labelled anew."""

    groups: int
    surplus: int  # rows beyond the first of each group
    agreement: dict[str, float]  # per task: share of the groups with two or more labels whose labels all agree
    conflicting: int  # groups that disagree on at least one task


def duplicates(corpus: Corpus) -> Duplicates:
    """The repeated pairs, and how well their labels agree."""
    groups: dict[tuple[bytes, bytes], list[Pair]] = defaultdict(list)
    for pair in corpus.pairs:
        groups[same_words(pair.seeker), same_words(pair.response)].append(pair)
    repeated = [group for group in groups.values() if len(group) > 1]
    judged: Counter[str] = Counter()
    agree: Counter[str] = Counter()
    conflicting = 0
    for group in repeated:
        conflicts = False
        for index, name in enumerate(corpus.schema.names):
            levels = [pair.levels[index] for pair in group if pair.levels[index] != MISSING]
            if len(levels) > 1:
                same = len(set(levels)) == 1
                judged[name] += 1
                agree[name] += same
                conflicts = conflicts or not same
        conflicting += conflicts
    return Duplicates(
        groups=len(repeated),
        surplus=sum(len(group) - 1 for group in repeated),
        agreement={name: agree[name] / judged[name] for name in corpus.schema.names if judged[name]},
        conflicting=conflicting,
    )
