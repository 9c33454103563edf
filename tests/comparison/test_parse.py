"""What the user gives: configurations by name, flags or table, and seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from empathy_kit import KitError
from empathy_kit.comparison.parse import parse_configurations, parse_seeds
from empathy_kit.config import FOUR, RunConfig

BASE = RunConfig()


def configurations(*given: str, file: Path | None = None, options: dict[str, str] | None = None) -> dict[str, RunConfig]:
    return parse_configurations(given, file, BASE, options)[0]


def test_without_names_it_is_the_papers_four() -> None:
    found = configurations()
    assert tuple(found) == FOUR
    assert [(config.loss, config.rationale) for config in found.values()] == [
        ("ce", "none"),
        ("ce", "predicted"),
        ("focal", "none"),
        ("focal", "predicted"),
    ]


def test_the_data_of_a_table_are_here_or_next_to_its_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('[mine]\ndata = "posts.csv"\n')
    with pytest.raises(KitError, match=r"--file .*plan\.toml: its data posts\.csv are neither in this folder nor next to"):
        configurations(file=file)
    (tmp_path / "posts.csv").touch()
    assert Path(configurations(file=file)["mine"].data).resolve() == tmp_path / "posts.csv"


def test_a_configuration_is_a_known_name_or_flags_or_a_table(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('[wide]\nloss = "focal"\ntasks = ["ER"]\noptions = { loss = { gamma = 1.0 }, trunk = { hidden = 512 } }\n')
    found = configurations("T2g", "mine=--loss=focal -o loss.gamma 3 --no-rationale --lr 0.01 --tasks ER,IP", file=file)
    assert list(found) == ["T2g", "mine", "wide"]
    assert found["T2g"].rationale == "gold"
    assert (found["mine"].loss, found["mine"].lr, found["mine"].options) == ("focal", 0.01, {"loss.gamma": "3"})
    assert (found["mine"].tasks, found["wide"].tasks) == (("ER", "IP"), ("ER",))
    assert found["wide"].options == {"loss.gamma": 1.0, "trunk.hidden": 512}
    file.write_text(file.read_text("utf-8"), encoding="utf-8-sig")  # as editors on Windows do
    assert configurations(file=file)["wide"] == found["wide"]


def test_options_for_all_are_each_configurations_own_unless_it_sets_them() -> None:
    found = configurations("T1", "T3", "mine=-o trunk.hidden 8", options={"trunk.hidden": "16", "loss.gamma": "3"})
    assert [config.options["trunk.hidden"] for config in found.values()] == ["16", "16", "8"]
    assert {config.options["loss.gamma"] for config in found.values()} == {"3"}  # T1's loss has no gamma, and will say so


NAME = "expected a name of at most 100 letters, digits and hyphens, first a letter"
FLAGS = "expected flags of `empathy-kit run`, such as --loss focal"
WRONG = {
    "an unknown name": (
        ["T9"],
        "compare T9: unknown, expected T1, T2, T3, T4, T2g, T4g, T2t, T4t, weighted, response, T1s, T3s or NAME=FLAGS",
    ),
    "an option written as other tools write it": (
        ["x=--loss focal -o loss.gamma=3"],
        "compare x: -o loss.gamma=3: -o takes a name and a value, expected -o loss.gamma 3",
    ),
    "the same before another flag": (
        ["x=-o loss.gamma=3 --loss focal"],
        "compare x: -o loss.gamma=3: -o takes a name and a value, expected -o loss.gamma 3",
    ),
    "a name twice": (["T1", "T1=--loss focal"], "compare T1: is given twice, expected each name once"),
    "the name of a yardstick": (["Majority=--loss ce"], "compare Majority: this is the name of a yardstick; use another name"),
    "the name of another yardstick": (
        ["T1-swapped=--loss ce"],
        "compare T1-swapped: this is the name of a yardstick; use another name",
    ),
    "names that differ in capitals": (
        ["T1", "t1=--loss focal"],
        "compare t1: differs from another name only in case, which some file systems ignore; use another",
    ),
    "a path": (["../up=--loss ce"], f"compare '../up': {NAME}"),
    "a name that is too long": (["n" * 101 + "="], f"compare 'nnnnnnnnnnnnnnnnnnnn'...: {NAME}"),
    "an unknown flag": (["a=--los ce"], f"compare a: --los: unknown, {FLAGS}"),
    "a flag without its value": (["a=--loss"], f"compare a: --loss: needs a value, {FLAGS}"),
    "an open quote": (["a=--loss 'ce"], "compare a=--loss 'ce: No closing quotation, expected flags of `empathy-kit run`"),
    "a value that is none": (["a=--epochs many"], "compare a: --epochs many: expected a whole number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_configuration_that_is_none_is_refused_in_one_line(case: str) -> None:
    given, message = WRONG[case]
    with pytest.raises(KitError) as error:
        configurations(*given)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("T1 = 3", "T1 is a int, expected a table of settings"),
        ("[T1", "not valid TOML: Expected ']' at the end of a table declaration (at end of document)"),
        ("", 'no table found, expected at least one, such as [mine] with loss = "focal"'),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_of_configurations_that_is_none_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "more.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(KitError) as error:
        configurations(file=file)
    assert str(error.value) == f"--file {file}: {message}"


def test_seeds_are_a_number_or_a_list() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("7, 3") == (7, 3)


RANGE = "expected 1 to 10000 seeds, each from 0 to 4294967295"
HOW = "expected how many, or a list such as 0,1,7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", RANGE),
        ("9999999999", RANGE),  # and nobody waits for so many to be counted
        ("0,4294967296", RANGE),
        ("1,1", "1 is given twice, expected each seed once"),
        ("-1", HOW),
        ("a", HOW),
        ("1,", HOW),
        ("1_000", HOW),
        ("٣", HOW),
    ],
)
def test_seeds_that_are_none_are_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(KitError) as error:
        parse_seeds(text)
    assert str(error.value) == f"--seeds {text}: {message}"
