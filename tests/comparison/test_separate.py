"""One model per task as one configuration: its runs are several, and its answers, time and size are those of all of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from invented import write_two_tasks
from made_up import made_up, rewrite_record

from empathy_kit import KitError
from empathy_kit.cli import cli
from empathy_kit.comparison.finished import read_finished
from empathy_kit.comparison.pages import notes, summarise, to_json
from empathy_kit.comparison.pages.summary import Cost
from empathy_kit.comparison.pages.words import cost_cells, model
from empathy_kit.comparison.parse import parse_configurations
from empathy_kit.comparison.plan import Plan, merge, read_plan, write_plan
from empathy_kit.config import RunConfig, to_dict
from empathy_kit.runs import inventory, record

TASKS = ("ER", "EX", "IP")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T1 and T3, each with one model for all tasks and with one per task; two seeds, each with its own split."""
    options = {"options": {"loss.gamma": "3"}}
    changes = {"T3": options, "T3s": options, "two": {"tasks": ("ER", "IP"), "separate": True}}
    return made_up(tmp_path_factory.mktemp("separate") / "made-up", ["T1", "T1s", "T3", "T3s", "two"], 2, changes=changes)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def test_it_is_given_as_a_known_name_a_flag_or_a_setting_of_a_table(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('[wide]\nloss = "focal"\nseparate = true\n[one]\nseparate = false\n')
    given = ["T1", "T3s", "mine=--loss focal --separate -o loss.gamma 3"]
    found, separate = parse_configurations(given, file, RunConfig())
    assert separate == {"T3s", "mine", "wide"}
    assert (found["T3s"].loss, found["mine"].options, found["one"].loss) == ("focal", {"loss.gamma": "3"}, "ce")


@pytest.mark.parametrize(
    ("given", "table", "message"),
    [
        (["x=--separate=no"], "", "--separate: unknown, expected flags of `empathy-kit run`, such as --loss focal"),
        (["x=--separate no"], "", "no: unknown, expected flags of `empathy-kit run`, such as --loss focal"),
        ([], '[x]\nseparate = "yes"\n', "separate is 'yes', expected true (one model per task) or false (one for all tasks)"),
        ([], "[x]\nseparate = 1\n", "separate is 1, expected true (one model per task) or false (one for all tasks)"),
    ],
)
def test_it_is_on_or_off(tmp_path: Path, given: list[str], table: str, message: str) -> None:
    file = tmp_path / "more.toml"
    file.write_text(table)
    with pytest.raises(KitError) as error:
        parse_configurations(given, file if table else None, RunConfig())
    assert str(error.value) == f"compare x: {message}"


def test_each_of_its_tasks_is_a_run_of_its_own_on_the_same_split(tmp_path: Path) -> None:
    base = RunConfig(tasks=("ER", "IP"), options={"loss.ER.gamma": 3, "trunk.hidden": 8})
    plan = Plan({"T1": RunConfig(), "x": base}, (0, 7), True, frozenset({"x"}))
    assert plan.runs() == [("T1", 0), ("x.ER", 0), ("x.IP", 0), ("T1", 7), ("x.ER", 7), ("x.IP", 7)]
    config = plan.config("x.IP", 7)
    assert (config.tasks, config.seed, config.split_seed, config.options) == (("IP",), 7, 7, base.options)
    assert plan.tasks.names == TASKS


def test_a_plan_keeps_it_and_a_name_stays_what_it_was(tmp_path: Path) -> None:
    plan = Plan({"T1": RunConfig(), "T1s": RunConfig()}, (0,), False, frozenset({"T1s"}))
    write_plan(plan, tmp_path)
    assert read_plan(tmp_path) == plan
    assert merge(plan, Plan({"x": RunConfig()}, (0,), False, frozenset({"x"})), tmp_path).separate == {"T1s", "x"}
    for name, other, changed in (
        ("T1", {"T1"}, "one model for all tasks, not one model per task"),
        ("T1s", set(), "one model per task, not one model for all tasks"),
    ):
        with pytest.raises(KitError) as error:
            merge(plan, Plan({name: RunConfig()}, (0,), False, frozenset(other)), Path("out"))
        assert str(error.value) == (
            f"compare {name}: out has it with {changed}; use the same settings, another name or another --out"
        )


def test_a_plan_from_elsewhere_says_true_or_false(tmp_path: Path) -> None:
    configurations = {"T1": {**to_dict(RunConfig()), "separate": "T1"}}
    content = {"format": 2, "configurations": configurations, "seeds": [0], "resplit": False}
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    with pytest.raises(KitError) as error:
        read_plan(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'comparison.json'}: separate is 'T1', expected true (one model per task) or false (one for all tasks)"
    )


def test_its_answers_are_those_of_each_tasks_run_and_its_time_and_size_are_sums(folder: Path) -> None:
    for task, seconds, speed in zip(TASKS, (10.0, 20.0, 30.5), (30.0, 60.0, 20.0), strict=True):
        rewrite_record(
            folder / "runs" / f"T1s.{task}-1",
            lambda content, seconds=seconds, speed=speed: (
                content["training"].update(seconds=seconds),
                content["model"].update(pairs_per_second=speed),
            ),
        )
    found = read_finished(folder)
    whole = found.runs["T1s"][1]
    assert (whole.name, whole.seed, list(whole.answers)) == ("T1s", 1, list(TASKS))
    for task, part in zip(TASKS, whole.parts, strict=True):
        assert list(part.answers) == [task]
        assert part.name == f"T1s.{task}"
        for name in ("answers", "swapped", "probabilities", "validation"):
            assert getattr(whole, name)[task] is getattr(part, name)[task]
        assert whole.record.scores[task] == record.read(folder / "runs" / f"T1s.{task}-1").scores[task]
        assert found.runs["T1"][1].answers[task].ids == whole.answers[task].ids
        assert not np.array_equal(found.runs["T1"][1].answers[task].predicted, whole.answers[task].predicted)
    assert whole.record.training["seconds"] == 60.5
    assert whole.record.model is not None
    assert whole.record.model.pop("pairs_per_second") == pytest.approx(10.0)  # a tenth of a second per pair, in three models
    assert whole.record.model == {"parameters": 3030, "trained": 1500, "bytes": 3 * 4096}
    assert list(found.runs["two"][0].answers) == ["ER", "IP"]
    assert found.missing == found.remarks == []


def test_it_stands_next_to_the_others_in_every_table(folder: Path) -> None:
    summary = summarise(read_finished(folder))
    titles = {row.name: row.title for row in summary.rows if row.kind == "run"}
    assert titles == {
        "T1": "ce",
        "T1s": "ce, one model per task",
        "T3": "focal",
        "T3s": "focal, one model per task",
        "two": "ce + ER, IP only, one model per task",
    }
    pairs = {(found.first, found.second) for found in summary.contrasts}
    # With the first, and where one setting differs: the loss, how many models there are, or which tasks.
    assert {("T1", "T1s"), ("T3", "T3s"), ("T1s", "T3s"), ("T1s", "two")} <= pairs
    assert not {("T1s", "T3"), ("T3", "two")} & pairs
    assert summary.settings["T1s"]["models"] == "one model per task"
    assert "models" not in summary.settings["T1"]
    assert [len(summary.curves[name]) for name in ("T1", "T1s", "two")] == [2, 6, 4]
    assert list(summary.calibrations["T1s"]) == list(summary.tempered["T1s"]) == list(TASKS)
    assert summary.seconds == 2 * 60.0 * (1 + 3 + 1 + 3 + 2)
    assert summary.costs["T1"] == Cost(1, 60.0, 1030, 500, 4096, 40.0)
    assert summary.costs["T1s"] == Cost(3, 180.0, 3030, 1500, 3 * 4096, pytest.approx(40.0 / 3))
    assert model(summary).endswith("its output: ER, EX, IP. T1s, T3s, two: one such model per task, with one head.")
    result = CliRunner().invoke(cli, ["compare", "--figures-from", str(folder)], catch_exceptions=False)
    assert "Size and time" in result.stdout
    assert "12.0 KiB" in result.stdout
    page, text = ((folder / file).read_text(encoding="utf-8") for file in ("report.html", "report.md"))
    assert "| T1s | 3 | 180 s | 3,030 | 1,500 | 12.0 KiB | 13.3 |" in text
    cells = "".join(f"<td>{cell}</td>" for cell in cost_cells(summary.costs["T1s"]))
    assert f'<tr class="run"><th scope="row">T1s</th>{cells}</tr>' in page
    assert to_json(summary)["costs"]["T1s"]["models"] == 3


def test_a_seed_of_which_one_run_is_missing_is_missing(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / "T1s.EX-1")
    found = read_finished(folder)
    assert [run.seed for run in found.runs["T1s"]] == [0]
    assert found.missing == [("T1s.EX", 1)]
    summary = summarise(found)
    assert {row.name: row.seeds for row in summary.rows if row.kind == "run"}["T1s"] == [0]
    told = list(notes(summary))
    assert "Missing runs: T1s.EX 1." in told
    assert "T1s: seed 1 is left out, because it is not complete without T1s.EX." in told
    assert all(contrast.seeds == [0] for contrast in summary.contrasts if "T1s" in (contrast.first, contrast.second))


def test_where_no_configuration_is_complete_that_is_one_line(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1s"], 1)
    shutil.rmtree(made / "runs" / "T1s.IP-0")
    with pytest.raises(KitError) as error:
        read_finished(made)
    assert str(error.value) == f"{made}: no configuration is complete; missing runs: T1s.IP 0; continue the comparison"


def test_each_of_its_runs_is_checked(folder: Path) -> None:
    def refusal() -> str:
        with pytest.raises(KitError) as error:
            read_finished(folder)
        return str(error.value)

    one, other = folder / "runs" / "T1s.EX-0", folder / "runs" / "T1s.IP-0"
    shutil.rmtree(other)
    shutil.copytree(one, other)
    assert refusal() == f"{other}: is a run with --tasks EX, not IP; expected T1s.IP as it is planned"
    shutil.rmtree(other)  # a run whose seed is not complete is checked too
    rewrite_record(one, lambda content: content["encoder"].update(sha256="0" * 64))
    assert refusal().startswith(f"{one}: --encoder minilm was another one than in {folder / 'runs' / 'T1-0'} (sha256 0000")


def test_its_runs_of_two_versions_are_told(folder: Path) -> None:
    for task, version in zip(TASKS, "112", strict=True):
        theirs = {"name": "ce", "distribution": "mine", "version": version}
        for seed in (0, 1):
            rewrite_record(
                folder / "runs" / f"T1s.{task}-{seed}", lambda content, theirs=theirs: content["plugins"].update(loss=theirs)
            )
    told = list(notes(summarise(read_finished(folder))))
    assert "T1s: loss ce from mine 1." in told
    assert "T1s: loss ce from mine 2." in told
    assert "T1s: its runs have plugins of different versions, whose numbers may differ." in told


def test_what_earlier_runs_do_not_have_is_a_dash(folder: Path) -> None:
    before = cost_cells(summarise(read_finished(folder)).costs["T1"])
    rewrite_record(folder / "runs" / "T1-0", lambda content: content.pop("model"))
    assert cost_cells(summarise(read_finished(folder)).costs["T1"]) == before  # the mean of those that have it
    for run in (*(folder / "runs").glob("T1-[!0]"), *(folder / "runs").glob("T1s.EX-*")):
        rewrite_record(run, lambda content: content.pop("model"))
    costs = summarise(read_finished(folder)).costs
    assert cost_cells(costs["T1"]) == ["1", "60 s", "-", "-", "-", "-"]
    assert cost_cells(costs["T1s"]) == ["3", "180 s", "-", "-", "-", "-"]
    assert "-" not in cost_cells(costs["T3s"])


@pytest.mark.parametrize(
    ("name", "value"), [("pairs_per_second", 0), ("pairs_per_second", "fast"), ("parameters", 1.5), ("bytes", 10**400)]
)
def test_a_size_or_speed_that_is_none_is_one_line(folder: Path, name: str, value: object) -> None:
    rewrite_record(folder / "runs" / "T1-0", lambda content: content["model"].update({name: value}))
    with pytest.raises(KitError) as error:
        read_finished(folder)
    assert str(error.value) == f"{folder / 'runs' / 'T1-0' / 'run.json'}: {record.MALFORMED}"


@pytest.mark.usefixtures("in_threads")
def test_it_is_trained_continued_and_reported_as_any_other(tiny_roberta: Path, tmp_path: Path) -> None:
    data, schema = write_two_tasks(tmp_path)
    out = tmp_path / "out"
    quick = ["--epochs", "1", "--max-tokens", "16", "--threads", "1", "--seeds", "1", "--jobs", "1", "-o", "trunk.hidden", "8"]
    given = ["compare", "one=--loss ce", "mine=--loss focal -o loss.warmth.gamma 3 --separate"]
    command = [*given, "--data", str(data), "--schema", str(schema), "--encoder", str(tiny_roberta), *quick, "--out", str(out)]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [line for line in result.stderr.splitlines() if "seed" in line] == [
        "one, seed 0: done",
        "mine.warmth, seed 0: done",
        "mine.advice, seed 0: done",
    ]
    titles = {each.path.name: each.record.title for each in inventory.find(out) if each.record is not None}
    assert titles == {"one-0": "ce", "mine.warmth-0": "focal + warmth only", "mine.advice-0": "focal + advice only"}
    whole = read_finished(out).runs["mine"][0]
    parts = [record.read(out / "runs" / f"mine.{task}-0", model=False) for task in ("warmth", "advice")]
    assert whole.record.training["seconds"] == sum(part.training["seconds"] for part in parts)
    assert whole.record.config["options"]["loss.warmth.gamma"] == 3.0
    assert whole.record.config["options"]["loss.advice.gamma"] == 2.0
    assert whole.record.config["tasks"] is None
    single = read_finished(out).runs["one"][0].record.model
    assert single is not None
    assert whole.record.model is not None
    assert single["parameters"] < whole.record.model["parameters"] < 2 * single["parameters"]
    # Float32 weights, and few buffers.
    assert 4 * single["parameters"] <= single["bytes"] < 4.1 * single["parameters"]

    shutil.rmtree(out / "runs" / "mine.advice-0")
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert [line for line in result.stderr.splitlines() if "seed" in line] == [
        "one, seed 0: found finished",
        "mine.warmth, seed 0: found finished",
        "mine.advice, seed 0: done",
    ]
    again = read_finished(out).runs["mine"][0]
    assert all(np.array_equal(again.answers[task].predicted, whole.answers[task].predicted) for task in whole.answers)
    assert "Size and time" in result.stdout


def test_yardsticks_are_those_of_the_seeds_that_count(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1s"], 2)
    shutil.rmtree(made / "runs" / "T1s.EX-1")
    assert read_finished(made).left_out == ["tfidf was not measured (split 0).", "tfidf-balanced was not measured (split 0)."]
    rows = {row.name: row.seeds for row in summarise(read_finished(made)).rows}
    assert rows == {"T1s": [0], "majority": [0], "T1s-swapped": [0]}
