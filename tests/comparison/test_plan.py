"""A plan: which runs there are, that it grows and keeps what it has, and that one from elsewhere is not believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from empathy_kit import KitError
from empathy_kit.comparison.plan import Plan, merge, read_plan, write_plan
from empathy_kit.config import RunConfig, to_dict
from empathy_kit.data.schema import Schema, TaskSchema
from empathy_kit.data.sources import load_corpus

BASE = RunConfig()
ONE = Schema((TaskSchema("pace", "pace", "pace", ("slow", "fast")),))


def test_seeds_vary_the_split_only_where_that_is_asked_for() -> None:
    plan = Plan({"T1": BASE}, (4,), resplit=False)
    assert (plan.config("T1", 4).seed, plan.config("T1", 4).split_seed) == (4, 0)
    again = replace(plan, resplit=True).config("T1", 4)
    assert (again.seed, again.split_seed) == (4, 4)


def test_all_configurations_of_a_seed_come_before_the_next_seed() -> None:
    assert Plan({"a": BASE, "b": BASE}, (0, 1), False).runs() == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_there_is_a_split_per_seed_that_draws_one_and_its_tasks_are_those_that_are_trained() -> None:
    corpus = load_corpus("sample")
    plan = Plan({"a": replace(BASE, tasks=("IP",)), "b": replace(BASE, tasks=("ER",))}, (0, 1), resplit=True)
    assert plan.tasks.names == ("ER", "IP")
    assert list(plan.splits(corpus)) == [0, 1]
    assert list(replace(plan, resplit=False).splits(corpus)) == [0]


def test_a_plan_that_is_written_is_read_again(tmp_path: Path) -> None:
    odd = replace(BASE, schema=ONE, options={"loss.gamma": "3", "trunk.hidden": 8})
    plan = Plan({"T1": odd, "mine": replace(odd, tasks=("pace",))}, (0, 7), resplit=True)
    write_plan(plan, tmp_path)
    assert read_plan(tmp_path) == plan
    path = tmp_path / "comparison.json"
    path.write_text(path.read_text("utf-8"), encoding="utf-8-sig")  # as editors on Windows do
    assert read_plan(tmp_path) == plan


GOOD: dict[str, Any] = {"format": 2, "configurations": {"T1": to_dict(BASE)}, "seeds": [0], "resplit": False}
NAME = "expected a name of at most 100 letters, digits and hyphens, first a letter"
SEEDS = "expected seeds as a list of whole numbers, and resplit as true or false"
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another format": ({"format": 9}, "format 9 found, expected 2"),
    "an earlier format": ({"format": 1}, "format 1 found, expected 2"),
    "no configurations": ({"configurations": {}}, "configurations: expected at least one name with its settings"),
    "no settings": ({"configurations": {"T1": 3}}, "configurations: expected at least one name with its settings"),
    "a path for a name": ({"configurations": {"../x": {}}}, f"compare '../x': {NAME}"),
    "an endless name": ({"configurations": {"x" * 300: {}}}, f"compare 'xxxxxxxxxxxxxxxxxxxx'...: {NAME}"),
    "a setting out of range": ({"configurations": {"T1": {"epochs": 0}}}, "--epochs 0: out of range, expected 1 to 10000"),
    "an unknown task": ({"configurations": {"T1": {"tasks": ["x"]}}}, "--tasks: 'x' is unknown; there are ER, EX, IP"),
    "other data": (
        {"configurations": {"T1": {}, "T3": {"data": "x"}}},
        "compare T3: --data is x, but sample before; all that is compared must be tested on the same pairs; use another --out",
    ),
    "text for seeds": ({"seeds": ["0"]}, SEEDS),
    "no list of seeds": ({"seeds": 3}, SEEDS),
    "a seed twice": ({"seeds": [1, 1]}, "seeds: 1 is given twice, expected each seed once"),
    "a negative seed": ({"seeds": [-1]}, "seeds: expected 1 to 10000 seeds, each from 0 to 4294967295"),
    "no seed": ({"seeds": []}, "seeds: expected 1 to 10000 seeds, each from 0 to 4294967295"),
    "a word for resplit": ({"resplit": "yes"}, SEEDS),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_plan_that_somebody_else_wrote_is_checked(tmp_path: Path, case: str) -> None:
    changes, message = WRONG[case]
    (tmp_path / "comparison.json").write_text(json.dumps({**GOOD, **changes}))
    with pytest.raises(KitError) as error:
        read_plan(tmp_path)
    assert str(error.value) == f"{tmp_path / 'comparison.json'}: {message}"


@pytest.mark.parametrize("content", [None, "{}", "[]", "null", '{"format": 2}', "not json", "[" * 100_000])
def test_a_folder_that_is_no_comparison_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(KitError) as error:
        read_plan(tmp_path)
    assert str(error.value) == f"{tmp_path}: not a comparison: comparison.json is missing or unreadable"


def test_a_plan_grows() -> None:
    before = Plan({"T1": BASE, "T3": replace(BASE, loss="focal")}, (0, 1), True)
    now = Plan({"T1": BASE, "weighted": replace(BASE, loss="weighted")}, (1, 5), True)
    grown = merge(before, now, Path("out"))
    assert (list(grown.configurations), grown.seeds) == (["T1", "T3", "weighted"], (0, 1, 5))


SAME = "all that is compared must be tested on the same pairs; use another --out"
KEPT = {
    "another setting": (
        {"T1": replace(BASE, epochs=2)},
        True,
        "compare T1: out has it with --epochs 5, not 2; use the same settings, another name or another --out",
    ),
    "two others": (
        {"T1": replace(BASE, epochs=2, options={"trunk.hidden": 8})},
        True,
        "compare T1: out has it with --epochs 5, not 2; -o trunk.hidden its default, not 8; use the same settings, another name "
        "or another --out",
    ),
    "more than anybody reads": (
        {"T1": replace(BASE, options={f"trunk.x{at}": at for at in range(9)})},
        True,
        f"compare T1: out has it with {'; '.join(f'-o trunk.x{at} its default, not {at}' for at in range(6))}; and 3 more; "
        "use the same settings, another name or another --out",
    ),
    "no limit": (
        {"T1": replace(BASE, clip=None)},
        True,
        "compare T1: out has it with --clip 1.0, not none; use the same settings, another name or another --out",
    ),
    "another option": (
        {"T1": replace(BASE, options={"trunk.hidden": 8})},
        True,
        "compare T1: out has it with -o trunk.hidden its default, not 8; use the same settings, another name or another --out",
    ),
    "other tasks": (
        {"T1": replace(BASE, tasks=("ER",))},
        True,
        "compare T1: out has it with --tasks ER,EX,IP, not ER; use the same settings, another name or another --out",
    ),
    "one split for all": ({"T1": BASE}, False, "--out out: was begun with --resplit; do the same, or use another --out"),
    "another kind of split": (
        {"x": replace(BASE, split="paper")},
        True,
        f"compare x: --split is paper, but grouped in out; {SAME}",
    ),
    "other tasks of the data": (
        {"x": replace(BASE, schema=ONE)},
        True,
        f"compare x: --schema is pace: slow, fast, but ER: 0, 1, 2; EX: 0, 1, 2; IP: 0, 1, 2 in out; {SAME}",
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_name_keeps_its_configuration_and_a_comparison_its_pairs(case: str) -> None:
    configurations, resplit, message = KEPT[case]
    with pytest.raises(KitError) as error:
        merge(Plan({"T1": BASE}, (0,), True), Plan(configurations, (0,), resplit), Path("out"))
    assert str(error.value) == message


def test_all_tasks_by_name_and_other_titles_of_tasks_are_the_same_configuration() -> None:
    titled = Schema(tuple(replace(task, title="T", column="C") for task in BASE.schema.tasks))
    merge(
        Plan({"T1": BASE}, (0,), True), Plan({"T1": replace(BASE, tasks=("ER", "EX", "IP"), schema=titled)}, (0,), True), Path()
    )
