"""Annotated spans are found where they stand; what cannot be placed is said, never dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empathy_kit.data.pairs import Placement, Span, unescape
from empathy_kit.data.schema import EPITOME, MISSING
from empathy_kit.data.spans import Placer, Response
from empathy_kit.data.tables import load_table
from empathy_kit.errors import KitError

CURLY = "it\u2019s \u201chard\u201d \u2013 wait\u2026"


def place(response: str, quote: str) -> tuple[Span, str] | None:
    return Response(response).place(quote)


def placed(response: str, quote: str) -> tuple[str, str]:
    found = place(response, quote)
    assert found is not None
    span, how = found
    return response[span.start : span.end], how


@pytest.mark.parametrize(
    ("response", "quote", "text", "how"),
    [
        ("I hear you. Why (really?) [sic]", "Why (really?) [sic]", "Why (really?) [sic]", "exact"),
        ("Costs $5.* a|b \\d+ ^", ".* a|b \\d+ ^", ".* a|b \\d+ ^", "exact"),
        ("hug <3 & more", "hug &lt;3 &amp; more", "hug <3 & more", "exact"),
        ("he typed &lt; for <", "typed &lt; for", "typed &lt; for", "exact"),
        ("I  am\n\nso   sorry .", "I am so sorry.", "I  am\n\nso   sorry .", "whitespace"),
        ("I'm SO sorry", " i'm so sorry ", "I'm SO sorry", "whitespace"),
        ("you\u200b are\u00a0heard", "you are heard", "you\u200b are\u00a0heard", "whitespace"),
        ("ok 👩\u200d👩\u200d👧 hugs 🤗🤗", "👩👩👧 hugs 🤗", "👩\u200d👩\u200d👧 hugs 🤗", "whitespace"),
        ("in \u0130zmir \u0130 was sad", "WAS SAD", "was sad", "whitespace"),
        ("in \u0130zmir", "i\u0307ZMIR", "\u0130zmir", "whitespace"),
        (
            "it\u2019s \u201chard\u201d \u2013 wait\u2026",
            'it\'s "hard" - wait...',
            "it\u2019s \u201chard\u201d \u2013 wait\u2026",
            "whitespace",
        ),
        ("it's hard", "it\u2019s hard", "it's hard", "whitespace"),
        ("un cafe\u0301 noir", "un caf\u00e9 noir", "un cafe\u0301 noir", "whitespace"),
        ("so \uff33\uff2f\uff32\uff32\uff39", "so sorry", "so \uff33\uff2f\uff32\uff32\uff39", "whitespace"),
        ("also so so", "so so", "so so", "exact"),
        ("I think you should tell a friend", "i think you, should tell a friend!", "I think you should tell a friend", "fuzzy"),
        ("go and post this on reddit or a forum", "post this on or a forum", "post this on reddit or a forum", "fuzzy"),
        ("So I don\u2019t know, really", "I don't really", "I don\u2019t know, really", "fuzzy"),
        ("So I don\u00b4t know, really", "I don\u2019t really", "I don\u00b4t know, really", "fuzzy"),
        ("So I don't know, really", "i \uff24on\u02bct really", "I don't know, really", "fuzzy"),
        ("I don\u2019t worry", "don't wor", "don\u2019t wor", "whitespace"),  # cut words
        ("I don't worry", "on\u2019t worry", "on't worry", "whitespace"),
    ],
)
def test_a_span_is_found_up_to_entities_white_space_case_and_lost_words(response: str, quote: str, text: str, how: str) -> None:
    assert placed(response, quote) == (text, how)


@pytest.mark.parametrize(
    "quote",
    [
        "not here",  # too short for a search by words
        "something else was written here",
        "I hear never what you you say so ever",  # its words, far apart and too few
        "\u200b",
    ],
)
def test_a_span_that_is_not_there_is_not_invented(quote: str) -> None:
    assert place("I hear what you say, and so it is. It was a long day for you.", quote) is None


def test_words_scattered_over_a_long_response_are_no_span() -> None:
    response = "alone " + "and then " * 30 + "together " + "and then " * 30 + "again"
    assert place(response, "alone together again") is None


def test_a_quote_given_again_is_the_next_place_then_the_first_once_more() -> None:
    spans, unplaced = Placer(EPITOME.names).place_all(1, "hugs, and Hugs, and hugs", (1, 0, 0), [["hugs"] * 3, [], []])
    assert spans[0] == (Span(0, 4), Span(20, 24), Span(0, 4))
    assert unplaced == (0, 0, 0)


def test_empty_quotes_are_no_spans_and_each_task_has_its_own_places() -> None:
    placer = Placer(EPITOME.names)
    spans, _ = placer.place_all(5, "so sorry. why?", (1, 1, 2), [["", " so sorry "], ["so sorry."], ["", "\n"]])
    assert spans == ((Span(0, 8),), (Span(0, 9),), ())
    assert placer.result().bare == ((5, "IP"),)
    assert placer.result().total == 2


def test_places_that_overlap_are_looked_at() -> None:
    assert place("also so so", "so so") == (Span(5, 10), "exact")
    spans, _ = Placer(["a"]).place_all(1, "no no no no", (1,), [["no no", "no no", "no"]])
    assert spans[0] == (Span(0, 5), Span(6, 11), Span(0, 2))


def test_spans_of_a_missing_label_are_counted_and_not_used() -> None:
    placer = Placer(["a", "b"])
    assert placer.place_all(1, "so sorry", (MISSING, 1), [["so", "nowhere", " "], []]) == (((), ()), (0, 0))
    assert placer.result() == Placement(bare=((1, "b"),), unlabelled=2)
    assert placer.result(["a"]).bare == ()  # no spans are given for b at all


@pytest.mark.parametrize(
    ("response", "quote", "found"),
    [
        ("no " * 30_000, "yes " + "no " * 20_000, None),
        ("x" * 100_000, "x" * 50_000, (Span(0, 50_000), "exact")),
        (" ".join(f"w{n} x{n}" for n in range(9_000)), " ".join(f"w{n} y{n} x{n}" for n in range(5_600)), None),
    ],
)
def test_a_huge_quote_is_searched_within_limits(response: str, quote: str, found: object) -> None:
    # Without them each takes minutes, and the suite's own limit ends it.
    assert place(response, quote) == found


def test_what_many_quotes_need_of_a_response_is_computed_once() -> None:
    response = Response("so sorry  that happened " * 3)
    response.place("SO SORRY")
    squeezed = response.squeezed
    response.place("that  happened so")
    assert response.squeezed is squeezed


# What trips span code: entities, regex signs, combining and joined signs, letters that grow or depend on their place in lower().
TEXT = st.text(
    st.sampled_from("\u0130i\u0307ßẞΣ\u03c3ςǅ&;ltamp#39.*+?()[]\\^$|\"' \t\n\r\u00a0\u2003\u200b\ufeff\x1c👩\u200d👧🤗aA0")
    | st.characters(codec="utf-8"),
    min_size=1,
    max_size=40,
)


def folded(text: str) -> str:
    return "".join(character.casefold() for character in text if not character.isspace() and character != "\u200b")


@settings(max_examples=500, derandomize=True, deadline=None, database=None)
@given(raw=TEXT, data=st.data())
def test_any_substring_of_a_response_is_placed_on_text_equal_up_to_white_space_and_case(raw: str, data: st.DataObject) -> None:
    response = unescape(raw)
    start = data.draw(st.integers(0, len(response)))
    quote = response[start : data.draw(st.integers(start, len(response)))]
    if quote.strip():
        text, _ = placed(response, quote)
        assert folded(text) in (folded(quote), folded(unescape(quote)))


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(
    words=st.lists(st.sampled_from(["\u0130", "aß", "&lt;", "ΟΔΟΣ", "(.*)", "🤗", "it's"]), min_size=1, max_size=8),
    data=st.data(),
)
def test_a_quote_with_other_white_space_and_case_is_placed(words: list[str], data: st.DataObject) -> None:
    gap = st.sampled_from([" ", "  ", "\n", "\u00a0", "\u200b "])
    response = "".join(word + data.draw(gap) for word in words)
    first = data.draw(st.integers(0, len(words) - 1))
    quote = "".join(word.lower() + data.draw(gap) for word in words[first:])
    text, _ = placed(response, quote)
    assert folded(text) == folded("".join(words[first:]))


def test_whole_words_are_preferred_to_parts_of_words() -> None:
    assert place("also it was so hard", "so") == (Span(12, 14), "exact")
    for person in ("Hi amazing person, I'm with you", "Hi amazing person, I\u2019m with you"):
        assert place(person, "I am") is None  # not the "i am" of "Hi amazing"
    assert place("understandable", "stand") == (Span(5, 10), "exact")  # annotators do cut words


def test_a_cell_of_very_many_spans_is_refused_and_not_searched(tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    path.write_text("seeker_post,response_post,ER,EX,IP,ER_spans\nlost," + "e" * 500 + ",1,0,0," + "|".join("e" * 500) + "\n")
    with pytest.raises(KitError) as error:
        load_table(path)
    assert str(error.value) == "posts.csv, row 1, column 'ER_spans': 500 spans found, expected at most 100"
