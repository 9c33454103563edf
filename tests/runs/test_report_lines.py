"""The lines about a run's data: what was found, what is left out, and what a split or a length limit costs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from empathy_kit.data.pairs import Placement
from empathy_kit.data.schema import EPITOME
from empathy_kit.data.sources import load_corpus
from empathy_kit.runs.describe import describe_data
from empathy_kit.runs.report import data_lines, split_lines, split_warnings, truncation_lines

COUNTS = {"ER": [20, 9, 1], "EX": [26, 1, 3], "IP": [16, 1, 13]}

DATA: dict[str, Any] = {
    "name": "made",
    "pairs": 3084,
    "seeker_posts": 2979,
    "sha256": "0123456789abcdef",
    "class_counts": {name: [2000, 1000, 84] for name in ("ER", "EX", "IP")},
    "spans": {
        "total": 3382,
        "exact": 3371,
        "whitespace": 6,
        "fuzzy": 2,
        "lost": {"ER": {"count": 2, "rows": [7, 9]}, "IP": {"count": 1, "rows": [7]}},
        "bare": {"EX": {"count": 1, "rows": [5]}},
    },
    "columns": {"read": [], "ignored": 0},
    "duplicates": {"groups": 60, "surplus": 61, "agreement": {"ER": 5 / 6, "EX": 14 / 15, "IP": 5 / 6}, "conflicting": 19},
}
NOTHING = {
    **DATA,
    "spans": {"total": 0, "exact": 0, "whitespace": 0, "fuzzy": 0, "lost": {}, "bare": {}},
    "duplicates": {"groups": 0, "surplus": 0, "agreement": {}, "conflicting": 0},
}


def test_the_data_lines_say_what_was_found_and_what_cannot_be_used_by_row() -> None:
    assert list(data_lines(DATA)) == [
        "data made: 3,084 pairs, 2,979 seeker posts, sha256 0123456789ab",
        "spans: 3,382 annotated; 3,371 found exactly, 6 up to white space and case, 2 word by word, 3 not found",
        "spans not found, not used: ER rows 7, 9; IP row 7",
        "labels above the lowest without a span, left out of the span loss: EX row 5",
        "duplicates: 60 pairs occur again (61 surplus rows, kept); labels agree in ER 83.3 %, EX 93.3 %, IP 83.3 %; "
        "19 conflict somewhere",
    ]
    bare = {**NOTHING, "spans": {**NOTHING["spans"], "bare": {"EX": {"count": 2, "rows": [5, 6]}}}}  # a column without any span
    assert list(data_lines(bare))[1:] == ["labels above the lowest without a span, left out of the span loss: EX rows 5, 6"]
    assert list(data_lines(NOTHING)) == ["data made: 3,084 pairs, 2,979 seeker posts, sha256 0123456789ab"]


def test_the_rows_in_records_of_earlier_versions_are_read() -> None:
    listed = {"lost": [[7, "ER"], [9, "ER"], [7, "IP"]], "bare": [[5, "EX"]]}
    assert list(data_lines({**DATA, "spans": {**DATA["spans"], **listed}})) == list(data_lines(DATA))


def test_a_sparse_column_of_spans_is_counted_and_not_listed() -> None:
    """Of three tasks, each with a span for one pair alone: a record must not name all others, nor a run print them."""
    entries = tuple((row, task) for row in range(1, 20_001) for task in ("ER", "EX", "IP"))
    corpus = replace(load_corpus("sample"), placement=Placement(exact=3, lost=entries[:24], bare=entries))
    data = describe_data(corpus)
    first = {"count": 20_000, "rows": [1, 2, 3, 4, 5]}
    assert data["spans"]["bare"] == {"ER": first, "EX": first, "IP": first}
    assert len(json.dumps(data)) < 2_000
    lines = list(data_lines(data))
    assert lines[1].endswith(" 3 found exactly, 0 up to white space and case, 0 word by word, 24 not found")
    assert lines[2:4] == [
        "spans not found, not used: " + "; ".join(f"{task} rows 1, 2, 3, 4, 5 and 3 more" for task in ("ER", "EX", "IP")),
        "labels above the lowest without a span, left out of the span loss: "
        + "; ".join(f"{task} rows 1, 2, 3, 4, 5 and 19,995 more" for task in ("ER", "EX", "IP")),
    ]
    every = describe_data(corpus, most_rows=None)["spans"]["bare"]["IP"]
    assert every == {"count": 20_000, "rows": list(range(1, 20_001))}


def test_the_first_five_rows_are_all_where_there_are_no_more() -> None:
    corpus = replace(load_corpus("sample"), placement=Placement(bare=tuple((row, "EX") for row in range(1, 6))))
    assert "labels above the lowest without a span, left out of the span loss: EX rows 1, 2, 3, 4, 5" in data_lines(
        describe_data(corpus)
    )


SPLIT: dict[str, Any] = {
    "kind": "paper",
    "seed": 3,
    "sha256": "fedcba9876543210",
    "pairs": {"train": 2158, "validation": 462, "test": 464},
    "leakage": {
        "validation": {"pairs": 10, "seekers": 20, "responses": 11},
        "test": {"pairs": 12, "seekers": 21, "responses": 0},
    },
    "class_counts": dict.fromkeys(("train", "validation", "test"), COUNTS),
}


def test_the_split_lines_say_sizes_and_leakage() -> None:
    assert list(split_lines(SPLIT)) == [
        "split paper, seed 3: 2,158/462/464 pairs in train, validation, test, sha256 fedcba987654",
        "also in train, of 462 validation pairs: whole pairs 10, seekers 20, responses 11",
        "also in train, of 464 test pairs: whole pairs 12, seekers 21, responses 0",
    ]
    told = list(split_lines({**SPLIT, "unused": 1079}))
    assert told[1] == "left out of the training part: 1,079 pairs (--train-share)"


def test_the_truncation_lines_say_what_the_limit_costs() -> None:
    truncation = {"max_tokens": 64, "seekers": 1400, "responses": 7, "evidence": [10, 0, 4], "evidence_lost": [2, 0, 1]}
    assert list(truncation_lines(truncation, "head", 3084, EPITOME.names)) == [
        "truncation to 64 tokens (head): cuts 1,400 seeker posts and 7 responses of 3,084",
        "pairs that lose all their annotated evidence: ER 2 of 10, EX 0 of 0, IP 1 of 4",
    ]
    without = {**truncation, "evidence": [0, 0, 0], "evidence_lost": [0, 0, 0]}
    assert len(list(truncation_lines(without, "head", 9, EPITOME.names))) == 1


def test_spans_of_missing_labels_and_columns_that_were_read_are_said() -> None:
    spans = {**DATA["spans"], "unlabelled": 1200}
    found = list(data_lines({**DATA, "spans": spans, "columns": {"read": ["seeker_id", "pair_id"], "ignored": 1}}))
    assert "spans where the label is missing, not used: 1,200" in found
    assert "optional columns read: seeker_id, pair_id; 1 other column ignored" in found
    found = list(data_lines({**DATA, "columns": {"read": [], "ignored": 2}}))
    assert "optional columns read: none; 2 other columns ignored" in found


@pytest.mark.parametrize(("largest", "warned"), [(462, False), (463, True), (3000, True)])
def test_one_large_group_is_warned_of_from_15_percent_on(largest: int, warned: bool) -> None:
    line = (
        f"warning: {largest:,} of 3,084 pairs share a seeker id or seeker post and stay in one part; "
        "is every seeker_id one person's?"
    )
    assert list(split_warnings({**SPLIT, "largest_group": largest})) == [line] * warned


def test_a_group_is_measured_by_all_pairs_and_not_by_those_that_train_share_keeps() -> None:
    thinned = {**SPLIT, "pairs": {"train": 58, "validation": 462, "test": 464}, "unused": 2100}
    assert list(split_warnings({**thinned, "largest_group": 462})) == []
    assert next(split_warnings({**thinned, "largest_group": 463})).startswith("warning: 463 of 3,084 pairs share ")


def test_how_many_are_labelled_is_said_where_some_are_not() -> None:
    some = {**DATA, "class_counts": {"warmth": [60, 36], "advice": [3000, 84]}}
    assert "labelled pairs: warmth 96, advice 3,084; the others count in no loss and no score of that task" in data_lines(some)
    every = {**DATA, "class_counts": {"warmth": [3000, 84]}}
    assert not any("labelled" in line for line in data_lines(every))
