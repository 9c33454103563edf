"""A corpus of which nothing but the seekers matters."""

from __future__ import annotations

from empathy_kit.data.pairs import Corpus, Pair


def corpus_of(seekers: list[tuple[str, str]], name: str = "hand") -> Corpus:
    """One pair per (seeker id, seeker post), levels going round so that every level is common."""
    return Corpus(
        name,
        tuple(
            Pair(number, str(number), seeker, post, f"reply {number}", (number % 3, number // 3 % 3, number // 9 % 3))
            for number, (seeker, post) in enumerate(seekers)
        ),
        {},
    )
