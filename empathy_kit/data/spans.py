"""Where annotated spans lie in their response: exactly, or up to white space and case, or word by word; never by regex."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal

from empathy_kit.data.pairs import MECHANISMS, Placement, Span, unescape

How = Literal["exact", "whitespace", "fuzzy"]

# Invisible characters that copies of one post gain or lose: zero-width spaces and joiners, the BOM, the replacement sign.
_INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\ufffd\u00ad")
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_WORDS_FOUND = 0.8  # share of a span's words that a fuzzy match must hold, in order
_EFFORT = 30_000  # pairs of equal words that a fuzzy search may weigh: its time is cubic where one word fills a post
_WINDOW = 1.3  # how many times longer than its span a fuzzy match may be, in words


def place(response: str, quote: str, taken: Sequence[Span] = ()) -> tuple[Span, How] | None:
    """Find an annotated quote in its response, preferring a place that is not taken yet.

    Args:
        response: the response post, entities resolved.
        quote: the annotation, as its author copied it.
        taken: spans of the same mechanism that were placed before: a quote given twice is found twice.
    """
    # As it stands too, or "&lt;" is not found in a response whose author meant to show an entity.
    readings = dict.fromkeys((unescape(quote).strip(), quote.strip()))
    squeezed, origin = _squeeze(response)

    def exact(reading: str) -> Iterator[Span]:
        return _find_all(response, reading)

    def loose(reading: str) -> Iterator[Span]:
        needle, _ = _squeeze(reading)
        return (Span(origin[s.start], origin[s.end - 1] + 1) for s in _find_all(squeezed, needle))

    # Whole words first, or "so" is found in "also". Half words as a last resort: annotators do cut words.
    ways: tuple[tuple[How, Callable[[str], Iterator[Span]], bool], ...] = (
        ("exact", exact, True),
        ("whitespace", loose, True),
        ("exact", exact, False),
    )
    for how, find, whole in ways:
        for reading in readings:
            found = _choose((span for span in find(reading) if not whole or _whole_words(response, span)), taken)
            if found:
                return found, how
    fuzzy = _by_words(response, next(iter(readings)))
    return (fuzzy, "fuzzy") if fuzzy else None


def _whole_words(text: str, span: Span) -> bool:
    """Whether a span cuts no word in two at either end."""
    return not any(0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum() for at in (span.start, span.end))


def _find_all(text: str, needle: str) -> Iterator[Span]:
    start = text.find(needle) if needle else -1
    while start >= 0:
        yield Span(start, start + len(needle))
        start = text.find(needle, start + len(needle))


def _choose(found: Iterable[Span], taken: Sequence[Span]) -> Span | None:
    first = None
    for span in found:
        if span not in taken:
            return span
        first = first or span
    return first


def _squeeze(text: str) -> tuple[str, list[int]]:
    """The text without white space, case and invisible characters, and where each of its characters stood."""
    kept: list[str] = []
    origin: list[int] = []
    for index, character in enumerate(text):
        if not character.isspace() and character not in _INVISIBLE:
            for folded in character.casefold():  # one character may become two
                kept.append(folded)
                origin.append(index)
    return "".join(kept), origin


def _by_words(response: str, quote: str) -> Span | None:
    words = [match.group().lower() for match in _WORD.finditer(quote)]
    places = list(_WORD.finditer(response))
    others = [match.group().lower() for match in places]
    counts, there = Counter(words), Counter(others)
    shared = sum((counts & there).values())  # as many as any order could match
    if len(words) < 3 or shared < _WORDS_FOUND * len(words):
        return None  # under three words a match could be anywhere
    if sum(count * there[word] for word, count in counts.items()) > _EFFORT:
        return None
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    found = sum(block.size for block in blocks)
    if found < _WORDS_FOUND * len(words):
        return None
    first, last = blocks[0].b, blocks[-1].b + blocks[-1].size
    if last - first > _WINDOW * len(words) + 1:
        return None
    return Span(places[first].start(), places[last - 1].end())


class Placer:
    """Places the spans of a whole corpus and keeps the count."""

    def __init__(self) -> None:
        self._counts: dict[How, int] = {"exact": 0, "whitespace": 0, "fuzzy": 0}
        self._lost: list[tuple[int, str]] = []
        self._bare: list[tuple[int, str]] = []

    def place_all(
        self, row: int, response: str, levels: Sequence[int], quotes: Sequence[Iterable[str]]
    ) -> tuple[tuple[tuple[Span, ...], ...], tuple[int, ...]]:
        """The spans of one pair, a mechanism, and how many were not found."""
        spans: list[tuple[Span, ...]] = []
        unplaced: list[int] = []
        for mechanism, level, texts in zip(MECHANISMS, levels, quotes, strict=True):
            placed: list[Span] = []
            lost = 0
            given = [text for text in texts if text.strip()]
            for text in given:
                found = place(response, text, placed)
                if found is None:
                    self._lost.append((row, mechanism))
                    lost += 1
                else:
                    placed.append(found[0])
                    self._counts[found[1]] += 1
            if level > 0 and not given:
                self._bare.append((row, mechanism))
            spans.append(tuple(placed))
            unplaced.append(lost)
        return tuple(spans), tuple(unplaced)

    def result(self) -> Placement:
        """What was found so far."""
        return Placement(**self._counts, lost=tuple(self._lost), bare=tuple(self._bare))
