"""A split is the same for the same seed, keeps a seeker together, and leaves no part without a label."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean

import pytest
from by_hand import corpus_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from empathy_kit.data.epitome import load_epitome
from empathy_kit.data.pairs import Corpus, Pair, class_counts, same_words
from empathy_kit.data.schema import EPITOME, MISSING, Schema, TaskSchema
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import FRACTIONS, PARTS, SPLITS, leakage, make_folds, make_split, take, thin_out
from empathy_kit.errors import KitError


@pytest.fixture(scope="module")
def even() -> Corpus:
    """Pairs enough for a split that knows nothing of levels."""
    return corpus_of([(f"s{number % 200}", f"post {number % 220}") for number in range(270)])


@pytest.fixture(scope="module")
def sample() -> Corpus:
    return load_corpus("sample")


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
    whole = class_counts(sample.pairs, EPITOME)
    for name, fraction in zip(PARTS, FRACTIONS, strict=True):
        for mechanism, counts in class_counts(take(sample, split.part(name)), EPITOME).items():
            for count, all_of_it in zip(counts, whole[mechanism], strict=True):
                assert abs(count - fraction * all_of_it) < 2.5


def repeated(corpus: Corpus) -> set[int]:
    """Positions of the pairs whose seeker has others."""
    counts: dict[str, list[int]] = {}
    for position, pair in enumerate(corpus.pairs):
        counts.setdefault(pair.seeker_id or same_words(pair.seeker), []).append(position)
    return {position for positions in counts.values() if len(positions) > 1 for position in positions}


def deviation(corpus: Corpus, parts: list[tuple[int, ...]]) -> float:
    """The worst of all levels and parts, in pairs."""
    whole = class_counts(corpus.pairs, corpus.schema)
    counts = [class_counts(take(corpus, part), corpus.schema) for part in parts]
    return max(
        abs(count - len(part) / len(corpus) * total)
        for part, found in zip(parts, counts, strict=True)
        for name, levels in found.items()
        for count, total in zip(levels, whole[name], strict=True)
    )


def by_scikit_learn(corpus: Corpus, seed: int) -> list[tuple[int, ...]]:
    """15 % for test and as many for validation, from two of seven folds, which know one label per pair: all levels as one."""
    keys = [pair.seeker_id or same_words(pair.seeker) for pair in corpus.pairs]
    labels = ["".join(map(str, pair.levels)) for pair in corpus.pairs]
    folds = StratifiedGroupKFold(7, shuffle=True, random_state=seed).split(keys, labels, keys)
    test, validation = (set(held.tolist()) for _, held in islice(folds, 2))
    rest = set(range(len(corpus))) - test - validation
    return [tuple(sorted(part)) for part in (rest, validation, test)]


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_seekers_who_wrote_several_times_fall_into_every_part_and_the_levels_stay_even(sample: Corpus) -> None:
    check_repeated_seekers(sample)


@pytest.mark.reddit
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_the_reddit_datas_repeated_seekers_fall_into_every_part(reddit_folder: Path) -> None:
    check_repeated_seekers(load_epitome(reddit_folder))


COMPARED = range(3, 6)  # seeds on which scikit-learn splits too, and well for it; it takes most of the time


def check_repeated_seekers(corpus: Corpus) -> None:
    """Over 30 seeds: each part holds about its share of them, every seed has some in each, and no level is far off."""
    siblings = repeated(corpus)
    shares, ours, theirs = [], [], []
    for seed in range(30):
        split = make_split(corpus, "grouped", seed)
        parts = [split.part(name) for name in PARTS]
        shares.append([len(siblings.intersection(part)) / len(siblings) for part in parts])
        ours.append(deviation(corpus, parts))
        if seed in COMPARED:
            theirs.append(deviation(corpus, by_scikit_learn(corpus, seed)))
    assert min(min(row) for row in shares) > 0
    for share, fraction in zip(zip(*shares, strict=True), FRACTIONS, strict=True):
        assert abs(sum(share) / len(share) - fraction) < 0.02
    assert max(ours) <= 2.5
    # On the same seeds: it knows one label per pair, and all tasks' levels at once are too many labels.
    assert fmean(ours[seed] for seed in COMPARED) < fmean(theirs)


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


@pytest.mark.parametrize(
    ("kind", "seekers", "reason"),
    [
        ("grouped", [("s1", "one")] * 27, "27 pairs in 1 group that share a seeker id or seeker post); more seekers are needed"),
        ("grouped", [("s1", "one"), ("s2", "two")], "2 pairs); more are needed"),
        ("paper", [("s1", "one"), ("s1", "two")], "2 pairs); more are needed"),
    ],
)
def test_a_split_that_leaves_a_part_empty_is_refused(kind: str, seekers: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(KitError) as error:
        make_split(corpus_of(seekers), kind, 0)
    assert str(error.value) == f"--split {kind} of hand: the validation part is empty ({reason}"


def test_a_split_counts_its_groups() -> None:
    corpus = corpus_of([(f"s{number // 4 if number < 40 else number}", f"post {number}") for number in range(270)])
    assert [(split.groups, split.largest) for split in (make_split(corpus, kind, 0) for kind in SPLITS)] == [(240, 4), (270, 1)]


def tasks_of(*labels: tuple[str, ...]) -> Schema:
    return Schema(tuple(TaskSchema(name, name, name, texts) for name, texts in zip("ab", labels, strict=False)))


def refusal(levels: list[tuple[int, ...]], schema: Schema, kind: str = "grouped", *, seekers: int = 1000) -> str:
    pairs = tuple(Pair(n, str(n), f"s{n % seekers}", f"p{n}", "r", level) for n, level in enumerate(levels))
    with pytest.raises(KitError) as error:
        make_split(Corpus("hand", pairs, {}, schema=schema), kind, 0)
    return str(error.value).removeprefix(f"--split {kind} of hand: ")


def test_a_label_that_the_data_does_not_have_is_refused() -> None:
    for kind in SPLITS:
        assert refusal([(n % 2, n % 3) for n in range(90)], tasks_of(("no", "a bit", "yes"), ("0", "1", "2")), kind) == (
            "the train part has no pair with a label 'yes' (the data has 0), expected at least one in each part; "
            "more are needed, or --tasks without a"
        )


def test_a_part_without_a_rare_label_is_refused_and_groups_are_counted_where_they_are_the_reason() -> None:
    schema = tasks_of(("0", "1", "2"))
    rare = [(2 if n % 30 < 1 else n % 2,) for n in range(90)]
    assert refusal(rare[:60], schema) == (
        "the validation part has no pair with a label '2' (the data has 2), expected at least one in each part; more are needed"
    )
    assert refusal(rare, schema, seekers=30) == (
        "the validation part has no pair with a label '2' (the data has 3, in 1 group that share a seeker id or seeker post), "
        "expected at least one in each part; more are needed"
    )
    for count in (3, 4):  # no seed gives each part one of so few
        few = [(2 if n % (60 // count) == 0 else n % 2,) for n in range(60)]
        assert refusal(few, schema) == (
            f"the test part has no pair with a label '2' (the data has {count}), expected at least one in each part; "
            "more are needed"
        )
    assert refusal(rare, schema, "paper") == (
        "the test part has no pair with a label '2' (the data has 3), expected at least one in each part; "
        "another --split-seed may help"
    )


def test_a_part_with_no_labelled_pair_of_a_task_is_refused_unless_the_task_is_left_out() -> None:
    levels = [(n % 2, n % 2 if n < 2 else MISSING) for n in range(90)]
    schema = tasks_of(("no", "yes"), ("no", "yes"))
    assert refusal(levels, schema) == (
        "the validation part has no pair labelled for b (the data has 2), expected at least one in each part; "
        "more are needed, or --tasks without b"
    )
    pairs = tuple(Pair(n, str(n), f"s{n}", f"p{n}", "r", level) for n, level in enumerate(levels))
    corpus = Corpus("hand", pairs, {}, schema=schema)
    split = make_split(corpus, "grouped", 0, schema.select(["a"]))
    assert [len(split.part(name)) for name in PARTS] == [62, 14, 14]


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_spread_over_the_labelled_pairs_and_pairs_without_any_fill_the_parts(seed: int) -> None:
    levels = [(MISSING if n % 5 == 0 else n % 2, MISSING if n % 5 < 2 else n % 3) for n in range(300)]
    pairs = tuple(Pair(n, str(n), f"s{n}", f"p{n}", "r", level) for n, level in enumerate(levels))
    corpus = Corpus("hand", pairs, {}, schema=tasks_of(("no", "yes"), ("low", "mid", "high")))
    split = make_split(corpus, "grouped", seed)
    assert sorted(split.train + split.validation + split.test) == list(range(300))
    whole = class_counts(pairs, corpus.schema)
    for name, fraction in zip(PARTS, FRACTIONS, strict=True):
        part = take(corpus, split.part(name))
        assert abs(len(part) - fraction * 300) <= 2
        for task, counts in class_counts(part, corpus.schema).items():
            assert all(abs(count - fraction * all_of_it) < 3 for count, all_of_it in zip(counts, whole[task], strict=True))


def test_the_split_is_the_same_whichever_tasks_are_trained(sample: Corpus) -> None:
    for kind in SPLITS:
        assert make_split(sample, kind, 0, EPITOME.select(["IP"])) == make_split(sample, kind, 0)


def test_a_recorded_split_of_the_sample_stays_as_it_is(sample: Corpus) -> None:
    assert [make_split(sample, kind, 0).sha256()[:16] for kind in SPLITS] == ["60e9f0c27eeeb02c", "fee3fba8f0d9ddc3"]


def test_an_empty_corpus_is_refused() -> None:
    for kind in SPLITS:
        with pytest.raises(KitError) as error:
            make_split(corpus_of([]), kind, 0)
        assert str(error.value) == f"--split {kind} of hand: the train part is empty (0 pairs); more are needed"


@pytest.mark.parametrize("count", [2, 5, 7])
def test_folds_are_of_like_size_spread_every_label_and_keep_a_seeker_together(sample: Corpus, count: int) -> None:
    folds = make_folds(sample, count, 1)
    assert sorted(at for fold in folds for at in fold) == list(range(len(sample)))
    assert folds == make_folds(sample, count, 1) != make_folds(sample, count, 2)
    assert all(abs(len(fold) - len(sample) / count) < 0.05 * len(sample) for fold in folds)
    whole = class_counts(sample.pairs, EPITOME)
    for fold in folds:
        for name, counts in class_counts(take(sample, fold), EPITOME).items():
            assert all(abs(found - all_of / count) <= 3 for found, all_of in zip(counts, whole[name], strict=True))
    homes = [{pair.seeker_id for pair in take(sample, fold)} for fold in folds]
    assert sum(map(len, homes)) == len(set().union(*homes))


def test_folds_need_as_many_groups_and_every_label_twice() -> None:
    two = corpus_of([("a", "x"), ("b", "y")])
    told = "of hand: 2 pairs in 2 groups that share a seeker id or seeker post, expected at least"
    for count in (5, 10**30):
        with pytest.raises(KitError, match=f"^--folds {count} {told} {count}; use fewer folds, or more seekers$"):
            make_folds(two, count, 0)
    with pytest.raises(KitError, match=r"^--folds 1: expected 2 or more$"):
        make_folds(two, 1, 0)


@pytest.mark.parametrize(
    ("seekers", "found"),
    [
        (1, "1 of the folds with IP label '1' (the data has 9, in 1 group that share a seeker id or seeker post)"),
        (0, "0 of the folds with IP label '1' (the data has 0)"),
    ],
)
def test_folds_need_every_label_twice(seekers: int, found: str) -> None:
    """Of the pairs with level 1 of IP, all are one seeker's, or there are none."""
    several = corpus_of([(f"s{number}", f"post {number}") for number in range(9)])
    pairs = [replace(pair, levels=(*pair.levels[:2], 0)) for pair in several.pairs for _ in range(4)]
    pairs += [replace(pair, levels=(*pair.levels[:2], 2)) for pair in several.pairs]
    pairs += [replace(pair, seeker_id="one", levels=(0, 0, 1)) for pair in several.pairs] * seekers
    apart = [
        replace(pair, seeker_id=pair.seeker_id if pair.seeker_id == "one" else f"s{at}", seeker=f"post {at}")
        for at, pair in enumerate(pairs)
    ]
    with pytest.raises(KitError) as error:
        make_folds(Corpus("hand", tuple(apart), {}), 3, 0)
    assert str(error.value) == f"--folds 3 of hand: {found}, expected at least 2; more are needed, or --tasks without IP"


@pytest.mark.parametrize("kind", SPLITS)
def test_a_smaller_share_of_the_training_seekers_is_part_of_a_larger_one(sample: Corpus, kind: str) -> None:
    split = make_split(sample, kind, seed=3)
    assert thin_out(sample, split, 1) == split
    before = set(split.train)
    for share in (0.8, 0.6, 0.4):
        thin = thin_out(sample, split, share)
        assert (thin.validation, thin.test, thin.sha256()) == (split.validation, split.test, split.sha256())
        assert set(thin.train) | set(thin.unused) == set(split.train)
        assert set(thin.train) < before
        before = set(thin.train)
        kept, left = ({same_words(sample.pairs[at].seeker) for at in part} for part in (thin.train, thin.unused))
        assert not kept & left
        assert len(thin.train) == pytest.approx(share * len(split.train), rel=0.2)  # groups are not equally large
    assert thin.train != thin_out(sample, replace(split, seed=4), share).train


def test_a_share_that_leaves_no_pair_of_a_label_is_refused(sample: Corpus) -> None:
    with pytest.raises(KitError, match=r"--train-share 0\.001: no pair with ER label '\d' is left in the training part \(\d of"):
        thin_out(sample, make_split(sample, "grouped", 0), 0.001)
