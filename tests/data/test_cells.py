"""A cell is a post, a label, an id or quotes; each has one rule, and a fault is named by file, row and column."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pyarrow
import pytest
from tabular import HEADER, WRITERS, arrow_bytes, fault, jsonl_bytes, one_row, read

from empathy_kit.data.cells import MAX_CELL, LabelReader, Row
from empathy_kit.data.schema import MISSING, TaskSchema
from empathy_kit.errors import KitError


def reader(*labels: str) -> LabelReader:
    return LabelReader(TaskSchema("task", "task", "task", labels))


@pytest.mark.parametrize(
    ("labels", "cells", "levels"),
    [
        (("0", "1", "2"), ["0", " 2 ", "1.0", "1.00", 1, 2.0, Decimal("1.0")], [0, 2, 1, 1, 1, 2, 1]),
        (("-1", "0.5", "10"), ["-1", "0.50", 0.5, 10, "10.0"], [0, 1, 1, 2, 2]),
        (("no", "yes"), ["no", "\tyes\n"], [0, 1]),
        (("false", "true"), [False, True, "TRUE", "False", "true"], [0, 1, 1, 0, 1]),
        (("No", "True"), [True, "true", "No"], [1, 1, 0]),
        (("gar nicht", "über alle Maßen"), ["gar nicht", "u\u0308ber alle Maßen"], [0, 1]),
        (("None", "NA", "-"), ["None", "NA", "-"], [0, 1, 2]),
        (("1_000", "1"), ["1_000", "1"], [0, 1]),
        (("no", "yes"), [None, "", " \n", float("nan")], [MISSING] * 4),
    ],
)
def test_a_label_is_its_text_its_number_or_its_truth_value(
    labels: tuple[str, ...], cells: list[object], levels: list[int]
) -> None:
    assert [reader(*labels).level(cell) for cell in cells] == levels


@pytest.mark.parametrize(
    ("labels", "cell", "problem"),
    [
        (("0", "1", "2"), "3", "3 found, expected 0, 1 or 2"),
        (("0", "1", "2"), -1, "-1 found, expected 0, 1 or 2"),
        (("0", "1", "2"), 1.5, "1.5 found, expected 0, 1 or 2"),
        (("0", "1", "2"), 10**4000, "a number found, expected 0, 1 or 2"),
        (("0", "1", "2"), float("inf"), "a number found, expected 0, 1 or 2"),
        (("0", "1", "2"), "²", "text of 1 character found, expected 0, 1 or 2"),
        (("0", "1", "2"), "\u0661", "text of 1 character found, expected 0, 1 or 2"),
        (("0", "1000"), "1_000", "text of 5 characters found, expected 0 or 1000"),
        (("0", "1", "2"), "01", "01 found, expected 0, 1 or 2"),
        (("0", "1", "2"), True, "a boolean found, expected 0, 1 or 2"),
        (("0", "1", "2"), [1], "a list found, expected 0, 1 or 2"),
        (("0", "1", "2"), {"a post": 1}, "an object found, expected 0, 1 or 2"),
        (("no", "yes"), b"yes", "a bytes found, expected no or yes"),
        (("no", "yes"), "YES", "'YES' found, expected no or yes"),
        (("no", "yes"), "somebody's post", "text of 15 characters found, expected no or yes"),
        (("true", "True"), True, "a boolean found, expected true or True"),
        (("not at all", "yes, much"), "1", "1 found, expected 'not at all' or 'yes, much'"),
        (tuple("abcdefghijkl"), "z", "text of 1 character found, expected a, b, c, d, e, f, g, h, i, j or one of 2 more"),
        *(
            (("no", "yes"), word, f"{word.strip()!r} found, expected no or yes, or an empty cell where the label is missing")
            for word in ("NA", "N/A", " nan ", "NaN", "None", "null", "NULL", "\\N", "-", "?", "<NA>", "#N/A")
        ),
    ],
)
def test_another_label_is_refused_with_what_there_is_and_no_post_is_shown(
    labels: tuple[str, ...], cell: object, problem: str
) -> None:
    row = Row("posts.csv", 7, {"warm": cell})
    with pytest.raises(KitError) as error:
        row.label("warm", reader(*labels))
    assert str(error.value) == f"posts.csv, row 7, column 'warm': {problem}"


def test_parquet_labels_may_be_categories_numbers_booleans_or_null(tmp_path: Path) -> None:
    columns = {name: pyarrow.array([cell] * 3) for name, cell in one_row().items()}
    columns["ER"] = pyarrow.array(["0", None, "2"]).dictionary_encode()
    columns["EX"] = pyarrow.array([1.0, float("nan"), None])
    columns["IP"] = pyarrow.array([2, None, 0], "int8")
    levels = [pair.levels for pair in read(tmp_path, "parquet", arrow_bytes(columns)).pairs]
    assert levels == [(0, 1, 2), (MISSING, MISSING, MISSING), (2, MISSING, 0)]


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        (None, ""),
        (float("nan"), ""),
        ("  ", ""),
        (" s1 ", "s1"),
        (12, "12"),
        (12.0, "12"),
        ("12.0", "12"),
        (Decimal("12.0"), "12"),
        ("012", "012"),
        ("12.50", "12.50"),
        ("7e12", "7e12"),  # an id of Reddit
        (2**70, str(2**70)),
        (10**4299, "1" + "0" * 4299),  # as many digits as JSON may have; no float is as large
    ],
)
def test_an_id_is_one_however_a_whole_number_is_written_and_may_be_missing(cell: object, found: str) -> None:
    assert Row("posts.csv", 1, {"seeker_id": cell}).identifier("seeker_id") == found


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (1.5, "a number with a fraction found, expected text or a whole number"),
        (float("inf"), "a number with a fraction found, expected text or a whole number"),
        (1e17, "a rounded number found, expected all digits; save the column as text"),
        ("1.23457e+17", "a rounded number found, expected all digits; save the column as text"),
        (True, "a boolean found, expected text"),
        ([1], "a list found, expected text"),
        *(
            (word, f"{word!r} found, expected an id, or an empty cell where it is missing")
            for word in ("None", "nan", "NA", "\\N", "-", "[deleted]")
        ),
    ],
)
def test_an_id_that_would_be_one_for_many_seekers_is_refused(cell: object, problem: str) -> None:
    with pytest.raises(KitError) as error:
        Row("posts.csv", 1, {"seeker_id": cell}).identifier("seeker_id")
    assert str(error.value) == f"posts.csv, row 1, column 'seeker_id': {problem}"


@pytest.mark.parametrize(
    ("cell", "quotes"),
    [
        ("so sorry|hugs", ["so sorry", "hugs"]),
        (["so | sorry", "hugs"], ["so | sorry", "hugs"]),
        ("['so sorry', \"it's hard\"]", ["so sorry", "it's hard"]),  # repr(), as pandas writes a list
        ("['so sorry'\n 'it\\'s | hard']", ["so sorry", "it's | hard"]),  # numpy's
        ("['caf\\xe9 \\U0001f917', 'a\\nb\\\\']", ["café 🤗", "a\nb\\"]),
        (r'["so \u201csorry\u201d \ud83e\udd17", "hugs"]', ["so “sorry” 🤗", "hugs"]),  # json.dumps()
        ("[]", []),
        ("[sic] you matter", ["[sic] you matter"]),
        ("[1]", ["[1]"]),
        ("hugs ['really']", ["hugs ['really']"]),
        ('("it\'s hard, and you matter")', ['("it\'s hard, and you matter")']),
    ],
)
def test_quotes_are_a_list_also_one_saved_as_text_or_text_with_bars_between(cell: object, quotes: list[str]) -> None:
    assert Row("posts.csv", 1, {"ER_spans": cell}).quotes("ER_spans") == quotes


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("['so', sorry]", "a list in another form found, expected a JSON list, or text with | between the quotes"),
        ('["so", 1]', "a list in another form found, expected a JSON list, or text with | between the quotes"),
        *(
            (cell, "a list in another form found, expected a JSON list, or text with | between the quotes")
            for cell in ("('so sorry', 'hugs')", " {'so sorry', \"it's hard\"}\n", "('so sorry',)")  # repr() of tuples and sets
        ),
        ("['so sorry", "a list in another form found, expected a JSON list, or text with | between the quotes"),
        ("nan", "'nan' found, expected quotes, or an empty cell for none"),
        ("|".join("e" * 101), "101 spans found, expected at most 100"),
        (str(["e"] * 101), "101 spans found, expected at most 100"),
    ],
)
def test_a_cell_of_quotes_that_is_neither_is_refused(cell: str, problem: str) -> None:
    with pytest.raises(KitError) as error:
        Row("posts.csv", 1, {"ER_spans": cell}).quotes("ER_spans")
    assert str(error.value) == f"posts.csv, row 1, column 'ER_spans': {problem}"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("seeker_post", "", "empty, expected a post"),
        ("response_post", " \n\u00a0&nbsp;", "empty, expected a post"),
        ("seeker_post", "a\0b", "a NUL byte found, expected text"),
        ("seeker_id", "\0", "a NUL byte found, expected text"),
        ("ER_spans", "a\0b", "a NUL byte found, expected text"),
        ("response_post", "x" * 10_000_000, "10,000,000 characters found, expected at most 100,000"),
        ("seeker_post", "\u200b\u2060 \ufe0f&#8203;", "only invisible characters found, expected a post"),
        ("IP_spans", "b", "a span found, expected none where the label is '0', the lowest"),
    ],
)
def test_a_bad_cell_is_named_by_file_row_and_column(tmp_path: Path, kind: str, column: str, value: str, problem: str) -> None:
    row = one_row(**{column: value})
    good = one_row(**({column: "fine"} if column.endswith(("post", "id")) else {column: ""}))
    data = WRITERS[kind](list(row), [list(good.values()), list(row.values())])
    assert fault(tmp_path, kind, data) == f"posts.{kind}, row 2, column {column!r}: {problem}"


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("seeker_post", 7, "a number found, expected text"),
        ("response_post", float("nan"), "empty, expected a post"),
        ("response_post", "half \ud83d", "half a surrogate pair found, expected text"),
        ("ER_spans", ["b", 1], "a list of other things found, expected a list of text"),
        ("ER_spans", ["b", "a\0b"], "a NUL byte found, expected text"),
        ("ER_spans", ["x" * (MAX_CELL + 1)], "100,001 characters found, expected at most 100,000"),
        ("ER_spans", {"b": 1}, "an object found, expected text"),
    ],
)
def test_a_json_cell_is_text(tmp_path: Path, column: str, value: object, problem: str) -> None:
    row = one_row(**{column: value})
    data = jsonl_bytes(list(row), [list(row.values())])
    assert fault(tmp_path, "jsonl", data) == f"posts.jsonl, row 1, column {column!r}: {problem}"


def test_a_cell_of_just_the_limit_is_read_whole(tmp_path: Path) -> None:
    (pair,) = read(tmp_path, "csv", (HEADER + f"a,{'x y ' * (MAX_CELL // 4)},0,0,0\n").encode()).pairs
    assert len(pair.response) == MAX_CELL
