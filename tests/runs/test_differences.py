"""How the settings of two runs differ: `compare`, `runs diff` and a continued run say the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from made_run import make_record

from empathy_kit.comparison.plan import differences
from empathy_kit.config import RunConfig, to_dict
from empathy_kit.data.schema import Schema, TaskSchema
from empathy_kit.runs.differences import as_given, differing_settings, listed, sentences
from empathy_kit.runs.identity import changes

BASE = RunConfig()
FOCAL = RunConfig(loss="focal", options={"loss.gamma": 1.5, "trunk.hidden": 8})
ONE = Schema((TaskSchema("pace", "pace", "pace", ("slow", "fast")),))
TITLED = Schema(tuple(replace(task, title="another") for task in BASE.schema.tasks))
CASES: dict[str, tuple[RunConfig, RunConfig, list[str]]] = {
    "none, and all tasks by name": (BASE, replace(BASE, tasks=("ER", "EX", "IP")), []),
    "one task": (BASE, replace(BASE, tasks=("EX",)), ["--tasks ER,EX,IP, not EX"]),
    "no limit": (BASE, replace(BASE, clip=None), ["--clip 1.0, not none"]),
    "a limit where there was none": (replace(BASE, clip=None), BASE, ["--clip none, not 1.0"]),
    "options of another plugin": (FOCAL, replace(FOCAL, loss="ce", options={"trunk.hidden": 8}), ["--loss focal, not ce"]),
    "an option of the same plugin": (
        FOCAL,
        replace(FOCAL, options={"loss.gamma": 1.5, "loss.ER.gamma": None, "trunk.hidden": 9}),
        ["-o trunk.hidden 8, not 9"],
    ),
    "an option that is not given": (BASE, replace(BASE, options={"trunk.hidden": 9}), ["-o trunk.hidden its default, not 9"]),
    "an option that is none": (
        replace(BASE, options={"trunk.hidden": None}),
        replace(BASE, options={"trunk.hidden": 9}),
        ["-o trunk.hidden none, not 9"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_all_who_ask_are_told_the_same(case: str) -> None:
    one, other, told = CASES[case]
    assert differences(one, other) == changes(to_dict(one), to_dict(other)) == told
    found = differing_settings(*(make_record(config=to_dict(each)) for each in (one, other)))
    assert all(line.startswith(f"{name} ") for name, line in zip(found, told, strict=True))


def test_what_compare_does_not_count_is_another_run_all_the_same() -> None:
    other = replace(BASE, seed=1, threads=2)
    assert differences(BASE, other) == []
    assert changes(to_dict(BASE), to_dict(other)) == ["--seed 0, not 1", "--threads none, not 2"]


def test_data_and_encoder_of_a_stopped_run_are_compared_by_name_only_where_that_is_asked_for() -> None:
    settings, other = to_dict(BASE), to_dict(replace(BASE, data="reddit", encoder="mpnet"))
    assert changes(settings, other) == []
    assert changes(settings, other, by_name=True) == ["--data sample, not reddit", "--encoder minilm, not mpnet"]


@pytest.mark.parametrize("schema", [ONE.to_dict(), TITLED.to_dict(), {"of another version": 1}])
def test_a_stopped_run_with_another_schema_is_another_run_even_where_only_titles_differ(schema: dict[str, Any]) -> None:
    recorded = {**to_dict(replace(BASE, epochs=9)), "schema": schema}
    assert changes(recorded, to_dict(BASE)) == ["another --schema", "--epochs 9, not 5"]


def test_a_setting_of_another_version_makes_another_run_and_ends_nothing() -> None:
    assert changes({**to_dict(BASE), "novel": 3}, to_dict(BASE)) == ["--novel 3, not its default"]


def test_titles_and_columns_do_not_tell_configurations_apart() -> None:
    assert differences(BASE, replace(BASE, schema=TITLED)) == []
    assert as_given(BASE) == as_given(to_dict(BASE))


def test_of_many_differences_the_first_are_told() -> None:
    many = as_given(replace(BASE, options={f"trunk.x{at}": at for at in range(8)}))
    assert listed(sentences(as_given(BASE), many)) == (
        "; ".join(f"-o trunk.x{at} its default, not {at}" for at in range(6)) + "; and 2 more"
    )
