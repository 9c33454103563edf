"""One table, CSV or JSON Lines or Parquet: the same corpus from each, and one line for whatever is wrong with it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from empathy_kit.data.pairs import Corpus, Span
from empathy_kit.data.tables import MAX_CELL, load_table
from empathy_kit.errors import KitError

NAMES = ["pair_id", "seeker_id", "seeker_post", "response_post", "ER", "EX", "IP", "ER_spans", "EX_spans", "IP_spans"]
ROWS: list[list[Any]] = [
    [1, "s1", "No calls, \"not one\"\nsince May.", "So sorry. What happened? 🤗", 2, 2, 0, ["So sorry."], ["What happened?"], []],
    [2, "s1", "I &lt;3 nights, hate days", "You sound worn out &amp; alone", 0, 0, 1, [], [], ["worn out &amp; alone"]],
    [3, "s2", "сегодня плохо", "Hugs. Truly, hugs.", 1, 0, 0, ["Hugs.", "hugs"], [], []],
]  # fmt: skip
HEADER = "seeker_post,response_post,ER,EX,IP\n"


def csv_bytes(names: list[str], rows: list[list[Any]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([names, *(["|".join(cell) if isinstance(cell, list) else cell for cell in row] for row in rows)])
    return out.getvalue().encode("utf-8", "surrogatepass")


def jsonl_bytes(names: list[str], rows: list[list[Any]]) -> bytes:
    return "".join(json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows).encode()


def parquet_bytes(names: list[str], rows: list[list[Any]]) -> bytes:
    out = io.BytesIO()
    columns = (
        [pyarrow.array(column) for column in zip(*rows, strict=True)] if rows else [pyarrow.array([], "string")] * len(names)
    )
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names), out)
    return out.getvalue()


WRITERS: dict[str, Callable[[list[str], list[list[Any]]], bytes]] = {
    "csv": csv_bytes,
    "jsonl": jsonl_bytes,
    "parquet": parquet_bytes,
}


def read(folder: Path, kind: str, data: bytes) -> Corpus:
    path = folder / f"posts.{kind}"
    path.write_bytes(data)
    return load_table(path)


def fault(folder: Path, kind: str, data: bytes) -> str:
    with pytest.raises(KitError) as error:
        read(folder, kind, data)
    return str(error.value)


def test_csv_jsonl_and_parquet_give_the_same_corpus(tmp_path: Path) -> None:
    corpora = [read(tmp_path, kind, write(NAMES, ROWS)) for kind, write in WRITERS.items()]
    first = corpora[0]
    assert all((one.pairs, one.placement, one.sha256()) == (first.pairs, first.placement, first.sha256()) for one in corpora)
    assert [list(one.sources) for one in corpora] == [["posts.csv"], ["posts.jsonl"], ["posts.parquet"]]
    assert [pair.row for pair in first.pairs] == [1, 2, 3]
    assert [pair.levels for pair in first.pairs] == [(2, 2, 0), (0, 0, 1), (1, 0, 0)]
    assert first.pairs[0].pair_id == "1"
    assert first.pairs[0].seeker == 'No calls, "not one"\nsince May.'
    assert first.pairs[1].seeker == "I <3 nights, hate days"
    spans = [[pair.response[span.start : span.end] for part in pair.spans for span in part] for pair in first.pairs]
    assert spans == [["So sorry.", "What happened?"], ["worn out & alone"], ["Hugs.", "hugs"]]


def test_ids_and_spans_may_be_left_out(tmp_path: Path) -> None:
    (pair,) = read(tmp_path, "csv", (HEADER + "help,sure,1,0,0\n").encode()).pairs
    assert (pair.pair_id, pair.seeker_id, pair.spans) == ("1", "", ((), (), ()))
    assert not pair.annotated(0)
    assert pair.annotated(1)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_bom_and_windows_line_ends_change_nothing(tmp_path: Path, kind: str) -> None:
    data = WRITERS[kind](NAMES, ROWS[1:])  # without the row that has a line end inside a cell
    plain = read(tmp_path, kind, data.replace(b"\r\n", b"\n"))
    assert read(tmp_path, kind, b"\xef\xbb\xbf" + data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")).pairs == plain.pairs


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert len(read(tmp_path, "csv", (HEADER + "\na,b,0,0,0\n\n\nc,d,0,0,0\n\n").encode())) == 2
    assert len(read(tmp_path, "jsonl", jsonl_bytes(NAMES, ROWS).replace(b"\n", b"\n\r\n \n"))) == 3


def test_a_line_separator_inside_a_json_post_ends_no_line(tmp_path: Path) -> None:
    row = {"seeker_post": "one\u2028two\x85three", "response_post": "x", "ER": 0, "EX": 0, "IP": 0}
    (pair,) = read(tmp_path, "jsonl", json.dumps(row, ensure_ascii=False).encode()).pairs
    assert pair.seeker == "one\u2028two\x85three"


def test_a_level_may_be_text_or_a_whole_float(tmp_path: Path) -> None:
    row = {"seeker_post": "a", "response_post": "b", "ER": " 2 ", "EX": 1.0, "IP": 0}
    assert read(tmp_path, "jsonl", json.dumps(row).encode()).pairs[0].levels == (2, 1, 0)


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("3", "3"),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("", "nothing"),
        ("  ", "nothing"),
        ("²", "str of another value"),
        ("somebody's post", "str of another value"),
        ("12345", "str of another value"),
    ],
)
def test_a_level_is_0_1_or_2(tmp_path: Path, cell: str, found: str) -> None:
    data = (HEADER + f'a,b,0,0,0\na,b,0,"{cell}",0\n').encode()
    assert fault(tmp_path, "csv", data) == f"posts.csv, row 2, column 'EX': {found} found, expected 0, 1 or 2"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "nothing"),
        (True, "bool of another value"),
        ([1], "list of another value"),
        (float("nan"), "float of another value"),
    ],
)
def test_a_json_level_is_0_1_or_2(tmp_path: Path, value: object, found: str) -> None:
    row = {"seeker_post": "a", "response_post": "b", "ER": value, "EX": 0, "IP": 0}
    message = f"posts.jsonl, row 1, column 'ER': {found} found, expected 0, 1 or 2"
    assert fault(tmp_path, "jsonl", json.dumps(row).encode()) == message


def one_row(**cells: object) -> dict[str, object]:
    return {"seeker_post": "a", "response_post": "b", "ER": 0, "EX": 0, "IP": 0} | cells


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
        ("IP_spans", "b", "a span found, expected none at level 0"),
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
        ("seeker_post", 7, "int found, expected text"),
        ("seeker_id", 1.5, "float found, expected text"),
        ("pair_id", True, "bool found, expected text"),
        ("response_post", "half \ud83d", "half a surrogate pair found, expected text"),
        ("ER_spans", ["b", 1], "a list of other things found, expected a list of text"),
        ("ER_spans", ["b", "a\0b"], "a NUL byte found, expected text"),
        ("ER_spans", ["x" * (MAX_CELL + 1)], "100,001 characters found, expected at most 100,000"),
        ("ER_spans", {"b": 1}, "dict found, expected text"),
    ],
)
def test_a_json_cell_is_text(tmp_path: Path, column: str, value: object, problem: str) -> None:
    data = json.dumps(one_row(**{column: value})).encode()
    assert fault(tmp_path, "jsonl", data) == f"posts.jsonl, row 1, column {column!r}: {problem}"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_10_mb_cell_that_nobody_asked_for_is_no_fault(tmp_path: Path, kind: str) -> None:
    row = one_row(notes="x" * 10_000_000)
    assert len(read(tmp_path, kind, WRITERS[kind](list(row), [list(row.values())]))) == 1


def test_a_cell_of_just_the_limit_is_read_whole(tmp_path: Path) -> None:
    (pair,) = read(tmp_path, "csv", (HEADER + f"a,{'x y ' * (MAX_CELL // 4)},0,0,0\n").encode()).pairs
    assert len(pair.response) == MAX_CELL


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_utf_16_is_named(tmp_path: Path, kind: str, encoding: str) -> None:
    data = WRITERS[kind](NAMES, ROWS).decode().encode(encoding)
    assert fault(tmp_path, kind, data) == f"posts.{kind}: UTF-16 found, expected UTF-8; save it again as UTF-8"


def test_a_byte_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    message = "posts.csv, line 3: byte 0xe9 is not UTF-8; save it again as UTF-8"
    assert fault(tmp_path, "csv", HEADER.encode() + b"a,b,0,0,0\ncaf\xe9,b,0,0,0\n") == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "posts.csv: empty, expected a header with the columns seeker_post, response_post, ER, EX, IP"),
        (HEADER, "posts.csv: no rows, expected at least one pair"),
        ("\ufeff\n" + HEADER, "posts.csv: column 'seeker_post' is missing; there are none"),
        ("seeker_post,response_post,ER,EX\na,b,0,0\n",
         "posts.csv: column 'IP' is missing; there are seeker_post, response_post, ER, EX"),
        ("I am lost,,ER,EX,IP\n", "posts.csv: column 'seeker_post' is missing; there are ER, EX, IP, 2 of other names"),
        ("lost,found,1,0,2\n",
         "posts.csv: column 'seeker_post' is missing; there are 5 of other names"),
        ("ER," + HEADER, "posts.csv: column 'ER' stands twice in the header"),
        ("ER_spans,ER_spans," + HEADER, "posts.csv: column 'ER_spans' stands twice in the header"),
        (HEADER + "a,b,0,0,0\na,b,0,0\n", "posts.csv, row 2: 4 cells found, expected 5"),
        (HEADER + 'a,"b" c,0,0,0\n', "posts.csv, row 1 (line 2): not a valid CSV row: ',' expected after '\"'"),
        (HEADER + 'a,b,0,0,0\na,"b,0,0,0\nc,d,0,0,0\n',
         "posts.csv, row 2 (line 4): not a valid CSV row: unexpected end of data"),
    ],
)  # fmt: skip
def test_a_malformed_csv_is_one_line(tmp_path: Path, data: str, message: str) -> None:
    assert fault(tmp_path, "csv", data.encode()) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "posts.jsonl: no rows, expected at least one pair"),
        ("\n{\n", "posts.jsonl, row 1: not valid JSON: Expecting property name enclosed in double quotes"),
        ("[1]", "posts.jsonl, row 1: a list found, expected an object"),
        ("{}", "posts.jsonl, row 1: column 'seeker_post' is missing"),
        ("[" * 200_000, "posts.jsonl, row 1: not valid JSON: RecursionError"),
        ('{"ER": ' + "1" * 5000 + "}", "posts.jsonl, row 1: not valid JSON: ValueError"),
    ],
)
def test_a_malformed_json_line_is_one_line(tmp_path: Path, data: str, message: str) -> None:
    assert fault(tmp_path, "jsonl", data.encode()) == message


def test_a_column_that_one_json_line_lacks_is_named_with_the_row(tmp_path: Path) -> None:
    data = jsonl_bytes(NAMES, ROWS) + b'{"seeker_post": "a", "response_post": "b", "ER": 0, "EX": 0}\n'
    assert fault(tmp_path, "jsonl", data) == "posts.jsonl, row 4: column 'IP' is missing"


def test_a_broken_parquet_file_is_one_line(tmp_path: Path) -> None:
    data = parquet_bytes(NAMES, ROWS)
    message = "posts.parquet: not a readable Parquet file (ArrowInvalid)"
    assert [fault(tmp_path, "parquet", bad) for bad in (b"", b"PAR1", data[: len(data) // 2])] == [message] * 3
    assert fault(tmp_path, "parquet", parquet_bytes(NAMES[2:6], [["a", "b", 0, 0]])) == (
        "posts.parquet: column 'IP' is missing; there are seeker_post, response_post, ER, EX"
    )
    assert fault(tmp_path, "parquet", parquet_bytes(NAMES, [])) == "posts.parquet: no rows, expected at least one pair"


def test_a_parquet_column_that_nobody_asked_for_may_hold_what_python_cannot(tmp_path: Path) -> None:
    row = one_row()
    names, columns = [*row, "when"], [pyarrow.array([value]) for value in row.values()]
    out = io.BytesIO()
    far = pyarrow.array([10**9], "int32").cast("date32")  # the year 2,739,877
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([*columns, far], names), out)
    assert len(read(tmp_path, "parquet", out.getvalue())) == 1


def test_a_span_that_is_not_in_its_response_is_counted_and_listed_by_row(tmp_path: Path) -> None:
    rows = [
        ["a", "I hear you.", 0, 0, 1, "I hear you."],
        ["a", "I hear you.", 0, 0, 2, "hear|a sentence of another response|you"],
        ["a", "I hear you.", 0, 0, 2, ""],
    ]
    corpus = read(tmp_path, "csv", csv_bytes(["seeker_post", "response_post", "ER", "EX", "IP", "IP_spans"], rows))
    assert corpus.placement.lost == ((2, "IP"),)
    assert corpus.placement.bare == ((3, "IP"),)
    assert (corpus.placement.exact, corpus.placement.total) == (3, 4)
    assert corpus.pairs[1].spans[2] == (Span(2, 6), Span(7, 10))
    assert [pair.unplaced for pair in corpus.pairs] == [(0, 0, 0), (0, 0, 1), (0, 0, 0)]
    assert [pair.annotated(2) for pair in corpus.pairs] == [True, False, False]


def test_a_file_that_is_not_there_or_not_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    for name, message in {
        "gone.csv": "gone.csv: no such file",
        "folder.csv": "folder.csv: cannot be read: Is a directory",
        "posts.xlsx": "posts.xlsx: a .xlsx file, expected .csv, .jsonl, .parquet or a folder",
        "posts": "posts: a nameless file, expected .csv, .jsonl, .parquet or a folder",
    }.items():
        with pytest.raises(KitError) as error:
            load_table(Path(name))
        assert str(error.value) == message


# Every post of the property tests is cut from this, so that a message that shows two characters of one is caught.
CANDLES = st.text("🕯,w\n\"' |&<", max_size=12).map(lambda text: "🕯".join(text) + "🕯")
LEVEL = st.sampled_from(["0", "1", "2"])
CELL = st.one_of(CANDLES, LEVEL, st.text(max_size=3).map(lambda text: f"🕯{text}🕯"), st.sampled_from(["", "0.0", "-1"]))
QUIRKS: list[tuple[bytes, bytes]] = [(b"\r\n", b"\n"), (b"\r\n", b"\r"), (b'"', b""), (b",", b";"), (b"\xf0", b""), (b"w", b"\0")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def examples(number: int) -> settings:
    return settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def holds(folder: Path, kind: str, data: bytes) -> None:
    """Only a corpus or a `KitError` comes out, and the error is one line with no post in it."""
    try:
        corpus = read(folder, kind, data)
    except KitError as error:
        message = str(error)
        assert message.startswith(f"posts.{kind}")
        assert len(message.splitlines()) == 1
        assert message.isprintable()
        assert "🕯" not in message
    else:
        assert len(corpus) > 0
        corpus.sha256()
        for pair in corpus.pairs:
            assert pair.seeker.strip()
            assert pair.response.strip()
            assert set(pair.levels) <= {0, 1, 2}
            assert all(0 <= span.start < span.end <= len(pair.response) for part in pair.spans for span in part)


@examples(600)
@given(kind=st.sampled_from(["csv", "jsonl", "parquet"]), header=st.booleans(), data=st.binary(max_size=200))
def test_any_bytes_give_a_corpus_or_one_line(folder: Path, kind: str, header: bool, data: bytes) -> None:
    holds(folder, kind, (HEADER.encode() if header else b"") + data)


@examples(900)
@given(data=st.data())
def test_a_nearly_valid_csv_gives_a_corpus_or_one_line(folder: Path, data: st.DataObject) -> None:
    names = data.draw(st.sampled_from([NAMES, NAMES[2:], NAMES[:7], [*NAMES, "ER"]]))
    broken = data.draw(st.none() | st.sampled_from(names))
    kinds = [CELL if name == broken else LEVEL if len(name) == 2 else CANDLES for name in names]
    rows = [list(row) for row in data.draw(st.lists(st.tuples(*kinds), max_size=3))]
    for row in rows:
        for column, name in enumerate(names):
            if name.endswith("_spans") and name != broken and row[names.index(name[:2])] == "0":
                row[column] = ""
    table = csv_bytes(names, rows)
    if data.draw(st.integers(0, 9)) == 0:
        table = table.partition(b"\r\n")[2]  # no header
    for old, new in data.draw(st.lists(st.sampled_from(QUIRKS), max_size=1)):
        table = table.replace(old, new)
    if data.draw(st.integers(0, 9)) == 0:
        table = table.decode(errors="ignore").encode("utf-16")
    holds(folder, "csv", table)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CANDLES | st.text("🕯\ud83d\0", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CANDLES, inner, max_size=2),
    max_leaves=4,
)


@examples(700)
@given(data=st.data())
def test_nearly_valid_json_lines_give_a_corpus_or_one_line(folder: Path, data: st.DataObject) -> None:
    kinds = {name: CANDLES if name[0] in "rsp" else st.integers(0, 2) for name in NAMES[:7]}
    kinds |= {name: st.none() | st.lists(CANDLES, max_size=2) | CANDLES for name in NAMES[7:]}
    rows = data.draw(st.lists(st.fixed_dictionaries(kinds), max_size=3))
    for row in rows:
        for name in NAMES[7:]:
            if row[name[:2]] == 0:
                row[name] = None
    if rows and data.draw(st.booleans()):
        rows[-1][data.draw(st.sampled_from(NAMES))] = data.draw(JSON)
    if rows and data.draw(st.integers(0, 4)) == 0:
        del rows[-1][data.draw(st.sampled_from(NAMES))]
    lines = "\n".join(json.dumps(row, ensure_ascii=data.draw(st.booleans())) for row in rows).encode("utf-8", "surrogatepass")
    cut = data.draw(st.none() | st.integers(0, len(lines)))
    holds(folder, "jsonl", lines[:cut])
