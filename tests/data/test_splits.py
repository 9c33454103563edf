"""A split is the same for the same seed, keeps a seeker together, and leaves no part without a level."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empathy_kit.data.pairs import Corpus, Pair, class_counts, same_words
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import FRACTIONS, PARTS, SPLITS, leakage, make_split, take
from empathy_kit.errors import KitError


@pytest.fixture(scope="module")
def even() -> Corpus:
    """Pairs enough for a split that knows nothing of levels."""
    return corpus_of([(f"s{number % 200}", f"post {number % 220}") for number in range(270)])


@pytest.fixture(scope="module")
def sample() -> Corpus:
    return load_corpus("sample")


def corpus_of(seekers: list[tuple[str, str]], name: str = "hand") -> Corpus:
    """A pair a (seeker id, seeker post), levels going round so that every level is common."""
    return Corpus(
        name,
        tuple(
            Pair(number, str(number), seeker, post, f"reply {number}", (number % 3, number // 3 % 3, number // 9 % 3))
            for number, (seeker, post) in enumerate(seekers)
        ),
        {},
    )


@pytest.mark.parametrize("kind", SPLITS)
def test_a_seed_gives_one_split_and_another_seed_another(even: Corpus, kind: str) -> None:
    splits = [make_split(even, kind, seed) for seed in range(4)]
    assert splits == [make_split(even, kind, seed) for seed in range(4)]
    assert len({split.sha256() for split in splits}) == 4
    assert [(split.kind, split.seed) for split in splits] == [(kind, seed) for seed in range(4)]


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize("seed", range(3))
def test_every_pair_is_in_one_part_and_the_parts_are_70_15_15(even: Corpus, kind: str, seed: int) -> None:
    split = make_split(even, kind, seed)
    assert sorted(split.train + split.validation + split.test) == list(range(len(even)))
    for name, fraction in zip(PARTS, FRACTIONS, strict=True):
        part = split.part(name)
        assert list(part) == sorted(part)
        assert abs(len(part) - fraction * len(even)) <= 2


@pytest.mark.parametrize("seed", range(3))
def test_every_level_is_spread_evenly_within_a_pair_or_two(sample: Corpus, seed: int) -> None:
    split = make_split(sample, "grouped", seed)
    whole = class_counts(sample.pairs)
    for name, fraction in zip(PARTS, FRACTIONS, strict=True):
        for mechanism, counts in class_counts(take(sample, split.part(name))).items():
            for count, all_of_it in zip(counts, whole[mechanism], strict=True):
                assert abs(count - fraction * all_of_it) < 2.5


@pytest.mark.parametrize("seed", range(3))
def test_no_seeker_and_no_pair_of_the_sample_leaks(sample: Corpus, seed: int) -> None:
    split = make_split(sample, "grouped", seed)
    for part in ("validation", "test"):
        shared = leakage(sample, split, part)
        assert (shared.pairs, shared.seekers) == (0, 0)
    assert leakage(sample, split, "train").pairs == len(split.train)


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(links=st.lists(st.tuples(st.integers(0, 299), st.integers(0, 299)), min_size=120, max_size=120), seed=st.integers(0, 9))
def test_pairs_linked_by_seeker_id_or_post_words_stay_together(links: list[tuple[int, int]], seed: int) -> None:
    # Every second id is missing: a missing id links nobody.
    corpus = corpus_of([("" if who % 2 else f"s{who}", f"I am {what}" if who % 3 else f" i  AM {what}") for who, what in links])
    try:
        split = make_split(corpus, "grouped", seed)
    except KitError:
        return  # one large group can leave a part without a level: refused, not split
    part_of = {position: part for part in PARTS for position in split.part(part)}
    for key in (lambda pair: pair.seeker_id or pair.row, lambda pair: same_words(pair.seeker)):
        order = sorted(range(len(corpus)), key=lambda position: (str(key(corpus.pairs[position])), position))
        for one, other in pairwise(order):
            if key(corpus.pairs[one]) == key(corpus.pairs[other]):
                assert part_of[one] == part_of[other]


def test_a_chain_of_shared_ids_and_posts_is_one_group() -> None:
    # a-1, a-2, b-2, b-3 ...: no two neighbours share both, and still they are one.
    chain = [(f"s{step // 2}", f"post {(step + 1) // 2}") for step in range(30)]
    corpus = corpus_of([(f"t{number}", f"other {number}") for number in range(270)] + chain)
    for seed in range(3):
        split = make_split(corpus, "grouped", seed)
        assert sum(any(position >= 270 for position in split.part(part)) for part in PARTS) == 1


def test_the_paper_split_tears_seekers_apart_and_leakage_counts_it() -> None:
    corpus = corpus_of([(f"s{number % 30}", f"post {number % 60}") for number in range(300)])
    assert leakage(corpus, make_split(corpus, "paper", 0), "test").seekers == 45


def test_an_unknown_split_is_named(sample: Corpus) -> None:
    with pytest.raises(KitError) as error:
        make_split(sample, "random", 0)
    assert str(error.value) == "--split random: unknown, expected grouped or paper"


@pytest.mark.parametrize(("kind", "seekers"), [("grouped", [("s1", "one")] * 27), ("paper", [("s1", "one"), ("s2", "two")])])
def test_a_split_that_leaves_a_part_empty_is_refused(kind: str, seekers: list[tuple[str, str]]) -> None:
    with pytest.raises(KitError) as error:
        make_split(corpus_of(seekers), kind, 0)
    assert str(error.value) == (f"--split {kind} of hand: the validation part is empty ({len(seekers)} pairs); more are needed")


def test_a_level_that_the_data_does_not_have_is_refused() -> None:
    pairs = tuple(Pair(n, str(n), f"s{n}", f"p{n}", "r", (n % 2, n % 3, n % 3)) for n in range(90))
    for kind in SPLITS:
        with pytest.raises(KitError) as error:
            make_split(Corpus("hand", pairs, {}), kind, 0)
        assert str(error.value) == (
            f"--split {kind} of hand: the train part has no pair with ER level 2 (the data has 0); "
            "expected at least one in each part"
        )


def test_a_part_without_a_rare_level_is_refused() -> None:
    def rare(count: int) -> Corpus:
        levels = [(2 if n < count else n % 2, n % 3, n % 3) for n in range(90)]
        return Corpus("hand", tuple(Pair(n, str(n), f"s{n}", f"p{n}", "r", level) for n, level in enumerate(levels)), {})

    with pytest.raises(KitError) as error:
        make_split(rare(2), "grouped", 0)
    assert str(error.value) == (
        "--split grouped of hand: the validation part has no pair with ER level 2 (the data has 2); "
        "expected at least one in each part"
    )
    with pytest.raises(KitError) as error:
        make_split(rare(3), "paper", 0)
    assert str(error.value) == (
        "--split paper of hand: the validation part has no pair with ER level 2 (the data has 3); "
        "expected at least one in each part: another --split-seed may help"
    )


def test_an_empty_corpus_is_refused() -> None:
    for kind in SPLITS:
        with pytest.raises(KitError) as error:
            make_split(corpus_of([]), kind, 0)
        assert str(error.value) == f"--split {kind} of hand: the train part is empty (0 pairs); more are needed"
