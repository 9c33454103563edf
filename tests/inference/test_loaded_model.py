"""A loaded model answers in its schema's words, calibrated, for one pair or a table, and refuses what is no pair."""

from __future__ import annotations

import csv
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from small_runs import train

import empathy_kit
from empathy_kit import EmpathyModel, KitError, Prediction
from empathy_kit.cli import cli
from empathy_kit.core.calibration import tempered
from empathy_kit.core.scored import Scored
from empathy_kit.data.pairs import Pair
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split

SEEKER, RESPONSE = "I failed my exam and I feel lost.", "That sounds so hard &amp; lonely. Have you talked to anyone?"


@pytest.fixture(scope="module")
def model(marking_run: Path) -> EmpathyModel:
    return empathy_kit.load(marking_run)


def posts(pairs: tuple[Pair, ...]) -> list[tuple[str, str]]:
    return [(pair.seeker, pair.response) for pair in pairs]


def test_it_gives_what_its_run_recorded_at_the_recorded_temperature(model: EmpathyModel, marking_run: Path) -> None:
    corpus = load_corpus("sample")
    test = tuple(corpus.pairs[at] for at in make_split(corpus, "grouped", 0).test)
    with (marking_run / "predictions.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    calibration = json.loads((marking_run / "run.json").read_text())["calibration"]
    for said, row in zip(model.predict(posts(test)), rows, strict=True):
        assert list(said.tasks) == ["ER", "EX", "IP"]
        for name, answer in said.tasks.items():
            assert answer.level == int(row[f"{name}_predicted"])
            assert answer.label == model.schema.tasks[model.schema.index(name)].labels[answer.level]
            recorded = np.array([float(row[f"{name}_p{level}"]) for level in range(3)])
            expected = tempered(recorded, calibration[name]["temperature"])
            assert list(answer.probabilities) == ["0", "1", "2"]
            assert list(answer.probabilities.values()) == pytest.approx(expected, abs=1e-4)
            assert max(answer.probabilities, key=lambda label: answer.probabilities[label]) == answer.label


def test_a_stream_is_read_a_window_at_a_time_and_gives_the_same_one_pair_at_a_time(model: EmpathyModel) -> None:
    pairs, taken = posts(load_corpus("sample").pairs[:30]), 0

    def counted() -> Iterator[tuple[str, str]]:
        nonlocal taken
        for pair in pairs:
            taken += 1
            yield pair

    stream = model.stream(counted(), window=8)
    first = next(stream)
    assert taken == 8
    whole = model.predict(pairs)
    for some in ([first, *stream], list(model.stream(pairs, window=1))):
        for one, other in zip(some, whole, strict=True):
            for name, answer in one.tasks.items():
                assert answer.probabilities == pytest.approx(other[name].probabilities, abs=1e-5)
    assert taken == 30
    assert model.predict([]) == []
    assert model.predict(iter(pairs[:1]))[0]["ER"].probabilities == pytest.approx(whole[0]["ER"].probabilities, abs=1e-5)


def test_the_pairs_before_a_bad_one_are_answered_first(model: EmpathyModel) -> None:
    pairs = posts(load_corpus("sample").pairs[:5])
    stream = model.stream([*pairs, (SEEKER, ""), *pairs])
    assert [next(stream) for _ in pairs] == model.predict(pairs)
    with pytest.raises(KitError) as error:
        next(stream)
    assert str(error.value) == "pair 5, response post: empty, expected a post"
    with pytest.raises(KitError, match="pair 0, response post"):
        next(model.stream([(SEEKER, "")]))


def test_all_pairs_are_checked_before_the_first_is_computed(model: EmpathyModel) -> None:
    class Unused:
        origin: ClassVar[dict[str, str]] = {}

        def predict(self, pairs: object) -> Iterator[Scored]:
            raise AssertionError("computed in vain")

    with pytest.raises(KitError, match="pair 1, response post: empty"):
        replace(model, engine=Unused()).predict([(SEEKER, RESPONSE), (SEEKER, "")])


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_without_a_pair_is_refused_at_once(model: EmpathyModel, window: int) -> None:
    with pytest.raises(KitError) as error:
        model.stream([(SEEKER, RESPONSE)], window=window)
    assert str(error.value) == f"window: {window} found, expected 1 pair or more"


def test_evidence_is_characters_of_the_response_as_the_caller_has_it(model: EmpathyModel) -> None:
    pairs, marked = posts(load_corpus("sample").pairs[:60]), 0
    for said, (_, response) in zip(model.predict(pairs), pairs, strict=True):
        for answer in said.tasks.values():
            assert answer.evidence is not None
            assert answer.level or answer.evidence == ()
            for span in answer.evidence:
                quote = response[span.start : span.end]
                assert quote == quote.strip() != ""
                marked += 1
        assert response[:12] not in repr(said)
    assert marked > 10  # a head that was trained for one epoch marks a little of everything


def test_a_model_of_responses_alone_needs_no_seeker_post_and_marks_nothing(response_run: Path) -> None:
    model = empathy_kit.load(response_run)
    assert not model.reads_seekers
    (one,), (other,) = model.predict([("", RESPONSE)]), model.predict([(SEEKER, RESPONSE)])
    assert one == other
    assert list(one.tasks) == ["ER", "IP"]
    assert all(answer.evidence is None for answer in one.tasks.values())
    table = pd.DataFrame({"response_post": [RESPONSE]})
    assert model.predict_table(table)["IP_predicted"].tolist() == [one["IP"].label]


def test_a_post_that_is_too_long_is_answered_and_said_to_be_cut(model: EmpathyModel) -> None:
    short, seeker, response = model.predict([("I am sad", "I see"), ("sad " * 5000, "I see"), ("I am sad", "so hard " * 5000)])
    assert [(said.seeker_truncated, said.response_truncated) for said in (short, seeker, response)] == [
        (False, False),
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
def test_a_table_comes_back_with_its_columns_and_the_predictions(model: EmpathyModel, kind: str) -> None:
    pairs = posts(load_corpus("sample").pairs[:5])
    columns = {"n": [3, 1, 2, 5, 4], "asks": [pair[0] for pair in pairs], "answers": [pair[1] for pair in pairs]}
    table = pd.DataFrame(columns, index=list("abcde")) if kind == "pandas" else pa.table(columns)
    found = model.predict_table(table, seeker_column="asks", response_column="answers", evidence=True)
    frame = found if kind == "pandas" else found.to_pandas()
    said = model.predict(pairs)
    assert list(frame.columns)[:3] == ["n", "asks", "answers"]
    assert frame["n"].tolist() == columns["n"]
    assert (kind == "pyarrow") or list(frame.index) == list("abcde")
    for name in ("ER", "EX", "IP"):
        assert frame[f"{name}_predicted"].tolist() == [each[name].label for each in said]
        assert frame[f"{name}_p2"].tolist() == [each[name].probabilities["2"] for each in said]
        for cell, each, (_, response) in zip(frame[f"{name}_evidence"], said, pairs, strict=True):
            assert [(quote["start"], quote["text"]) for quote in cell] == [
                (span.start, response[span.start : span.end]) for span in each[name].evidence or ()
            ]
    assert frame["response_truncated"].tolist() == [each.response_truncated for each in said]
    empty = model.predict_table(
        table[:0] if kind == "pandas" else table.slice(0, 0), seeker_column="asks", response_column="answers"
    )
    assert len(empty) == 0
    if kind == "pyarrow":
        assert {field.name: field.type for field in empty.schema} == {
            field.name: field.type for field in found.schema if not field.name.endswith("_evidence")
        }
    else:
        assert {name: empty[name].dtype for name in empty if not name.endswith("_predicted")} == {
            name: frame[name].dtype for name in empty if not name.endswith("_predicted")
        }


def test_a_table_without_a_column_or_with_one_that_would_stand_twice_is_refused(model: EmpathyModel) -> None:
    table = pd.DataFrame({"seeker_post": [SEEKER], "response": [RESPONSE]})
    with pytest.raises(KitError) as error:
        model.predict_table(table)
    assert str(error.value) == (
        "column 'response_post' is missing; there are seeker_post, response; name yours with the argument response_column"
    )
    with pytest.raises(KitError) as error:
        model.predict_table(table.assign(response_post=RESPONSE, ER_p0=1))
    assert str(error.value) == "column 'ER_p0' is in the table already; rename the table's column"


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, ""])
def test_a_missing_cell_or_post_counts_as_empty(model: EmpathyModel, missing: Any) -> None:
    table = pd.DataFrame({"seeker_post": [SEEKER, missing], "response_post": [RESPONSE, RESPONSE]}, dtype="object")
    with pytest.raises(KitError) as error:
        model.predict_table(table)
    assert str(error.value) == "row 2, column 'seeker_post': empty, expected a post"
    with pytest.raises(KitError) as error:
        model.predict([(SEEKER, RESPONSE), (missing, RESPONSE)])
    assert str(error.value) == "pair 1, seeker post: empty, expected a post"


def test_a_cell_that_is_no_post_is_named_by_row_and_column(model: EmpathyModel) -> None:
    with pytest.raises(KitError) as error:
        model.predict_table(
            pa.table({"asks": [SEEKER, SEEKER], "answers": [RESPONSE, None]}), seeker_column="asks", response_column="answers"
        )
    assert str(error.value) == "row 2, column 'answers': empty, expected a post"
    with pytest.raises(KitError) as error:
        model.predict_table(pd.DataFrame({"seeker_post": [SEEKER], "response_post": [7]}))
    assert str(error.value) == "row 1, column 'response_post': a number found, expected text"


@pytest.mark.parametrize("table", [pd.DataFrame({"a": ["x"], "b": ["y"]}), pa.table({"a": ["x"], "b": ["y"]})])
def test_a_table_is_not_taken_for_pairs(model: EmpathyModel, table: Any) -> None:
    for predict in (model.predict, model.stream):
        with pytest.raises(KitError) as error:
            predict(table)
        assert str(error.value) == (
            "pairs: a table found, expected (seeker post, response post) for each pair; use predict_table"
        )


@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
def test_a_table_in_which_a_column_of_posts_occurs_twice_is_refused(model: EmpathyModel, kind: str) -> None:
    names = ["seeker_post", "response_post", "seeker_post"]
    table: Any = pd.DataFrame([[SEEKER, RESPONSE, SEEKER]], columns=names)
    if kind == "pyarrow":
        table = pa.Table.from_arrays([pa.array([SEEKER]), pa.array([RESPONSE]), pa.array([SEEKER])], names=names)
    with pytest.raises(KitError) as error:
        model.predict_table(table)
    assert str(error.value) == "column 'seeker_post' occurs 2 times, expected once; rename the others"


def test_a_column_whose_name_is_a_number_is_refused(model: EmpathyModel) -> None:
    table = pd.DataFrame([[SEEKER, RESPONSE]])
    with pytest.raises(KitError) as error:
        model.predict_table(table, seeker_column="0", response_column="1")
    assert str(error.value) == "column '0': its name is not text, as it has to be; rename the table's columns"
    named = table.rename(columns={0: "seeker_post", 1: "response_post"}).assign(n=1)
    assert len(model.predict_table(named.rename(columns={"n": 7}))) == 1  # other columns may have any name


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("", RESPONSE), "pair 1, seeker post: empty, expected a post"),
        ((SEEKER, " \n\t"), "pair 1, response post: empty, expected a post"),
        ((SEEKER, "\u200b"), "pair 1, response post: only invisible characters found, expected a post"),
        ((SEEKER, "a\0b"), "pair 1, response post: a NUL byte found, expected text"),
        ((SEEKER, "\ud800"), "pair 1, response post: half a surrogate pair found, expected text"),
        ((SEEKER, "x" * 100_001), "pair 1, response post: 100,001 characters found, expected at most 100,000"),
        ((SEEKER, 7), "pair 1, response post: a number found, expected text"),
        ((SEEKER,), "pair 1: expected a seeker post and a response post, found tuple"),
        ("ab", "pair 1: expected a seeker post and a response post, found str"),
    ],
)
def test_what_is_no_pair_is_named_by_its_place_and_never_shown(model: EmpathyModel, pair: object, reason: str) -> None:
    with pytest.raises(KitError) as error:
        model.predict([(SEEKER, RESPONSE), pair])  # type: ignore[list-item]
    assert str(error.value) == reason


def test_a_folder_without_a_model_is_one_line(tmp_path: Path, marking_run: Path) -> None:
    with pytest.raises(KitError) as error:
        empathy_kit.load(tmp_path / "nothing")
    assert str(error.value) == f"{tmp_path / 'nothing'}: no such folder; expected a run, an exported model, or hub:user/name"
    with pytest.raises(KitError) as error:
        empathy_kit.load(tmp_path)
    assert str(error.value) == f"{tmp_path}: not a finished run: manifest.json is missing or unreadable"
    assert empathy_kit.load(marking_run).digest == empathy_kit.load(str(marking_run)).digest


HEAD = """
from empathy_kit import Head, hookimpl

def build(task, width):
    from torch import nn

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(nn.functional.one_hot(__import__("torch").tensor(1), task.num_classes).float())

        def forward(self, encoded):
            return self.logits.expand(len(encoded.pooled), -1)

        def probabilities(self, logits):
            return logits.softmax(-1)

    return Constant()

@hookimpl
def empathy_kit_heads():
    yield Head("constant", build)
"""


def test_a_model_whose_plugin_is_a_file_is_loaded_with_the_file(tiny_roberta: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "constant_head.py"
    plugin.write_text(HEAD)
    run = train(tmp_path / "run", tiny_roberta, plugins=[plugin], head="constant")
    with pytest.raises(KitError, match="constant"):
        empathy_kit.load(run)
    loaded = empathy_kit.load(run, plugins=str(plugin))
    assert {answer.level for answer in loaded.predict([(SEEKER, RESPONSE)])[0].tasks.values()} == {1}
    # A job that continues with other code must notice it.
    plugin.write_text(HEAD + "\n")
    changed = empathy_kit.load(run, plugins=[plugin]).identity
    assert {name for name, value in loaded.identity.items() if changed[name] != value} == {"head"}
    assert loaded.identity["tokenizers"] == importlib.metadata.version("tokenizers")
    plugin.write_text(HEAD)
    (tmp_path / "in.csv").write_text(f"seeker_post,response_post\n{SEEKER},{RESPONSE}\n")
    command = ["predict", str(run), str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.csv")]
    advice = "; give its file as --plugin, or in Python as load(..., plugins=[...])"
    assert str(CliRunner().invoke(cli, command).exception).endswith(advice)
    assert CliRunner().invoke(cli, [*command, "--plugin", str(plugin)], catch_exceptions=False).exit_code == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("1,1,")
    # Published, where names of folders are cut, it still knows its file.
    published = ["publish", str(run), "me/model", "--dry-run", str(tmp_path / "published")]
    assert CliRunner().invoke(cli, published, catch_exceptions=False).exit_code == 0
    assert empathy_kit.load(tmp_path / "published", plugins=[plugin]).predict([(SEEKER, RESPONSE)])


def test_the_kit_offers_what_it_has_and_nothing_else() -> None:
    with pytest.raises(AttributeError, match="module 'empathy_kit' has no attribute 'nothing'"):
        empathy_kit.nothing  # noqa: B018
    assert empathy_kit.Prediction is Prediction
