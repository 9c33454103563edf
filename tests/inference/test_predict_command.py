"""`empathy-kit predict` talks: to files, to pipes, and in one line where something is wrong."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pretend import ByWords, pretend_model

from empathy_kit import cli
from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import TokenPair
from empathy_kit.errors import KitError
from empathy_kit.inference import model, scoring
from empathy_kit.inference.graph import GraphEngine
from empathy_kit.inference.model import EmpathyModel

PAIR = {"id": "a", "seeker_post": "I am sad", "response_post": "so sorry", "ER": 1}


class Unmarking(ByWords):
    """An engine without a span head."""

    def _score(self, pairs: Sequence[TokenPair]) -> Iterator[Scored]:
        return (replace(each, evidence=None) for each in super()._score(pairs))


class Said(NamedTuple):
    code: int | str | None
    out: str
    err: str


Loaded = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """What `load` was asked for. Its models need no training.

    "responses" reads responses alone, "unmarking" marks no evidence, and "exported" is an export.
    """
    asked: Loaded = []

    def load(source: str, **options: Any) -> EmpathyModel:
        asked.append((source, options))
        found = pretend_model(seekers=source != "responses")
        engines = {"exported": GraphEngine.__new__(GraphEngine), "unmarking": Unmarking()}
        return replace(found, engine=engines.get(source, found.engine))

    monkeypatch.setattr(model, "load", load)
    return asked


@pytest.fixture
def command(loaded: Loaded, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """The command line with these models, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: str = "") -> Said:
        given = tmp_path / "stdin"
        given.write_text(stdin, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["empathy-kit", "predict", *arguments])
        with given.open("rb", buffering=0) as stream:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))
            with pytest.raises(SystemExit) as end:
                cli.main()
        return Said(end.value.code, *capfd.readouterr())

    return call


def table(*pairs: dict[str, Any]) -> str:
    return "".join(json.dumps(pair) + "\n" for pair in pairs)


def test_a_table_becomes_a_table_and_the_last_line_names_it(command: Any) -> None:
    Path("in.jsonl").write_text(table(*[PAIR] * 5))
    said = command("model", "in.jsonl", "--out", "out.csv", "--id-column", "id", "--keep", "ER")
    assert said == (0, "", "5 pairs predicted: out.csv\n")
    assert Path("out.csv").read_text().splitlines()[0].startswith("row,id,ER,warm_predicted,warm_p0,warm_p1,ER_predicted,")
    assert len(Path("out.csv").read_text().splitlines()) == 6
    assert command("model", "in.jsonl", "--out", "out.csv") == (
        2,
        "",
        "Error: --out out.csv: already exists; predictions never overwrite a file, use another --out\n",
    )


def test_rows_that_are_skipped_are_counted_and_listed(command: Any) -> None:
    Path("in.jsonl").write_text(table(PAIR, {**PAIR, "response_post": ""}, PAIR))
    said = command("model", "in.jsonl", "--out", "out.csv", "--errors", "skip")
    assert said == (0, "", "2 pairs predicted: out.csv\n1 row skipped: out.csv.skipped.csv\n")


def test_placeholders_in_place_of_posts_are_predicted_and_warned_of(command: Any) -> None:
    given = table(PAIR, {**PAIR, "seeker_post": "NA"}, {**PAIR, "response_post": ""}, {**PAIR, "response_post": "[removed]"})
    Path("in.jsonl").write_text(given)
    warning = (
        "warning: 2 rows have a placeholder such as [removed] or NA in place of a post (rows 2, 4), "
        "which is read as its text; leave them out\n"
    )
    said = command("model", "in.jsonl", "--out", "out.csv", "--errors", "skip")
    assert said == (0, "", f"3 pairs predicted: out.csv\n1 row skipped: out.csv.skipped.csv\n{warning}")
    said = command("model", "-", "--errors", "skip", stdin=given)
    assert said.err.splitlines(keepends=True)[1:] == ["1 row skipped\n", warning]
    assert len(said.out.splitlines()) == 3


def test_a_job_that_is_continued_warns_of_the_placeholders_of_all_rows(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PART", 2)
    given = [PAIR, {**PAIR, "seeker_post": "NA"}, PAIR, {**PAIR, "response_post": "nan"}]
    Path("in.jsonl").write_text(table(*given))

    def stopped(*_: Any) -> None:
        raise KitError("stopped")

    with monkeypatch.context() as broken:
        broken.setattr(scoring, "_join", stopped)
        assert command("model", "in.jsonl", "--out", "out.csv").err == "Error: stopped\n"
    said = command("model", "in.jsonl", "--out", "out.csv")
    assert said.err.splitlines() == [
        "4 pairs predicted, 4 of them by an earlier call: out.csv",
        "warning: 2 rows have a placeholder such as [removed] or NA in place of a post (rows 2, 4), "
        "which is read as its text; leave them out",
    ]


def test_the_lines_that_an_open_quote_takes_are_told_of_too(command: Any) -> None:
    Path("in.csv").write_text('seeker_post,response_post\nsad,hug\n"oops,b\n' + "good,row\n" * 1000)
    said = command("model", "in.csv", "--out", "out.csv", "--errors", "skip")
    assert said == (
        0,
        "",
        "1 pair predicted: out.csv\n1 row skipped: out.csv.skipped.csv\n"
        "1,000 more lines skipped, because a quote is not closed and makes them part of a bad row; close it\n",
    )
    assert Path("out.csv.skipped.csv").read_text().startswith("row,column,reason\n2,,lines 3 to 1003: not a valid CSV row: ")


def test_the_rows_of_standard_input_before_a_bad_one_are_answered(command: Any) -> None:
    bad = {**PAIR, "response_post": ""}
    said = command("model", "-", stdin=table(PAIR, PAIR, bad, PAIR))
    reason = "standard input, row 3, column 'response_post': empty, expected a post"
    assert (said.code, said.err) == (2, f"Error: {reason}\n")
    assert [json.loads(line)["row"] for line in said.out.splitlines()] == [1, 2]
    said = command("model", "-", "--errors", "skip", stdin=table(PAIR, PAIR, bad, PAIR, bad))
    assert [json.loads(line)["row"] for line in said.out.splitlines()] == [1, 2, 4]
    assert said.err == f"skipped: {reason}\nskipped: {reason.replace('row 3', 'row 5')}\n2 rows skipped\n"


@pytest.mark.parametrize("errors", ["stop", "skip"])
@pytest.mark.parametrize("given", ["", "\n \n"])
def test_standard_input_without_a_row_is_one_line_as_a_table_without_one_is(command: Any, errors: str, given: str) -> None:
    line = "Error: standard input: no rows, expected at least one pair\n"
    assert command("model", "-", "--errors", errors, stdin=given) == (2, "", line)


def test_a_bad_first_row_is_skipped_as_any_other_is(command: Any) -> None:
    said = command("model", "-", "--errors", "skip", stdin=table({"seeker_post": "a"}, PAIR))
    assert said.err == (
        "skipped: standard input, row 1: column 'response_post' is missing; there are seeker_post\n1 row skipped\n"
    )
    assert [json.loads(line)["row"] for line in said.out.splitlines()] == [2]
    assert command("model", "-", "--errors", "skip", stdin=table({"seeker_post": "a"})) == (
        2,
        "",
        "Error: standard input: column 'response_post' is missing; there are seeker_post\n",
    )


def test_the_list_of_skipped_rows_overwrites_no_file_either(command: Any) -> None:
    Path("in.jsonl").write_text(table(PAIR, {**PAIR, "response_post": ""}))
    Path("out.csv.skipped.csv").write_text("mine")
    assert command("model", "in.jsonl", "--out", "out.csv", "--errors", "skip") == (
        2,
        "",
        "Error: --out out.csv: the skipped rows are listed in out.csv.skipped.csv, which already exists; move it, "
        "or use another --out\n",
    )
    assert not Path("out.csv").exists()
    assert Path("out.csv.skipped.csv").read_text() == "mine"
    Path("in.jsonl").write_text(table(PAIR))
    assert command("model", "in.jsonl", "--out", "out.csv").code == 0  # without the flag there is no list


def test_standard_input_is_answered_on_standard_output(command: Any) -> None:
    said = command("model", "-", "--keep", "all", "--evidence", stdin=table(PAIR, PAIR))
    assert (said.code, said.err) == (0, "")
    first, second = map(json.loads, said.out.splitlines())
    assert (first["row"], second["row"], first["id"], first["ER"]) == (1, 2, "a", 1)
    assert first["warm_predicted"] in {"no", "yes"}
    assert isinstance(first["ER_evidence"], list)
    said = command("model", "-", "--errors", "skip", stdin=table(PAIR, {"seeker_post": "", "response_post": "x"}))
    assert said.err == "skipped: standard input, row 2, column 'seeker_post': empty, expected a post\n1 row skipped\n"
    assert len(said.out.splitlines()) == 1
    assert command("model", "-", stdin="{") == (
        2,
        "",
        "Error: standard input, row 1: not valid JSON: Expecting property name enclosed in double quotes; "
        "expected one object per line (JSON Lines)\n",
    )


def test_evidence_of_a_model_that_marks_none_is_an_empty_column_and_one_warning(command: Any) -> None:
    Path("in.jsonl").write_text(table(*[PAIR] * 5))
    warning = (
        "warning: --evidence: unmarking marks no evidence, so its columns are empty; "
        "train a model with --rationale predicted or tag\n"
    )
    said = command("unmarking", "in.jsonl", "--out", "out.jsonl", "--evidence")
    assert said == (0, "", f"{warning}5 pairs predicted: out.jsonl\n")
    assert [json.loads(line)["ER_evidence"] for line in Path("out.jsonl").read_text().splitlines()] == [None] * 5
    assert command("unmarking", "-", "--evidence", stdin=table(PAIR)).err == warning
    assert command("unmarking", "in.jsonl", "--out", "out.csv").err == "5 pairs predicted: out.csv\n"


@pytest.mark.parametrize("name", ["row", "ER_predicted", "seeker_truncated"])
def test_a_kept_column_is_not_overwritten_by_a_predicted_one(command: Any, name: str) -> None:
    given = table({**PAIR, name: "mine"})
    line = f"Error: standard input: column '{name}' is kept and predicted; rename it, or do not keep it\n"
    assert command("model", "-", "--keep", "all", stdin=given) == (2, "", line)
    assert json.loads(command("model", "-", "--keep", "id", stdin=given).out)["id"] == "a"


def test_half_a_surrogate_pair_in_what_is_kept_is_one_line(command: Any) -> None:
    given = table(PAIR, {**PAIR, "id": ["\ud83d"]})
    said = command("model", "-", "--keep", "id", "--errors", "skip", stdin=given)
    line = "skipped: standard input, row 2, column 'id': not UTF-8, or half a surrogate pair, found; save it again as UTF-8\n"
    assert (said.code, len(said.out.splitlines()), said.err) == (0, 1, f"{line}1 row skipped\n")


def test_the_posts_are_read_from_the_columns_that_were_named(command: Any) -> None:
    Path("in.jsonl").write_text(table(PAIR))
    Path("named.jsonl").write_text(table({"question": PAIR["seeker_post"], "answer": PAIR["response_post"]}))
    named = ("--seeker-column", "question", "--response-column", "answer")
    assert command("model", "in.jsonl", "--out", "out.jsonl").code == 0
    assert command("model", "named.jsonl", "--out", "named-out.jsonl", *named).code == 0
    assert Path("named-out.jsonl").read_text() == Path("out.jsonl").read_text()


def test_the_model_is_loaded_as_asked(command: Any, loaded: Loaded) -> None:
    Path("in.jsonl").write_text(table(PAIR))
    assert command("model", "in.jsonl", "--out", "1.csv").code == 0
    assert command("model", "in.jsonl", "--out", "2.csv", "--device", "cpu", "--plugin", "a.py", "--plugin", "b.py").code == 0
    command("exported", "in.jsonl", "--out", "3.csv", "--threads", "2", "--device", "auto")
    assert loaded == [
        ("model", {"device": None, "threads": None, "plugins": ()}),
        ("model", {"device": "cpu", "threads": None, "plugins": (Path("a.py"), Path("b.py"))}),
        ("exported", {"device": "auto", "threads": 2, "plugins": ()}),
    ]


def test_a_model_of_responses_alone_asks_for_no_seeker_column(command: Any) -> None:
    Path("in.csv").write_text("answer\nso sorry\n")
    assert command("responses", "in.csv", "--out", "out.jsonl", "--response-column", "answer").code == 0
    assert json.loads(Path("out.jsonl").read_text())["row"] == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("model", "in.csv"), "--out FILE is missing: give a .csv, .jsonl or .parquet file for the predictions"),
        (("model", "-", "--out", "x.csv"), "--out: predictions of standard input go to standard output; leave --out away"),
        (
            ("model", "in.csv", "--out", "x.csv", "--on", "ray", "--threads", "2"),
            "--threads and --on ray: a cluster computes each part on one core; use only one of them",
        ),
        (("model", "-", "--on", "ray"), "--on ray: standard input is predicted here; leave --on away, or give a file"),
        (("model", "in.csv", "--out", "x.csv", "--workers", "2"), "--workers: of a cluster alone; add --on ray, or leave it out"),
        (
            ("model", "in.csv", "--out", "x.csv", "--ray-address", "auto"),
            "--ray-address: of a cluster alone; add --on ray, or leave it out",
        ),
        (
            ("model", "in.csv", "--out", "x.csv", "--threads", "2"),
            "--threads: of an exported model alone, and model is a run's; leave it out, or export the run",
        ),
        (
            ("exported", "in.csv", "--out", "x.csv", "--device", "cpu"),
            "--device: of a run's model alone, and exported is an exported one; leave it out",
        ),
        (("model", "in.csv", "--out", "x.txt"), "--out x.txt: a .txt file, expected .csv, .jsonl, .parquet"),
        (("model", "in.csv", "--out", "x.csv"), "in.csv: no such file"),
        (("model", "in.csv", "--out", f"{'x' * 300}.csv"), f"--out {'x' * 300}.csv: cannot be written: File name too long"),
    ],
)
def test_what_cannot_be_is_one_line(command: Any, arguments: tuple[str, ...], reason: str) -> None:
    assert command(*arguments) == (2, "", f"Error: {reason}\n")


def test_an_output_inside_of_the_model_is_refused_because_it_would_change_the_model(command: Any, tmp_path: Path) -> None:
    Path("model/sub").mkdir(parents=True)
    Path("model/manifest.json").write_text("{}")
    Path("same").symlink_to("model")
    Path("in.jsonl").write_text(table(PAIR))
    refusal = "Error: --out {}: is inside of {}, which would count as changed; use a place outside of it\n"
    for folder, out in (("model", "model/sub/x.csv"), ("same", "model/x.csv"), (str(tmp_path / "model"), "same/x.csv")):
        assert command(folder, "in.jsonl", "--out", out) == (2, "", refusal.format(out, folder))
    assert command("model", "in.jsonl", "--out", "model-2.csv").code == 0
    assert sorted(path.name for path in Path("model").rglob("*")) == ["manifest.json", "sub"]
