"""Whatever bytes a table holds, a corpus or one line comes out, and the line holds no post."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tabular import HEADER, NAMES, csv_bytes, read

from empathy_kit.data.cells import LabelReader, Row
from empathy_kit.data.schema import MISSING, TaskSchema
from empathy_kit.errors import KitError

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


def holds(folder: Path, kind: str, data: bytes) -> bool:
    """Only a corpus or a `KitError` comes out, and the error is one line with no post in it; whether it is a corpus."""
    try:
        corpus = read(folder, kind, data)
    except KitError as error:
        message = str(error)
        assert message.startswith(f"posts.{kind}")
        assert len(message.splitlines()) == 1
        assert message.isprintable()
        assert "🕯" not in message
        return False
    else:
        assert len(corpus) > 0
        corpus.sha256()
        for pair in corpus.pairs:
            assert pair.seeker.strip()
            assert pair.response.strip()
            assert set(pair.levels) <= {MISSING, 0, 1, 2}
            assert all(0 <= span.start < span.end <= len(pair.response) for part in pair.spans for span in part)
        return True


@examples(200)
@given(kind=st.sampled_from(["csv", "jsonl", "parquet"]), header=st.booleans(), data=st.binary(max_size=200))
def test_any_bytes_give_a_corpus_or_one_line(folder: Path, kind: str, header: bool, data: bytes) -> None:
    holds(folder, kind, (HEADER.encode() if header else b"") + data)


def test_a_nearly_valid_csv_gives_a_corpus_or_one_line(folder: Path) -> None:
    outcomes = set()

    @examples(300)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
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
        outcomes.add(holds(folder, "csv", table))

    check()
    assert outcomes == {True, False}  # refusals alone would hold all of that


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CANDLES | st.text("🕯\ud83d\0", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CANDLES, inner, max_size=2),
    max_leaves=4,
)


def test_nearly_valid_json_lines_give_a_corpus_or_one_line(folder: Path) -> None:
    outcomes = set()

    @examples(300)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
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
        outcomes.add(holds(folder, "jsonl", lines[:cut]))

    check()
    assert outcomes == {True, False}  # refusals alone would hold all of that


@examples(200)
@given(
    labels=st.lists(st.sampled_from(["0", "1", "1.5", "true", "False", "yes", "NA", "viel zu viel"]), min_size=2, unique=True),
    cell=JSON | st.sampled_from(["0", "1.0", " 1.50 ", "TRUE", "NO", "nan", "-", "\\N", "1_0", "\u0661", 10**30]),
)
def test_any_cell_is_a_label_or_missing_or_one_line(labels: list[str], cell: object) -> None:
    reader = LabelReader(TaskSchema("task", "task", "task", tuple(labels)))
    level = reader.level(cell)
    if level is None:
        message = str(Row("posts.jsonl", 1, {}).error("task", reader.fault(cell)))
        assert len(message.splitlines()) == 1
        assert message.isprintable()
        assert "🕯" not in message
    else:
        assert MISSING <= level < len(labels)
