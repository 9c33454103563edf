"""`empathy-kit runs`: what a folder of runs holds, and what is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_run import age, make_record, make_run, scored
from run_world import Said

from empathy_kit import files
from empathy_kit.config import RunConfig, to_dict
from empathy_kit.runs.inventory import find
from empathy_kit.runs.record import FORMAT, seal

Command = Callable[..., Said]


def test_runs_are_found_with_their_states_and_sizes(shelf: Path, command: Command) -> None:
    reply = command("runs", "list", "--json")
    assert (reply.code, reply.err) == (0, "")
    found = json.loads(reply.out)
    states = {each["path"]: each["state"] for each in found["runs"]}
    assert states == {
        "runs/a": "finished",
        "runs/b": "finished",
        "runs/bad": "finished",  # its model is not read
        "runs/many/runs/T1-0": "finished",
        "runs/slow.partial": "unfinished",
    }
    first = found["runs"][0]
    assert first["scores"] == {"ER": {"accuracy": 0.5, "weighted_f1": 0.5, "macro_f1": None}}
    assert (first["title"], first["seed"], first["data"], first["oracle"]) == ("focal", 0, "sample", False)
    assert first["bytes"] == sum(path.stat().st_size for path in (shelf / "a").rglob("*") if path.is_file())
    assert found["runs"][-1]["bytes"] == 1000
    assert found["bytes"] == sum(each["bytes"] for each in found["runs"])


def test_the_list_names_state_configuration_and_scores_in_a_row(shelf: Path, command: Command) -> None:
    lines = command("runs", "list").out.splitlines()
    assert lines[2].split() == ["a", "finished", "focal", "on", "sample", "0", "ER", ".500", "/", "-", *lines[2].split()[-3:]]
    assert lines[-1].startswith("5 runs, ")
    assert "many/runs/T1-0" in lines[5]


def test_a_comparison_and_a_single_run_are_folders_of_runs_too(shelf: Path) -> None:
    assert [each.path for each in find(shelf / "many")] == [shelf / "many" / "runs" / "T1-0"]
    assert [each.path for each in find(shelf / "a")] == [shelf / "a"]


def test_a_run_in_training_is_told_from_an_unfinished_one(shelf: Path, command: Command) -> None:
    with files.reserved(shelf / "slow"):
        assert "in training" in command("runs", "list").out
        assert command("runs", "prune", "runs/slow.partial", "--yes") == Said(
            2, "", "Error: runs/slow.partial: another process is writing it; nothing was deleted\n"
        )
        age(shelf / "slow.partial", 30)
        assert command("runs", "prune", "--unfinished", "--yes") == Said(
            0, "nothing to delete\n", "left alone: runs/slow.partial: another process is writing it\n"
        )
        assert (shelf / "slow.partial").exists()


def test_an_unfinished_run_that_is_a_link_is_left_alone(shelf: Path, tmp_path: Path, command: Command) -> None:
    there = tmp_path / "elsewhere.partial"
    (shelf / "slow.partial").rename(there)
    (shelf / "slow.partial").symlink_to(there)
    assert command("runs", "prune", "--unfinished", "--days", "0", "--yes") == Said(
        0,
        "nothing to delete\n",
        "left alone: runs/slow.partial: a link found, expected a run's own folder; name the folder that it leads to\n",
    )
    assert (there / "checkpoint").stat().st_size == 1000


def test_a_run_that_is_given_twice_is_one(shelf: Path, command: Command) -> None:
    assert command("runs", "verify", "runs/a", shelf / "a").out.splitlines()[-1] == "1 run, 0 damaged"
    age(shelf / "slow.partial", 30)
    reply = command("runs", "prune", "--unfinished", "--yes", "runs", "runs/slow.partial")
    assert (reply.code, reply.out.splitlines()[-1]) == (0, "deleted: 1, 1,000 bytes")


def test_a_folder_of_another_user_hides_no_run(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_file = Path.is_file

    def refused(path: Path) -> bool:  # as the system does; the tests may run as root, whom it refuses nothing
        if path.parent.name == "notes":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    before = [each.path for each in find(shelf)]
    monkeypatch.setattr(Path, "is_file", refused)
    assert [each.path for each in find(shelf)] == before


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"nan"'])
def test_a_score_that_is_no_finite_number_hides_no_other_run(shelf: Path, command: Command, value: str) -> None:
    written = make_run(shelf / "odd", scored(0.123)) / "run.json"
    written.write_text(written.read_text("utf-8").replace("0.123", value), "utf-8")  # the kit writes none
    seal(shelf / "odd")
    found = {each["path"]: each["state"] for each in json.loads(command("runs", "list", "--json").out)["runs"]}
    assert (found["runs/odd"], found["runs/a"]) == ("newer kit", "finished")


def test_verify_names_what_is_damaged_and_exits_with_1(shelf: Path, command: Command) -> None:
    reply = command("runs", "verify")
    assert (reply.code, reply.err) == (1, "")
    assert reply.out.splitlines() == [
        "runs/a: whole",
        "runs/b: whole",
        "runs/bad/model/weights: changed after the run (sha256 differs from the manifest)",
        "runs/many/runs/T1-0: whole",
        "runs/slow.partial: unfinished",
        "5 runs, 1 damaged",
    ]
    assert command("runs", "verify", "runs/a", "runs/many").code == 0
    found = json.loads(command("runs", "verify", "runs/a", "runs/bad", "--json").out)
    assert [each["state"] for each in found["runs"]] == ["finished", "damaged"]
    assert found["damaged"] == 1


@pytest.mark.parametrize("manifest", [None, b"", b"{}", b'{"sha256": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_manifest_is_a_damaged_run(shelf: Path, command: Command, manifest: bytes | None) -> None:
    path = shelf / "a" / "manifest.json"
    path.unlink() if manifest is None else path.write_bytes(manifest)
    reply = command("runs", "verify", "runs/a")
    assert reply.code == 1
    assert reply.out.splitlines()[0] == "runs/a: not a finished run: manifest.json is missing or unreadable"
    assert command("runs", "show", "runs/a") == Said(
        2, "", "Error: runs/a: not a finished run: manifest.json is missing or unreadable\n"
    )


def test_a_run_of_a_newer_format_is_named_and_not_called_damaged(tmp_path: Path, command: Command) -> None:
    out = make_run(tmp_path / "run", scored(format=FORMAT + 1))
    reply = command("runs", "verify", out)
    assert (reply.code, reply.out) == (
        0,
        f"{out / 'run.json'}: format {FORMAT + 1} found, expected {FORMAT}\n1 run, 0 damaged\n",
    )
    assert [each.state for each in find(out)] == ["newer kit"]
    assert command("runs", "diff", out, out).code == 2
    (out / "history.jsonl").unlink()
    assert command("runs", "verify", out).code == 1
    assert [each.state for each in find(out)] == ["damaged"]


@pytest.mark.parametrize("config", [{"tomorrow": 1}, {"loss": None}])
def test_a_whole_run_whose_record_cannot_be_read_is_never_damaged(tmp_path: Path, command: Command, config: Any) -> None:
    """A later version of the same format may have one more setting, or other values of one."""
    out = make_run(tmp_path / "run", scored(config={**to_dict(RunConfig()), **config}))
    assert [(each.state, bool(each.problem)) for each in find(out, model=True)] == [("newer kit", True)]
    assert command("runs", "prune", "--damaged", "--yes", out) == Said(0, "nothing to delete\n", "")
    assert command("runs", "verify", out).code == 0


@pytest.mark.parametrize("arguments", [("list",), ("verify",), ("prune", "--damaged")])
def test_a_folder_without_runs_is_one_line(arguments: tuple[str, ...], tmp_path: Path, command: Command) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, problem in (
        ("empty", "no run found, expected folders that `empathy-kit run` or `empathy-kit compare` has written"),
        ("missing", "no such folder, expected a folder with runs"),
        ("file", "a file found, expected a folder with runs"),
    ):
        reply = command("runs", arguments[0], tmp_path / name, *arguments[1:])
        assert reply == Said(2, "", f"Error: {tmp_path / name}: {problem}\n")


def test_two_runs_differ_in_settings_origin_and_scores(shelf: Path, command: Command) -> None:
    reply = command("runs", "diff", "runs/a", "runs/b")
    assert (reply.code, reply.err) == (0, "")
    assert reply.out.splitlines() == [
        "settings:",
        "  --loss: focal -> ce",
        "  --epochs: 5 -> 2",
        "made of:",
        "  kit: 0.1.0 -> 0.2.0",
        "  split sha256: 555555555555 -> 666666666666",
        "scores, on different test pairs: their differences are not the models alone:",
        "  ER: accuracy .500 -> .750 (+25.0 points), weighted F1 .500 -> .750 (+25.0 points), macro F1 - -> -",
    ]
    found = json.loads(command("runs", "diff", "runs/a", "runs/b", "--json").out)
    assert found["settings"] == {"--loss": ["focal", "ce"], "--epochs": [5, 2]}
    assert found["scores"] == {"ER": {"accuracy": [0.5, 0.75], "weighted_f1": [0.5, 0.75], "macro_f1": [None, None]}}
    assert found["same_test_pairs"] is False
    assert found["oracle"] == [False, False]


def test_an_oracle_is_named_wherever_its_scores_are_compared(tmp_path: Path, command: Command) -> None:
    one, other = make_run(tmp_path / "one", scored()), make_run(tmp_path / "other", scored(0.9, oracle=True))
    said = f"  {other}: ORACLE: annotated spans were seen at test time; a pair without a span has level 0. Not comparable."
    assert command("runs", "diff", one, other).out.splitlines()[-1] == said
    assert command("runs", "diff", other, one).out.splitlines()[-1] == said
    assert json.loads(command("runs", "diff", one, other, "--json").out)["oracle"] == [False, True]


def test_how_a_record_lists_rows_is_no_difference_of_the_data(tmp_path: Path, command: Command) -> None:
    before = {"lost": [], "bare": [[row, "ER"] for row in range(1, 10)]}  # as earlier versions wrote it
    after = {"lost": {}, "bare": {"ER": {"count": 9, "rows": [1, 2, 3, 4, 5]}}}
    made = ({"name": "sample", "sha256": "d" * 64, "spans": spans} for spans in (before, after))
    one, other = (make_run(tmp_path / name, scored(data=data)) for name, data in zip("ab", made, strict=True))
    assert command("runs", "diff", one, other).out.splitlines()[1:3] == ["made of: no difference", "scores:"]


def test_runs_on_one_split_are_compared_without_a_remark(tmp_path: Path, command: Command) -> None:
    same = {"data": {"name": "sample", "sha256": "d"}, "split": {"kind": "grouped", "sha256": "s"}}
    one, other = (make_run(tmp_path / name, scored(**same)) for name in "ab")
    assert command("runs", "diff", one, other).out.splitlines()[:3] == [
        "settings: no difference",
        "made of: no difference",
        "scores:",
    ]


def test_the_options_of_one_plugin_are_compared_and_those_of_two_are_not(tmp_path: Path, command: Command) -> None:
    configs = [RunConfig(loss="focal", options={"loss.gamma": gamma}) for gamma in (1.0, 2.0)]
    configs.append(RunConfig(loss="poly1", options={"loss.epsilon": 1.0}))
    a, b, c = (make_run(tmp_path / str(at), scored(config=to_dict(config))) for at, config in enumerate(configs))
    assert json.loads(command("runs", "diff", a, b, "--json").out)["settings"] == {"-o loss.gamma": [1.0, 2.0]}
    assert json.loads(command("runs", "diff", a, c, "--json").out)["settings"] == {"--loss": ["focal", "poly1"]}


def test_show_prints_settings_and_report_of_a_real_run(first: tuple[Path, list[Any]], command: Command) -> None:
    folder, _ = first
    reply = command("runs", "show", folder)
    assert (reply.code, reply.err) == (0, "")
    assert "--loss focal" in reply.out
    assert "-o loss.ER.gamma 3.0" in reply.out
    assert "By label, focal" in reply.out
    found = json.loads(command("runs", "show", folder, "--json").out)
    assert found["settings"]["--epochs"] == 2
    assert found["scores"]["ER"]["accuracy"] is not None


def test_a_record_that_lacks_scores_is_one_line(tmp_path: Path, command: Command) -> None:
    out = make_run(tmp_path / "run", make_record())
    problem = f"{out / 'run.json'}: parts are missing, or are not as a run writes them"
    assert command("runs", "show", out) == Said(2, "", f"Error: {problem}\n")
    assert problem in command("runs", "list", out).out
    half = make_run(tmp_path / "half", scored())
    reply = command("runs", "show", half)
    assert (reply.code, reply.err) == (2, f"Error: {half / 'run.json'}: parts are missing, or are not as a run writes them\n")


def test_escape_sequences_in_names_are_shown_and_not_obeyed(shelf: Path, command: Command) -> None:
    name = "\x1b[2Jgone"
    make_run(shelf / name, scored())
    (shelf / name / "run.json").write_text("{")
    replies = [command("runs", *arguments) for arguments in (("list",), ("verify",), ("show", f"runs/{name}"))]
    for reply in replies:
        assert "\x1b" not in reply.out + reply.err
        assert r"\x1b[2Jgone" in reply.out + reply.err
    listed = command("runs", "list", "--json").out
    assert "\x1b" not in listed
    assert f"runs/{name}" in {each["path"] for each in json.loads(listed)["runs"]}  # a program gets the name as it is
