"""What is counted over a corpus leaves missing labels out, and the hash holds all that a run can see."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from empathy_kit.data.pairs import Corpus, Pair, Span, class_counts, duplicates, labelled, placeholder_rows, placeholders
from empathy_kit.data.schema import EPITOME, MISSING, Schema, TaskSchema
from empathy_kit.data.sources import load_corpus

TWO = Schema((TaskSchema("a", "a", "a", ("no", "yes")), TaskSchema("b", "b", "b", ("x", "y", "z"))))


def corpus_of(*levels: tuple[int, ...], seekers: str = "", schema: Schema = TWO) -> Corpus:
    """One pair per row of levels; pairs of equal letters in ``seekers`` are duplicates."""
    pairs = (Pair(n, str(n), "", f"post {seekers[n : n + 1] or n}", "r", row) for n, row in enumerate(levels))
    return Corpus("hand", tuple(pairs), {}, schema=schema)


def test_a_missing_label_is_counted_nowhere() -> None:
    pairs = corpus_of((0, 2), (1, MISSING), (MISSING, 2), (MISSING, MISSING)).pairs
    assert class_counts(pairs, TWO) == {"a": (1, 1), "b": (0, 0, 2)}
    assert labelled(pairs, TWO) == {"a": 2, "b": 2}
    assert class_counts([], TWO) == {"a": (0, 0), "b": (0, 0, 0)}


def test_a_pair_without_spans_has_as_many_empty_places_as_tasks() -> None:
    pair = Pair(1, "1", "", "s", "r", (0, 2, MISSING, 1))
    assert (pair.spans, pair.unplaced) == (((),) * 4, (0,) * 4)
    assert [pair.annotated(task) for task in range(4)] == [True, False, False, False]
    pair = replace(pair, spans=((), (Span(0, 1),), (Span(0, 1),), (Span(0, 1),)), unplaced=(0, 0, 0, 1))
    assert [pair.annotated(task) for task in range(4)] == [True, True, False, False]


def test_duplicates_agree_where_two_or_more_are_labelled() -> None:
    corpus = corpus_of((0, 1), (0, 2), (1, MISSING), (MISSING, MISSING), (0, MISSING), (0, 0), (1, 1), seekers="ppqqrrr")
    found = duplicates(corpus)
    # p: a agrees, b does not; q: one label of a alone; r: a does not, b has 0 and 1.
    assert (found.groups, found.surplus, found.agreement, found.conflicting) == (3, 4, {"a": 0.5, "b": 0.0}, 2)
    assert duplicates(corpus_of((0, MISSING), (0, 1), seekers="pp")).agreement == {"a": 1.0}
    assert duplicates(corpus_of((0, 1), (0, 1))).agreement == {}


def test_the_hash_of_the_sample_is_that_of_older_records_and_other_labels_have_another() -> None:
    sample = load_corpus("sample")
    assert sample.sha256() == "ada43ffdbba175bb59ea9909a684d4edfcba1085cec5f34a3ab5049b2880cb0e"
    titles = Schema(tuple(replace(task, title="x", column=f"{task.column}2") for task in EPITOME.tasks))
    assert replace(sample, schema=titles).sha256() == sample.sha256()  # a run sees neither titles nor columns
    labels = Schema(tuple(replace(task, labels=("a", "b", "c")) for task in EPITOME.tasks))
    assert replace(sample, schema=labels).sha256() != sample.sha256()
    unlabelled = replace(sample.pairs[0], levels=(MISSING, 0, 0))
    assert replace(sample, pairs=(unlabelled, *sample.pairs[1:])).sha256() != sample.sha256()


def test_the_hash_is_that_of_the_pairs_as_json_whatever_their_signs() -> None:
    odd = 'a "quote" \\ back\tslash, \x00 \x7f é \u2028 \U0001f600'
    spans = (((Span(0, 1), Span(3, 12)), (), (Span(2, 3),)), ((), (), ()))
    pairs = tuple(Pair(1, "1", odd, odd, f"{odd}!", (2, MISSING, 1), each, (0, 0, 10)) for each in spans)
    written = [[odd, odd, f"{odd}!", [2, MISSING, 1], [[[0, 1], [3, 12]], [], [[2, 3]]], [0, 0, 10]]]
    written.append([*written[0][:4], [[], [], []], [0, 0, 10]])
    assert Corpus("x", pairs, {}).sha256() == hashlib.sha256("".join(map(json.dumps, written)).encode()).hexdigest()


@pytest.mark.parametrize(
    ("post", "counted"),
    [
        *((post, True) for post in ("[removed]", " [Deleted] ", "[deleted by user]", "[ Removed by Reddit ]", "nan", "N/A")),
        *((post, False) for post in ("I removed it", "nan died", "[removed] but still here", "deleted " * 1000)),
    ],
)
def test_placeholders_in_place_of_posts_are_listed_by_row(post: str, counted: bool) -> None:
    pairs = (Pair(4, "4", "", post, "r", (0,)), Pair(5, "5", "", "s", post, (0,)))
    assert placeholders(pairs) == (((4, "seeker_post"), (5, "response_post")) if counted else ())


def test_a_warning_counts_the_rows_with_placeholders_and_names_the_first() -> None:
    pairs = [Pair(row, str(row), "", "NA" if row > 2 else "s", "nan" if row == 4 else "r", (0,)) for row in range(1, 10)]
    assert placeholder_rows(pairs[:2]).warning is None
    assert placeholder_rows(pairs[:3]).warning == (
        "1 row has a placeholder such as [removed] or NA in place of a post (row 3), which is read as its text; leave it out"
    )
    assert placeholder_rows(pairs).warning == (
        "7 rows have a placeholder such as [removed] or NA in place of a post (rows 3, 4, 5, 6, 7 and 2 more), "
        "which is read as its text; leave them out"
    )
    assert placeholder_rows(pairs, seekers=False).first == (4,)
