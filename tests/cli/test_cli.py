"""The command line: results on stdout, one line on stderr for what the user can fix, exit code 2, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_reply import Reply

from empathy_kit import __version__
from empathy_kit.cli.run import base_configuration
from empathy_kit.config import RunConfig, configure, to_dict

LISTED = "there are ce, focal, weighted"


ROUTES = (
    "unknown, expected KIND.OPTION with a kind of loss, rationale, head, sampler, trunk, or loss.ER.OPTION and head.ER.OPTION "
    "for one task of ER, EX, IP"
)


WRONG: dict[str, tuple[list[str], str]] = {
    "loss": (["--loss", "nope"], f"--loss nope: unknown; {LISTED}"),
    "a loss in two lines": (["--loss", "no\npe\u2028"], f"--loss no\\npe\\u2028: unknown; {LISTED}"),
    "rationale": (["--rationale", "x"], "--rationale x: unknown; there are none, gold, train-only, predicted, tag"),
    "head": (["--head", "x"], "--head x: unknown; there are linear, attention"),
    "option": (
        ["--loss", "focal", "-o", "loss.gama", "1"],
        "loss focal: unknown option 'gama'; its options: gamma: float = 2.0, power: float = 0.0",
    ),
    "option of a mechanism": (["-o", "loss.ER.gamma", "1"], "loss ce: unknown option 'gamma'; its options: none"),
    "value of an option": (
        ["--loss", "focal", "-o", "loss.gamma", "big"],
        "loss focal: option 'gamma' is 'big'; expected a finite number",
    ),
    "the kit's own option": (
        ["-o", "rationale.weight", "big"],
        "rationale: option 'weight' is 'big'; expected a finite number",
    ),
    "range of the kit's own option": (
        ["-o", "rationale.weight", "-1"],
        "rationale: option 'weight' is -1.0; expected 0 or more",
    ),
    "route": (["-o", "engine.gamma", "1"], f"-o engine.gamma: {ROUTES}"),
    "route to a task": (["-o", "loss.XX.gamma", "1"], f"-o loss.XX.gamma: {ROUTES}"),
    "route to a task of what has none": (["-o", "trunk.ER.hidden", "1"], f"-o trunk.ER.hidden: {ROUTES}"),
    "setting": (["--epochs", "many"], "--epochs many: expected a whole number"),
    "range": (["--warmup", "1.5"], "--warmup 1.5: out of range, expected 0 to 1"),
    "range of an option": (["-o", "trunk.dropout", "1.5"], "trunk gru: option 'dropout' is 1.5; expected 0 to 0.99"),
    "split": (["--split", "temporal"], "--split temporal: expected one of grouped, paper"),
    "preset": (["--preset", "large"], "--preset large: unknown, expected one of small, paper, best"),
    "config": (["--config", "no.toml"], "--config no.toml: cannot be read: No such file or directory"),
    "no preset's name": (["--preset", ""], "--preset : unknown, expected one of small, paper, best"),
    "an option written as other tools write it": (
        ["--loss", "focal", "-o", "loss.gamma=2"],
        "-o takes a name and a value, such as -o loss.gamma 1.5",
    ),
    "the same before another flag": (
        ["-o", "loss.gamma=2", "--loss", "focal"],
        "-o loss.gamma=2: -o takes a name and a value, expected -o loss.gamma 2",
    ),
    "the same twice": (
        ["-o", "loss.gamma=2", "-o", "x"],
        "-o loss.gamma=2: -o takes a name and a value, expected -o loss.gamma 2",
    ),
    "an option without its value": (
        ["--option", "loss.gamma"],
        "--option takes a name and a value, such as --option loss.gamma 1.5",
    ),
    "both starts": (
        ["--config", "a.toml", "--preset", "paper"],
        "--preset and --config: both given; use only one of them",
    ),
    "rationale and none": (
        ["--no-rationale", "--rationale", "gold"],
        "--no-rationale and --rationale gold: both given; use only one of them",
    ),
    "trunk": (["--trunk", "x"], "--trunk x: unknown; there are gru, mean"),
    "sampler": (["--sampler", "x"], "--sampler x: unknown; there are all, over, under"),
    "schema": (["--schema", "no.toml"], "--schema no.toml: cannot be read: No such file or directory"),
    "data": (
        ["--data", "nowhere.csv"],
        "--data nowhere.csv: no such file or folder; expected sample, reddit, a folder or a .csv, .jsonl or .parquet file",
    ),
    "output that exists": (
        ["--out", "there"],
        "--out there: already exists; a run never overwrites another, use another --out",
    ),
    "output in a file": (["--out", "file/run"], "--out file/run: cannot be written: Not a directory"),
    "a name too long for a folder": (["--loss", "x" * 300], f"--loss {'x' * 300}: unknown; {LISTED}"),
    "a file name too long for a folder": (
        ["--data", f"{'x' * 300}.csv"],
        f"--out runs/{'x' * 300}-ce-none-0: cannot be written: File name too long",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_run_is_told_in_one_line_and_nothing_is_left(case: str, kit: Reply, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").touch()
    arguments, message = WRONG[case]
    assert kit("run", *arguments) == (2, "", f"Error: {message}\n")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "runs", "there"]


def test_an_encoder_folder_that_is_not_there_is_one_line_that_says_what_to_do(kit: Reply, tmp_path: Path) -> None:
    code, out, err = kit("run", "--encoder", "no-such-folder")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("Error: --encoder no-such-folder: ")
    assert "give its folder as --encoder FOLDER, or use --encoder minilm" in err
    assert list(tmp_path.iterdir()) == []


def test_no_rationale_is_rationale_none_word_for_word(kit: Reply) -> None:
    _, _, plain = kit("run", "--loss", "focal", "--no-rationale", "--data", "nowhere")
    _, _, same = kit("run", "--loss", "focal", "--no-rationale", "--rationale", "none", "--data", "nowhere")
    assert plain == same
    assert plain.startswith("Error: --data nowhere: ")  # it came as far as the data


def test_a_config_file_is_changed_by_flags_and_no_rationale_wins_over_it(kit: Reply, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('rationale = "nope"\nloss = "nope"\n')
    assert kit("run", "--config", "mine.toml", "--loss", "ce")[2].startswith("Error: --rationale nope: unknown")
    assert kit("run", "--config", "mine.toml", "--no-rationale")[2].startswith("Error: --loss nope: unknown")


@pytest.mark.parametrize(
    ("recorded", "flags", "expected"),
    [
        ({"loss": "focal", "options": {"loss.gamma": 4.0}}, {"loss": "ce"}, {}),  # another loss has other options
        ({"loss": "focal", "options": {"loss.gamma": 4.0}}, {"loss": "focal"}, {"loss.gamma": 4.0}),
        ({"loss": "focal", "options": {"loss.gamma": 4.0}}, {"seed": "1"}, {"loss.gamma": 4.0}),
        ({"trunk": "mean", "options": {"trunk.hidden": 512}}, {"trunk": "gru"}, {}),
    ],
)
def test_recorded_options_stay_with_the_plugin_that_had_them(
    tmp_path: Path, recorded: dict[str, object], flags: dict[str, str], expected: dict[str, object]
) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"config": {**to_dict(RunConfig()), **recorded}}))
    assert configure(base_configuration(None, tmp_path / "mine.json", flags), flags).options == expected


def test_options_of_a_file_that_names_no_plugin_are_for_the_one_that_a_flag_names(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[options]\n"loss.gamma" = 4.0\n')
    flags = {"loss": "focal"}
    assert configure(base_configuration(None, tmp_path / "mine.toml", flags), flags).options == {"loss.gamma": 4.0}


def test_help_and_version_are_on_stdout(kit: Reply) -> None:
    assert kit("--version") == (0, f"empathy-kit, version {__version__}\n", "")
    code, out, err = kit("run", "-h")
    assert (code, err) == (0, "")
    for flag in ("--loss VALUE", "--no-rationale", "--encoder-lr VALUE", "--preset small|paper|best", "-o, --option NAME VALUE"):
        assert flag in out


@pytest.mark.parametrize(
    "arguments", [["run", "--losss", "ce"], ["runs"], ["data", "check", "extra"], ["run", "-o", "loss.gamma"]]
)
def test_a_flag_or_command_that_is_not_there_ends_with_2_as_everywhere(arguments: list[str], kit: Reply) -> None:
    code, out, err = kit(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("Error: ")


# --- doctor ---


def test_doctor_says_how_the_losses_are_computed_and_why(kit: Reply, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, out, err = kit("doctor")
    assert (code, err) == (0, "")
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["versions"].startswith("python 3.")
    assert f"empathy-kit {__version__}, torch " in lines["versions"]
    assert lines["losses on cpu"].startswith(("fused CPU kernel, ", "closed form in torch, no fused kernel: "))

    from empathy_kit.core import kernels

    kernels.find.cache_clear()
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    try:
        code, out, _ = kit("doctor", "--json")
        assert code == 0
        assert json.loads(out)["losses on cpu"] == "closed form in torch, no fused kernel: no C compiler (cc, gcc or clang)"
        assert json.loads(out)["cache"] == str(tmp_path)
        code, _, err = kit("run", "--fused", "on", "--out", "run")
        assert code == 2
        assert err.splitlines()[-1] == (
            "Error: --fused on: no fused kernel for cpu: no C compiler (cc, gcc or clang); expected one, or auto"
        )
        assert not (tmp_path / "run").exists()
    finally:
        kernels.find.cache_clear()
