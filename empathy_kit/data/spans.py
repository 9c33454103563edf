"""Where annotated spans lie in their response: exactly, or up to white space and case, or word by word; never by regex."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from itertools import islice
from typing import Literal

from empathy_kit.data.pairs import Placement, Span, unescape
from empathy_kit.data.schema import MISSING

How = Literal["exact", "whitespace", "fuzzy"]

# Invisible characters that copies of one post gain or lose: zero-width spaces and joiners, the BOM, the replacement sign.
_INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\ufffd\u00ad")
# Signs that editors put in place of a keyboard's, one for one. Ellipses and full-width letters are what NFKD makes of them.
_APOSTROPHES = "\u2018\u2019\u201a\u201b\u02bc\u02b9\u2032\u00b4"
_STYLES = str.maketrans(
    dict.fromkeys(_APOSTROPHES, "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
)
_WORD = re.compile(rf"\w+(?:['{_APOSTROPHES}]\w+)*")
_WORDS_FOUND = 0.8  # share of a span's words that a fuzzy match must hold, in order
_WINDOW = 1.3  # how many times longer than its span a fuzzy match may be, in words
# Limits before work: what follows is quadratic or cubic in the worst case, and no real quote comes near.
_HITS = 1_000  # places of one quote that are looked at
_EFFORT = 30_000  # pairs of equal words that a fuzzy search may weigh
_LONGEST = 500  # words of a quote that is searched word by word


class Response:
    """A response that quotes are looked for in; what several quotes need is computed once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def squeezed(self) -> tuple[str, list[int]]:
        """The text without white space, case and invisible characters, and where each of its characters stood."""
        return _squeeze(self.text, str.casefold)

    @cached_property
    def plain(self) -> tuple[str, list[int]]:
        """The squeezed text with the signs of a keyboard in place of typographic ones."""
        return _squeeze(self.text, _plain)

    @cached_property
    def typed(self) -> str:
        """The text with the apostrophes, quotation marks and dashes of a keyboard, each character in its place."""
        return self.text.translate(_STYLES)

    @cached_property
    def words(self) -> tuple[list[Span], list[str], Counter[str]]:
        """Where the words stand, the words, and how often each occurs."""
        places = [Span(*match.span()) for match in _WORD.finditer(self.text)]
        words = [_plain(self.text[span.start : span.end]) for span in places]
        return places, words, Counter(words)

    def place(self, quote: str, taken: Sequence[Span] = ()) -> tuple[Span, How] | None:
        """Find an annotated quote, preferring a place that is not taken yet.

        Args:
            quote: the annotation, as its author copied it.
            taken: spans of the same task that were placed before: a quote given twice is found twice.
        """
        # Unchanged too, or "&lt;" is not found in a response whose author meant to show an entity.
        readings = dict.fromkeys((unescape(quote).strip(), quote.strip()))

        def exact(reading: str) -> Iterator[Span]:
            return _find_all(self.text, reading)

        def loose(reading: str) -> Iterator[Span]:
            return _mapped(self.squeezed, _squeeze(reading, str.casefold)[0])

        def styled(reading: str) -> Iterator[Span]:
            if self.text.isascii() and reading.isascii():
                return iter(())  # nothing that `loose` did not find
            return _mapped(self.plain, _squeeze(reading, _plain)[0])

        def typed(reading: str) -> Iterator[Span]:
            if self.text.isascii() and reading.isascii():
                return iter(())  # nothing that `exact` did not find
            return _find_all(self.typed, reading.translate(_STYLES))

        # Whole words first, or "so" is found in "also". Half words as a last resort: annotators do cut words.
        ways: tuple[tuple[How, Callable[[str], Iterator[Span]], bool], ...] = (
            ("exact", exact, True),
            ("whitespace", loose, True),
            ("whitespace", styled, True),
            ("exact", exact, False),
            ("whitespace", typed, False),  # with its white space, or "I am" is found in "Hi amazing"
        )
        for how, find, whole in ways:
            for reading in readings:
                hits = islice(find(reading), _HITS)
                found = _choose((span for span in hits if not whole or _whole_words(self.text, span)), taken)
                if found:
                    return found, how
        fuzzy = self._by_words(next(iter(readings)))
        return (fuzzy, "fuzzy") if fuzzy else None

    def _by_words(self, quote: str) -> Span | None:
        words = [_plain(match.group()) for match in islice(_WORD.finditer(quote), _LONGEST + 1)]
        if not 3 <= len(words) <= _LONGEST:
            return None  # under three words a match could be anywhere
        places, others, there = self.words
        counts = Counter(words)
        # As many as any order could match.
        if sum(min(count, there[word]) for word, count in counts.items()) < _WORDS_FOUND * len(words):
            return None
        if sum(count * there[word] for word, count in counts.items()) > _EFFORT:
            return None
        matcher = SequenceMatcher(None, words, others, autojunk=False)
        blocks = [block for block in matcher.get_matching_blocks() if block.size]
        if sum(block.size for block in blocks) < _WORDS_FOUND * len(words):
            return None
        first, last = blocks[0].b, blocks[-1].b + blocks[-1].size
        if last - first > _WINDOW * len(words) + 1:
            return None
        return Span(places[first].start, places[last - 1].end)


def _whole_words(text: str, span: Span) -> bool:
    """Whether a span cuts no word in two at either end."""
    return not any(0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum() for at in (span.start, span.end))


def _find_all(text: str, needle: str) -> Iterator[Span]:
    """Every place of the needle, overlapping ones too: the "so so" of "also so so" is not the first."""
    start = text.find(needle) if needle else -1
    while start >= 0:
        yield Span(start, start + len(needle))
        start = text.find(needle, start + 1)


def _mapped(squeezed: tuple[str, list[int]], needle: str) -> Iterator[Span]:
    text, origin = squeezed
    return (Span(origin[span.start], origin[span.end - 1] + 1) for span in _find_all(text, needle))


def _choose(found: Iterable[Span], taken: Sequence[Span]) -> Span | None:
    """The first span that is free; where none is, the first."""
    first = None
    for span in found:
        if not any(_repeats(span, other) for other in taken):
            return span
        first = first or span
    return first


def _repeats(span: Span, other: Span) -> bool:
    """Whether a place is that of the same quote, or overlaps it. Another quote's span may hold this one."""
    same_length = span.end - span.start == other.end - other.start
    return same_length and span.start < other.end and other.start < span.end


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKD", text.translate(_STYLES)).casefold()


def _squeeze(text: str, fold: Callable[[str], str]) -> tuple[str, list[int]]:
    kept: list[str] = []
    origin: list[int] = []
    for index, character in enumerate(text):
        if not character.isspace() and character not in _INVISIBLE:
            for folded in fold(character):  # one character may become two
                kept.append(folded)
                origin.append(index)
    return "".join(kept), origin


class Placer:
    """Places the spans of a whole corpus and keeps the count."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tuple(tasks)
        self._counts: dict[How, int] = {"exact": 0, "whitespace": 0, "fuzzy": 0}
        self._lost: list[tuple[int, str]] = []
        self._bare: list[tuple[int, str]] = []
        self._unlabelled = 0

    def place_all(
        self, row: int, response: str, levels: Sequence[int], quotes: Sequence[Iterable[str]]
    ) -> tuple[tuple[tuple[Span, ...], ...], tuple[int, ...]]:
        """The spans of one pair, per task, and how many were not found.

        Spans of a task whose label is missing are counted and left out: without the label they serve nothing.
        """
        spans: list[tuple[Span, ...]] = []
        unplaced: list[int] = []
        prepared: Response | None = None
        for task, level, texts in zip(self._tasks, levels, quotes, strict=True):
            placed: list[Span] = []
            lost = 0
            given = [text for text in texts if text.strip()]
            if level == MISSING:
                self._unlabelled += len(given)
                given = []
            elif level > 0 and not given:
                self._bare.append((row, task))
            for text in given:
                prepared = prepared or Response(response)
                found = prepared.place(text, placed)
                if found is None:
                    self._lost.append((row, task))
                    lost += 1
                else:
                    placed.append(found[0])
                    self._counts[found[1]] += 1
            spans.append(tuple(placed))
            unplaced.append(lost)
        return tuple(spans), tuple(unplaced)

    def result(self, annotated: Collection[str] | None = None) -> Placement:
        """What was found so far.

        Args:
            annotated: the tasks for which spans are given at all; of others no label is listed as bare. None is all.
        """
        bare = tuple(entry for entry in self._bare if annotated is None or entry[1] in annotated)
        return Placement(**self._counts, lost=tuple(self._lost), bare=bare, unlabelled=self._unlabelled)
