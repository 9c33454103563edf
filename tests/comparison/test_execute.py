"""A comparison: planned whole, run several at once, continued where it stopped, and never mixed up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from empathy_kit import KitError, record
from empathy_kit.cli import cli
from empathy_kit.comparison import (
    Done,
    Failed,
    Plan,
    alone,
    execute,
    measure_yardsticks,
    parse_configurations,
    parse_seeds,
    prepare,
    read_finished,
    read_plan,
)
from empathy_kit.config import FOUR, RunConfig, configure, to_dict
from empathy_kit.data.pairs import MECHANISMS
from empathy_kit.plugins import load_registry
from empathy_kit.recipes import run

BASE = RunConfig()
SMALL = {"epochs": 1, "threads": 1, "max_tokens": 16, "hidden": 16, "layers": 1, "batch_size": 64}


def configurations(*given: str, file: Path | None = None) -> dict[str, RunConfig]:
    return parse_configurations(given, file, BASE)


def test_without_names_it_is_the_papers_four() -> None:
    found = configurations()
    assert tuple(found) == FOUR
    assert [(config.loss, config.rationale) for config in found.values()] == [
        ("ce", "none"),
        ("ce", "predicted"),
        ("focal", "none"),
        ("focal", "predicted"),
    ]


def test_a_configuration_is_a_known_name_or_flags_or_a_table(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('[wide]\nhidden = 512\nloss = "focal"\noptions = { loss = { gamma = 1.0 } }\n')
    found = configurations("T2g", "mine=--loss focal -o loss.gamma 3 --no-rationale --lr 0.01", file=file)
    assert list(found) == ["T2g", "mine", "wide"]
    assert found["T2g"].rationale == "gold"
    assert (found["mine"].loss, found["mine"].lr, found["mine"].options) == ("focal", 0.01, {"loss.gamma": "3"})
    assert (found["wide"].hidden, found["wide"].options) == (512, {"loss.gamma": 1.0})


WRONG_NAMES = {
    "an unknown name": (["T9"], "compare T9: unknown, expected T1, T2, T3, T4, "),
    "a name twice": (["T1", "T1=--loss focal"], "compare T1: given twice, expected each name once"),
    "the name of a yardstick": (["Majority=--loss ce"], "compare Majority: the name of a yardstick, expected another"),
    "the name of another yardstick": (["T1-swapped=--loss ce"], "compare T1-swapped: the name of a yardstick"),
    "names that differ in capitals": (["T1", "t1=--loss focal"], "differs in capitals alone"),
    "no name": (["../up=--loss ce"], "compare '../up': expected a name of letters, digits and hyphens"),
    "an unknown flag": (["a=--los ce"], "compare a: --los: unknown, expected flags of `empathy-kit run`"),
    "a flag without its value": (["a=--loss"], "compare a: --loss: needs a value"),
    "an open quote": (["a=--loss 'ce"], "compare a=--loss 'ce: No closing quotation"),
    "a value that is none": (["a=--epochs many"], "compare a: --epochs many: "),
}


@pytest.mark.parametrize("case", WRONG_NAMES)
def test_a_configuration_that_is_none_is_refused_in_one_line(case: str) -> None:
    given, message = WRONG_NAMES[case]
    with pytest.raises(KitError) as error:
        configurations(*given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [("T1 = 3", "is a int, expected a table"), ("[T1", "not valid TOML"), (None, "cannot be read")]
)
def test_a_file_of_configurations_that_is_none_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "more.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(KitError) as error:
        configurations(file=file)
    assert str(error.value).startswith(f"--file {file}: ")
    assert message in str(error.value)


def test_seeds_are_a_number_or_a_list() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("7,3") == (7, 3)
    for text, message in {
        "0": "at least one",
        "1,1": "1 given twice",
        "-1": "none negative",
        "a": "how many",
        "1,": "how many",
    }.items():
        with pytest.raises(KitError) as error:
            parse_seeds(text)
        assert str(error.value).startswith(f"--seeds {text}: ")
        assert message in str(error.value)


def test_seeds_vary_the_split_only_where_that_is_asked_for() -> None:
    plan = Plan({"T1": BASE}, (4,), resplit=False)
    assert (plan.config("T1", 4).seed, plan.config("T1", 4).split_seed) == (4, 0)
    again = replace(plan, resplit=True).config("T1", 4)
    assert (again.seed, again.split_seed) == (4, 4)


def test_all_configurations_of_a_seed_come_before_the_next_seed() -> None:
    assert Plan({"a": BASE, "b": BASE}, (0, 1), False).runs() == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


@pytest.fixture(scope="module")
def small(tiny_roberta: Path) -> RunConfig:
    """Runs of seconds."""
    return configure(RunConfig(), {**SMALL, "encoder": str(tiny_roberta)})


@pytest.fixture(scope="module")
def plan(small: RunConfig) -> Plan:
    """Two configurations, two seeds, each with its own split."""
    given = ["T1", "hard=--loss focal -o loss.gamma 3"]
    return Plan(parse_configurations(given, None, small), (0, 1), resplit=True)


@pytest.fixture(scope="module")
def finished(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that is done."""
    out = tmp_path_factory.mktemp("comparison") / "done"
    events = go(plan, out)
    assert sorted((event.name, event.seed) for event in events if isinstance(event, Done)) == [
        ("T1", 0),
        ("T1", 1),
        ("hard", 0),
        ("hard", 1),
    ]
    return out


def go(plan: Plan, out: Path, jobs: int = 2) -> list[Any]:
    registry = load_registry()
    plan, corpus = prepare(plan, out, registry)
    events = list(execute(plan, corpus, out, registry, jobs=jobs, keep_models=False))
    measure_yardsticks(plan, corpus, out)
    return [event for event in events if isinstance(event, (Done, Failed))]


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A comparison that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_a_run_of_a_comparison_is_bitwise_the_run_on_its_own(finished: Path, plan: Plan, tmp_path: Path) -> None:
    list(run(plan.config("hard", 1), load_registry(), tmp_path / "alone"))
    there = finished / "runs" / "hard-1"
    assert (there / "predictions.csv").read_bytes() == (tmp_path / "alone" / "predictions.csv").read_bytes()
    assert not (there / "model").exists()


def test_what_is_finished_is_not_run_again_and_what_is_missing_is(copy: Path, plan: Plan) -> None:
    shutil.rmtree(copy / "runs" / "T1-1")
    kept = (copy / "runs" / "T1-0" / "run.json").stat().st_mtime_ns
    events = go(plan, copy)
    assert {(event.name, event.seed): event.found for event in events} == {
        ("T1", 0): True,
        ("T1", 1): False,
        ("hard", 0): True,
        ("hard", 1): True,
    }
    assert (copy / "runs" / "T1-0" / "run.json").stat().st_mtime_ns == kept


def test_a_comparison_may_grow(copy: Path, plan: Plan, small: RunConfig) -> None:
    more = Plan(parse_configurations(["weighted"], None, small), (0,), resplit=True)
    merged, _ = prepare(more, copy, load_registry())
    assert list(merged.configurations) == ["T1", "hard", "weighted"]
    assert merged.seeds == (0, 1)
    assert read_plan(copy) == merged
    found = read_finished(copy)
    assert list(found.runs) == ["T1", "hard"]
    assert found.missing == [("weighted", 0), ("weighted", 1)]


def test_a_name_keeps_its_configuration(copy: Path, plan: Plan) -> None:
    changed = Plan({"T1": replace(plan.configurations["T1"], epochs=2)}, (0, 1), resplit=True)
    with pytest.raises(KitError) as error:
        prepare(changed, copy, load_registry())
    assert str(error.value) == (
        f"compare T1: {copy} has it with --epochs 1, not 2; expected the same, another name or another --out"
    )
    with pytest.raises(KitError, match="was begun with --resplit"):
        prepare(replace(plan, resplit=False), copy, load_registry())
    with pytest.raises(KitError, match=r"--split paper found, but .* was begun with grouped"):
        prepare(Plan({"other": replace(plan.configurations["T1"], split="paper")}, (0,), True), copy, load_registry())


def test_configurations_on_other_pairs_are_not_compared(plan: Plan, tmp_path: Path) -> None:
    other = {**plan.configurations, "paper": replace(plan.configurations["T1"], split="paper")}
    with pytest.raises(KitError) as error:
        prepare(replace(plan, configurations=other), tmp_path / "out", load_registry())
    assert str(error.value) == (
        "compare paper: --split paper found, grouped before; what is compared must be tested on the same pairs"
    )
    assert not (tmp_path / "out").exists()


def test_a_plugin_that_is_missing_is_told_before_anything_runs(small: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"^compare mine: --loss nobodys: unknown; there are ce, focal, weighted"):
        prepare(Plan({"mine": replace(small, loss="nobodys")}, (0,), False), tmp_path / "out", load_registry())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(KitError, match=r"^--out .*file: cannot be written: "):
        prepare(plan, tmp_path / "file", load_registry())


def test_two_calls_do_not_go_on_with_one_comparison(copy: Path) -> None:
    before = sorted(copy.rglob("*"))
    hold = (
        "import pathlib, sys, empathy_kit.comparison as comparison\n"
        "with comparison.alone(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        result = CliRunner().invoke(cli, ["compare", "T2", "--resplit", "--out", str(copy)])
        other.kill()
    assert str(result.exception) == (
        f"--out {copy}: another process goes on with this comparison; expected it to end first, or another --out"
    )
    assert "T2" not in read_plan(copy).configurations
    with alone(copy):  # who is killed lets go
        pass
    assert sorted(copy.rglob("*")) == before


def test_a_call_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for out in (there, tmp_path / "new" / "out"):
        result = CliRunner().invoke(cli, ["compare", "bad=--loss missing", "--out", str(out)])
        assert str(result.exception).startswith("compare bad: --loss missing: unknown")
    assert list(tmp_path.rglob("*")) == [there]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    for out, why in ((tmp_path / ("n" * 300), "File name too long"), (tmp_path / "file" / "out", "Not a directory")):
        (tmp_path / "file").touch()
        result = CliRunner().invoke(cli, ["compare", "T1", "--out", str(out)])
        assert isinstance(result.exception, KitError)
        assert str(result.exception) == f"--out {out}: cannot be written: {why}"


def test_a_run_that_was_edited_is_refused(copy: Path, plan: Plan) -> None:
    file = copy / "runs" / "hard-0" / "predictions.csv"
    file.write_text(file.read_text().replace(",0,", ",1,", 1))
    expected = f"{file}: changed after the run (sha256 differs from the manifest)"
    for use in (lambda: go(plan, copy), lambda: read_finished(copy)):
        with pytest.raises(KitError) as error:
            use()
        assert str(error.value) == expected


def test_another_run_in_a_runs_place_is_refused(copy: Path, plan: Plan) -> None:
    shutil.rmtree(copy / "runs" / "T1-0")
    shutil.copytree(copy / "runs" / "T1-1", copy / "runs" / "T1-0")
    with pytest.raises(KitError, match=r"T1-0: is a run with seed 1 on split 1; expected T1 as it is planned"):
        go(plan, copy)
    shutil.rmtree(copy / "runs" / "T1-0")
    shutil.copytree(copy / "runs" / "hard-0", copy / "runs" / "T1-0")
    with pytest.raises(KitError, match=r"T1-0: is a run with --loss focal, not ce; expected T1 as it is planned"):
        go(plan, copy)
    changed = replace(plan, configurations={**plan.configurations, "hard": replace(plan.configurations["hard"], options={})})
    (copy / "comparison.json").unlink()
    with pytest.raises(KitError, match=r"is a run with --options .*3.*, not .*2"):
        go(replace(changed, configurations={"hard": changed.configurations["hard"]}), copy)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Another run, whole, made from one that is there."""
    content = json.loads((folder / "run.json").read_text())
    change(content)
    files = {name: (folder / name).read_text() for name in ("history.jsonl", "predictions.csv")}
    shutil.rmtree(folder)
    with record.staged(folder) as staging:
        (staging / "run.json").write_text(json.dumps(content))
        for name, text in files.items():
            (staging / name).write_text(text)


@pytest.mark.parametrize(
    ("what", "message"), [("data", "on other data than"), ("split", "on another split than the others of seed 1")]
)
def test_runs_on_other_data_or_another_split_are_not_compared(copy: Path, plan: Plan, what: str, message: str) -> None:
    rewrite(copy / "runs" / "hard-1", lambda content: content[what].update(sha256="0" * 64))
    with pytest.raises(KitError) as error:
        read_finished(copy)
    assert f"hard-1: was made {message}" in str(error.value)
    with pytest.raises(KitError, match=rf"hard-1: was made on another {what} \(sha256 000000000000"):
        go(plan, copy)


def test_a_run_that_fails_is_told_and_the_others_go_on(small: RunConfig, tmp_path: Path) -> None:
    both = {"bad": replace(small, lr=10.0, encoder_lr=10.0, clip=None), "good": small}
    both["bad"] = replace(both["bad"], max_tokens=5000)  # more than the encoder's positions: found once it is loaded
    events = go(Plan(both, (0,), False), tmp_path / "out")
    failed = next(event for event in events if isinstance(event, Failed))
    assert (failed.name, failed.reason) == ("bad", f"--max-tokens 5000: {small.encoder} reads at most 128 tokens a post")
    assert [event.name for event in events if isinstance(event, Done)] == ["good"]
    assert list(read_finished(tmp_path / "out").runs) == ["good"]
    assert not (tmp_path / "out" / "runs" / "bad-0").exists()


def test_a_process_that_dies_is_a_failed_run(small: RunConfig, tmp_path: Path) -> None:
    registry = load_registry()
    plan, corpus = prepare(Plan({"T1": small}, (0,), False), tmp_path / "out", registry)
    events = execute(plan, corpus, tmp_path / "out", registry, jobs=1, keep_models=False)
    next(events)
    import multiprocessing

    (child,) = multiprocessing.active_children()
    child.kill()
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.reason == "its process ended with signal 9"


def test_the_yardsticks_are_predicted_for_the_same_pairs(finished: Path) -> None:
    found = read_finished(finished)
    for name in ("tfidf", "tfidf-balanced"):
        for one in found.runs["T1"]:
            yardstick = found.yardsticks[name][one.seed]
            for mechanism in MECHANISMS:
                assert yardstick[mechanism].ids == one.answers[mechanism].ids
                assert (yardstick[mechanism].true == one.answers[mechanism].true).all()


def test_a_run_that_is_missing_takes_no_other_along(copy: Path) -> None:
    shutil.rmtree(copy / "runs" / "hard-1")
    found = read_finished(copy)
    assert {name: [each.seed for each in runs] for name, runs in found.runs.items()} == {"T1": [0, 1], "hard": [0]}
    assert found.missing == [("hard", 1)]
    assert {name: list(answers) for name, answers in found.yardsticks.items()} == {"tfidf": [0, 1], "tfidf-balanced": [0, 1]}


def test_a_folder_that_is_no_comparison_is_named(tmp_path: Path) -> None:
    for content in (None, "{}", "[]", '{"format": 1}', "not json"):
        if content is not None:
            (tmp_path / "comparison.json").write_text(content)
        with pytest.raises(KitError) as error:
            read_finished(tmp_path)
        assert str(error.value) == f"{tmp_path}: not a comparison: comparison.json is missing or unreadable"
    (tmp_path / "comparison.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(KitError, match="format 9 found, expected 1"):
        read_finished(tmp_path)
    plan = {"format": 1, "configurations": {"T1": to_dict(BASE)}, "seeds": [0], "resplit": False}
    (tmp_path / "comparison.json").write_text(json.dumps(plan))
    with pytest.raises(KitError, match="no finished run, expected at least one in"):
        read_finished(tmp_path)


def test_the_record_of_a_compared_run_is_a_record(finished: Path) -> None:
    found = record.read(finished / "runs" / "hard-0")
    assert asdict(found)["config"]["options"]["loss.ER.gamma"] == 3.0
