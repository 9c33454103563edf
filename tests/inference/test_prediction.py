"""Marked tokens become characters of the text that the caller has, whatever was cut, unescaped or special."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import Read, TokenPair
from empathy_kit.data.pairs import Span, original_places, unescape
from empathy_kit.data.schema import Schema, TaskSchema
from empathy_kit.inference.outputs import ROW
from empathy_kit.inference.prediction import columns, make_prediction, row

SCHEMA = Schema((TaskSchema("A", "A", "a", ("no", "yes")),))


def marked(response: str, places: list[tuple[int, int]], marks: str, *, cut: int | None = None, level: int = 1) -> Any:
    """Evidence of a response whose tokens stand at these places, between two special ones, where x is marked."""
    shown = [(0, 0), *places, (0, 0)]
    read = Read(TokenPair([], [0] * len(shown)), shown, len(shown) if cut is None else cut, False, cut is not None)
    chances = np.array([[0.9 if mark == "x" else 0.1 for mark in marks]], np.float32)
    scored = Scored({"A": np.array([0.2, 0.8] if level else [0.8, 0.2])}, chances)
    return make_prediction(scored, read, response, SCHEMA, {"A": 1.0})["A"].evidence


def words(text: str) -> list[tuple[int, int]]:
    """Each word with the space before it, as byte-level tokens have it."""
    ends = [at for at, sign in enumerate(text) if sign == " "] + [len(text)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


@pytest.mark.parametrize(
    ("marks", "quotes"),
    [
        (".xx...", ["I hear"]),
        ("...x..", ["you"]),  # the token's space is not the evidence's
        (".x.x..", ["I", "you"]),
        ("xxxxxx", ["I hear you friend"]),  # special tokens have no characters
        ("x....x", []),
        ("......", []),
    ],
)
def test_neighbouring_tokens_are_one_stretch_without_white_space_at_its_ends(marks: str, quotes: list[str]) -> None:
    response = "I hear you friend"
    assert [response[span.start : span.end] for span in marked(response, words(response), marks)] == quotes


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("To\u0302i", 2),  # a circumflex of its own
        ("\u092e\u0948\u0902", 1),  # Devanagari's vowel signs
        ("\u0634\u064f", 1),  # Arabic's
        ("\u2764\ufe0f", 1),  # the sign that makes a heart red
        ("\U0001f44d\U0001f3fd", 1),  # a skin tone
        ("\U0001f469\u200d\U0001f467", 1),  # a mother with her daughter
        ("\U0001f469\u200d\U0001f467\u0302", 3),
    ],
)
def test_evidence_does_not_end_within_what_is_read_as_one_sign(word: str, base: int) -> None:
    """Tokenizers that strip accents give a token's place without them."""
    for after in ("", " and you"):
        (span,) = marked(f"so {word}{after}", [(0, 2), (2, 3 + base)], "..x.") or ()
        whole = word if word != "To\u0302i" else "To\u0302"
        assert f"so {word}{after}"[span.start : span.end] == whole


@pytest.mark.parametrize(
    ("marks", "spans"),
    [
        (".x.x.", (Span(0, 3),)),  # woman, joiner, girl: halves of one sign are that sign, once
        ("...x.", (Span(0, 3),)),
        (".x...", (Span(0, 3),)),
    ],
)
def test_a_marked_part_of_one_sign_is_all_of_it(marks: str, spans: tuple[Span, ...]) -> None:
    assert marked("\U0001f469\u200d\U0001f467", [(0, 1), (1, 2), (2, 3)], marks) == spans


def test_a_flag_is_two_letters_and_its_neighbour_another() -> None:
    response = "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7"
    assert marked(response, [(at, at + 1) for at in range(4)], "..x...") == (Span(0, 2),)
    assert marked(response, [(at, at + 1) for at in range(4)], "...x..") == (Span(2, 4),)


def test_tokens_on_both_sides_of_a_cut_are_no_neighbours() -> None:
    response = "I hear you my dear friend"
    kept = [words(response)[at] for at in (0, 1, 4, 5)]
    assert marked(response, kept, ".xxxx.", cut=3) == (Span(0, 6), Span(14, 25))
    assert marked(response, kept, ".xx...", cut=3) == (Span(0, 6),)
    assert marked(response, kept, "...xx.", cut=3) == (Span(14, 25),)


def test_the_lowest_label_has_no_evidence() -> None:
    assert marked("I hear", words("I hear"), ".xx.", level=0) == ()


def test_offsets_are_those_of_the_text_before_its_entities_were_resolved() -> None:
    response = "so &lt;3 &amp; hard &#39;yes&#39; &nothing; &bogus"
    text = unescape(response)
    assert text == "so <3 & hard 'yes' &nothing; &bogus"
    for quote, original in (("<3", "&lt;3"), ("& hard", "&amp; hard"), ("'yes'", "&#39;yes&#39;"), ("&bogus", "&bogus")):
        start = text.index(quote)
        (span,) = original_places([Span(start, start + len(quote))], response)
        assert response[span.start : span.end] == original
    assert marked(response, words(text), ".xx" + "." * 6) == (Span(0, 8),)


def test_a_table_has_a_column_per_label_and_says_what_was_cut() -> None:
    scored = Scored({"A": np.array([0.25, 0.75])}, np.array([[0.1, 0.9, 0.9, 0.1]], np.float32))
    read = Read(TokenPair([], [0] * 4), [(0, 0), (0, 2), (2, 4), (0, 0)], 3, True, False)
    said = make_prediction(scored, read, "abcd", SCHEMA, {})
    assert columns(SCHEMA, evidence=True) == [
        "A_predicted",
        "A_p0",
        "A_p1",
        "A_evidence",
        "seeker_truncated",
        "response_truncated",
    ]
    assert row(said, "abcd", evidence=True) == ["yes", 0.25, 0.75, [{"start": 0, "end": 4, "text": "abcd"}], True, False]
    assert row(said, "abcd", evidence=False) == ["yes", 0.25, 0.75, True, False]


def test_the_page_names_every_column_in_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "inference.md").read_text("utf-8")
    listed = page.partition("Its columns are:")[2].partition("\n\n")[2].partition("\n\n")[0]
    kept, more = ["the columns that you keep"], ["..."]  # as the page has them
    found = re.findall(r"`(\w+)`|^- (the columns that you keep)|(\.\.\.)", listed, re.MULTILINE)
    schema = Schema((TaskSchema("ER", "emotional reactions", "ER", ("0", "1")),))
    names = columns(schema, evidence=True)
    assert ["".join(each) for each in found] == [ROW, *kept, *names[:3], *more, *names[3:]]
