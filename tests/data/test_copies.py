"""Which posts are copies of one, and that splits keep these together."""

from __future__ import annotations

import pytest
from by_hand import corpus_of

from empathy_kit.data.pairs import same_words
from empathy_kit.data.splits import PARTS, Split, leakage, make_split


def test_copies_that_differ_in_typography_alone_stay_together_and_count_as_leaked() -> None:
    copies = [("I can't. So sad", "I can\u2019t - so sad!"), ("Hug me", "hug\u200b me ..."), ("caf\u00e9?", "cafe\u0301")]
    corpus = corpus_of([("", f"{number} {post}") for number in range(100) for each in copies for post in each])
    for seed in range(3):
        split = make_split(corpus, "grouped", seed)
        assert all(at + 1 in split.part(part) for part in PARTS for at in split.part(part) if at % 2 == 0)
    torn = Split("paper", 0, tuple(range(0, 600, 2)), tuple(range(1, 301, 2)), tuple(range(301, 600, 2)))
    assert leakage(corpus, torn, "test").seekers == 150


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("\u0926\u093f\u0928", "\u0926\u0940\u0928", False),  # Hindi: day and poor differ in a vowel sign
        ("\u0e44\u0e21\u0e48", "\u0e44\u0e21", False),  # Thai: a tone mark
        ("caf\u00e9", "cafe\u0301", True),
        ("cafe", "caf\u00e9", False),
        ("I_am... sad", "i am sad!", True),
        ("so sad \u2764\ufe0f", "so sad \u2764", True),
        ("\U0001f622", "\U0001f60a", False),  # without a letter, all that there is counts
    ],
)
def test_copies_have_the_same_letters_in_any_script(one: str, other: str, same: bool) -> None:
    assert (same_words(one) == same_words(other)) == same
