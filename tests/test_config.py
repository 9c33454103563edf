"""The configuration: every field a flag, the presets as the paper has them, and files that repeat a run."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from empathy_kit.config import (
    PRESETS,
    RANGES,
    RunConfig,
    configure,
    flag,
    located,
    preset,
    read_config,
    settings,
    to_dict,
)
from empathy_kit.data.schema import EPITOME, Schema, TaskSchema
from empathy_kit.errors import KitError
from empathy_kit.options import parse
from empathy_kit.plugins import load_registry
from empathy_kit.runs.choose import choose_plugins

TWO = Schema((TaskSchema("warmth", "warmth", "warmth", ("no", "yes")), TaskSchema("pace", "pace", "pace", ("slow", "fast"))))
TWO_TOML = '[[tasks]]\nname = "warmth"\nlabels = ["no", "yes"]\n\n[[tasks]]\nname = "pace"\nlabels = ["slow", "fast"]\n'

# No field at its default.
OTHER: dict[str, Any] = {
    "data": "reddit",
    "schema": TWO,
    "tasks": ("pace",),
    "split": "paper",
    "split_seed": 2**32 - 1,
    "train_share": 0.5,
    "seed": 7,
    "encoder": "roberta-base",
    "max_tokens": 128,
    "truncate": "head",
    "posts": "response",
    "loss": "focal",
    "rationale": "tag",
    "head": "attention",
    "sampler": "over",
    "trunk": "mean",
    "freeze_layers": 2,
    "attention_dropout": None,
    "epochs": 1,
    "batch_size": 8,
    "encoder_lr": 1e-5,
    "lr": 0.1,
    "warmup": 0.0,
    "schedule": "constant",
    "clip": None,
    "average": None,
    "select": "loss",
    "patience": 9,
    "device": "cpu",
    "precision": "bf16",
    "fused": "off",
    "threads": 3,
    "options": {"loss.gamma": "1.5", "loss.pace.gamma": 3, "rationale.weight": 0.1},
}


def as_text(value: Any) -> str:
    return "none" if value is None else ",".join(value) if isinstance(value, tuple) else str(value)


def test_every_field_survives_json() -> None:
    config = RunConfig(**OTHER)
    assert all(getattr(config, entry.name) != getattr(RunConfig(), entry.name) for entry in fields(RunConfig))
    content = json.loads(json.dumps(to_dict(config), allow_nan=False))
    assert set(content) == {entry.name for entry in fields(RunConfig)}  # what is not in run.json did not happen
    assert configure(RunConfig(), content) == config
    assert configure(RunConfig(), to_dict(RunConfig())) == RunConfig()


def test_every_field_is_a_flag_and_reads_the_text_of_its_value(tmp_path: Path) -> None:
    assert set(settings()) == set(OTHER) - {"options"}
    assert all(text for _, text in settings().values())
    file = tmp_path / "two.toml"
    file.write_text(TWO_TOML)
    typed = {name: str(file) if name == "schema" else as_text(OTHER[name]) for name in settings()}
    base = RunConfig(**{name: OTHER[name] for name in ("loss", "rationale", "head", "sampler", "trunk", "options")})
    assert configure(base, typed) == RunConfig(**OTHER)


def test_a_change_leaves_all_other_fields_and_adds_to_the_options() -> None:
    base = RunConfig(**OTHER)
    changed = configure(base, {"epochs": "3", "options": {"loss.alpha": "2", "head.x": "1"}})
    options = {"loss.gamma": "1.5", "loss.pace.gamma": 3, "loss.alpha": "2", "rationale.weight": 0.1, "head.x": "1"}
    assert to_dict(changed) == {**to_dict(base), "epochs": 3, "options": options}
    assert base == RunConfig(**OTHER)


def test_the_paper_preset_is_section_4_2_to_the_letter() -> None:
    """RoBERTa-base, 64 tokens, batch 32, learning rate 1e-5, dropout .3, GRU 2 x 256, 5 epochs, stop by validation loss."""
    assert to_dict(preset("paper")) == {
        "data": "sample",
        "schema": EPITOME.to_dict(),
        "tasks": None,
        "split": "paper",
        "split_seed": 0,
        "train_share": 1.0,
        "seed": 0,
        "encoder": "roberta-base",
        "max_tokens": 64,
        "truncate": "head",
        "posts": "both",
        "loss": "ce",
        "rationale": "none",
        "head": "linear",
        "sampler": "all",
        "trunk": "gru",
        "freeze_layers": 0,
        "attention_dropout": None,  # the paper changes nothing inside RoBERTa
        "epochs": 5,
        "batch_size": 32,
        "encoder_lr": 1e-5,
        "lr": 1e-5,
        # What the paper does not name is not there.
        "warmup": 0.0,
        "schedule": "constant",
        "clip": None,
        "average": None,
        "select": "loss",
        "patience": 1,
        "device": "auto",
        "precision": "no",
        "fused": "auto",
        "threads": None,
        "options": {"trunk.hidden": 256, "trunk.layers": 2, "trunk.dropout": 0.3},
    }


def test_the_papers_four_configurations_are_two_flags_on_its_preset() -> None:
    plugins = choose_plugins(configure(preset("paper"), {"loss": "focal", "rationale": "none"}), load_registry())
    assert plugins.options["loss"] == {
        name: {"gamma": 2.0, "power": 0.0} for name in ("ER", "EX", "IP")
    }  # "gamma = 2 to handle class imbalance"; no class weights


def test_the_small_preset_is_the_defaults() -> None:
    assert preset("small") == RunConfig()
    assert list(PRESETS) == ["small", "paper", "best"]


def test_an_unknown_preset_lists_those_that_there_are() -> None:
    with pytest.raises(KitError) as error:
        preset("large")
    assert str(error.value) == "--preset large: unknown, expected one of small, paper, best"


@pytest.mark.parametrize(
    ("value", "tasks"),
    [("ER,IP", ("ER", "IP")), (" IP , ER ", ("ER", "IP")), (["EX"], ("EX",)), ("none", None), (None, None), ("", ())],
)
def test_tasks_are_read_from_text_with_commas_and_from_lists(value: object, tasks: tuple[str, ...] | None) -> None:
    assert configure(RunConfig(), {"tasks": value}).tasks == tasks  # whether there are such tasks, the schema knows


def test_a_schema_is_read_from_its_file_by_its_name_and_written_out(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(TWO_TOML)
    for value in (str(file), TWO, TWO.to_dict(), json.loads(json.dumps(TWO.to_dict()))):
        assert configure(RunConfig(), {"schema": value}).schema == TWO
    assert configure(RunConfig(schema=TWO), {"schema": "epitome"}).schema == EPITOME
    assert configure(RunConfig(schema=TWO), {"epochs": 1}).schema == TWO


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_range_is_refused_at_both_ends(name: str) -> None:
    low, high = RANGES[name]
    assert getattr(configure(RunConfig(), {name: low}), name) == low
    assert getattr(configure(RunConfig(), {name: high}), name) == high
    for value in (low - 1, high + 1):
        with pytest.raises(KitError) as error:
            configure(RunConfig(), {name: str(value)})
        assert (
            str(error.value)
            == f"{flag(name)} {parse(get_type_hints(RunConfig)[name], str(value))}: out of range, expected {low} to {high}"
        )


def test_every_number_has_a_range() -> None:
    hints = get_type_hints(RunConfig)
    numbers = {name for name, hint in hints.items() if {int, float} & {hint, *get_args(hint)} and get_origin(hint) is not Literal}
    assert set(RANGES) == numbers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": "five"}, "--epochs five: expected a whole number"),
        ({"epochs": "2.5"}, "--epochs 2.5: expected a whole number"),
        ({"lr": "nan"}, "--lr nan: expected a finite number"),
        ({"lr": "1e999"}, "--lr 1e999: expected a finite number"),
        ({"seed": "9" * 400}, f"--seed {'9' * 400}: expected a whole number"),
        ({"seed": True}, "--seed True: expected int"),
        ({"split": "random"}, "--split random: expected one of grouped, paper"),
        ({"batch_size": None}, "--batch-size None: expected int"),
        ({"threads": "all"}, "--threads all: expected int | none"),
        ({"data": 5}, "--data 5: expected str"),
        ({"options": ["loss.gamma"]}, "options: a list found, expected names and values such as loss.gamma 1.5"),
        ({"schema": "nowhere.toml"}, "--schema nowhere.toml: cannot be read: No such file or directory"),
        ({"schema": {"tasks": []}}, "schema: no task found, expected at least one table [[tasks]] with name and labels"),
        ({"bath_size": 8}, f"unknown setting 'bath_size'; there are {', '.join(OTHER)}"),
    ],
)
def test_a_setting_that_is_wrong_is_named_with_what_was_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(KitError) as error:
        configure(RunConfig(), changes)
    assert str(error.value) == message


def test_a_run_json_repeats_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"format": 3, "config": to_dict(RunConfig(**OTHER)), "scores": {}}))
    assert configure(RunConfig(), read_config(path)) == RunConfig(**OTHER)


def test_a_general_option_given_now_beats_the_mechanisms_own_that_was_inherited() -> None:
    base = RunConfig(loss="focal", options={"loss.ER.gamma": 2.0, "loss.EX.gamma": 2.0, "rationale.weight": 1.0})
    changed = configure(base, {"options": {"loss.gamma": "1.5", "loss.IP.gamma": "3"}})
    assert changed.options == {"loss.gamma": "1.5", "loss.IP.gamma": "3", "rationale.weight": 1.0}


def test_another_loss_does_not_inherit_the_options_of_the_one_it_replaces() -> None:
    base = RunConfig(loss="focal", options={"loss.gamma": 3.0, "loss.ER.gamma": 1.0, "rationale.weight": 0.5})
    assert configure(base, {"loss": "ce"}).options == {"rationale.weight": 0.5}
    assert configure(base, {"loss": "focal", "seed": 1}).options == base.options


@pytest.mark.parametrize("keys", ['"loss.gamma" = 1.5\n"loss.ER.gamma" = "3"', 'loss.gamma = 1.5\nloss.ER.gamma = "3"'])
def test_a_toml_file_names_only_what_it_changes(tmp_path: Path, keys: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'loss = "focal"\nlr = 1e-4\nseed = 3\n\n[options]\n{keys}\n')
    expected = RunConfig(loss="focal", lr=1e-4, seed=3, options={"loss.gamma": 1.5, "loss.ER.gamma": "3"})
    assert configure(RunConfig(), read_config(path)) == expected


@pytest.mark.parametrize(("name", "content"), [("mine.toml", "seed = 3"), ("run.json", '{"config": {"seed": 3}}')])
def test_a_byte_order_mark_before_settings_is_no_part_of_them(tmp_path: Path, name: str, content: str) -> None:
    """Editors on Windows write one."""
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert read_config(tmp_path / name) == {"seed": 3}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("run.json", b"", "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("run.json", b"[" * 100_000, "not valid JSON: maximum recursion depth exceeded"),
        ("run.json", b"[1]", "a list found, expected settings"),
        ("run.json", b'{"config": "small"}', "config is a str, expected settings"),
        ("run.json", '{"seed": 1}'.encode("utf-16"), "cannot be read: not UTF-8"),
        ("mine.toml", b"seed: 3", "not valid TOML: Expected '=' after a key in a key/value pair (at line 1, column 5)"),
        ("mine.toml", b"seed = 1\nseed = 2\n", "not valid TOML: Cannot overwrite a value (at line 2, column 9)"),
    ],
)
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(KitError) as error:
        read_config(path)
    assert str(error.value).startswith(f"--config {path}: {reason}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(KitError) as error:
            read_config(path)
        assert str(error.value) == f"--config {path}: cannot be read: {reason}"


def test_tasks_stand_in_the_order_of_the_schema_however_they_are_given() -> None:
    assert (
        configure(RunConfig(), {"tasks": "IP,ER"}).tasks == configure(RunConfig(), {"tasks": ["ER", "IP"]}).tasks == ("ER", "IP")
    )
    assert configure(RunConfig(), {"tasks": "nobodys"}).tasks == ("nobodys",)  # for the schema to refuse


def test_what_a_file_names_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `--config project/runs/x/run.json` is given in a folder next to the project's."""
    project, file = tmp_path / "project", tmp_path / "project" / "runs" / "x" / "run.json"
    for folder in (file.parent, project / "tables", project / "sample", tmp_path / "here"):
        folder.mkdir(parents=True)
    (project / "tables" / "pairs.csv").touch()
    monkeypatch.chdir(tmp_path / "here")
    given = {"data": "tables/pairs.csv", "encoder": "roberta-base", "epochs": 3}
    found = {**given, "data": str(Path("..", "project", "tables", "pairs.csv"))}
    assert located(given, file) == located(given, Path("..", "project", "runs", "x", "run.json")) == found
    assert located({"data": "sample"}, file) == {"data": "sample"}  # the kit's, whatever lies about
    Path("tables").mkdir()
    Path("tables", "pairs.csv").touch()
    assert located(given, file) == given
    with pytest.raises(KitError) as error:
        located({"data": "gone.csv"}, file)
    assert str(error.value) == (
        f"--config {file}: its data gone.csv are neither in this folder nor next to that file or in a folder above it; give them "
        "as --data"
    )
