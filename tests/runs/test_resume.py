"""A run that was stopped ends, when it is continued, with the files of one that was not, to the byte."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from resume_world import Learnt, Run, finish, focal, stop, with_plugins, without_clocks
from run_world import Said, configuration, read_json, warnings
from safetensors.torch import load_file, save_file

import empathy_kit
from empathy_kit import files
from empathy_kit.errors import KitError
from empathy_kit.plugins import Provided, Registry, load_registry
from empathy_kit.runs import checkpoints
from empathy_kit.runs.train import run

KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {  # settings, and after how many events it is stopped
    "cross-entropy, averaged weights": ({}, (2, 5, 7, 10)),
    "oversampling, frozen layers, a span head": ({"sampler": "over", "freeze_layers": 1, "rationale": "predicted"}, (3, 9)),
    "a head with its own criterion, bfloat16": ({"head": "own", "precision": "bf16", "select": "loss"}, (6,)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_bytes(tiny_roberta: Path, tmp_path: Path, kind: str) -> None:
    settings, stops = KINDS[kind]
    config, registry = configuration(tiny_roberta, epochs=2, **settings), with_plugins()
    events = finish(config, tmp_path / "whole", registry)
    done = 0
    for at in stops:
        partial = stop(config, tmp_path / "run", at - done + 1, registry)
        assert len(checkpoints.folders(partial)) == 2
        done = at
    rest = finish(config, tmp_path / "run", registry)
    assert rest[0].continued.startswith(f"continues {partial}: epoch ")
    assert len(rest) == len(events) - done
    assert without_clocks(tmp_path / "run") == without_clocks(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]


def test_a_run_that_only_lacked_its_name_is_finished_by_the_same_command_without_training(
    tiny_roberta: Path, tmp_path: Path
) -> None:
    """Killed between the last byte and the name."""
    out, config = tmp_path / "run", focal(tiny_roberta)
    finish(config, out)
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for other in (False, True):
        partial = tmp_path / "run.partial"
        partial.mkdir()
        (partial / files.LOCK).touch()
        out.rename(partial / "result")
        if other:
            with pytest.raises(KitError, match="holds the run that was stopped here, which was finished; use another --out"):
                finish(focal(tiny_roberta, seed=8), out)
        else:
            (event,) = finish(config, out)
            assert (event.folder, event.record.config["seed"]) == (out, 7)
        assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_one_step_more_is_another_checkpoint(tiny_roberta: Path, tmp_path: Path) -> None:
    """The negative control: the bytes of two steps differ."""
    config = focal(tiny_roberta)
    stop(config, tmp_path / "run", 3, minutes=0)
    second, first = checkpoints.folders(tmp_path / "run.partial")
    for name in (checkpoints.STATE, checkpoints.TENSORS):
        assert (first / name).read_bytes() != (second / name).read_bytes()
    for folder in (first, second):
        assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "state.json", "state.safetensors"]


def test_ctrl_c_in_the_midst_of_a_step_waits_for_its_end_and_the_state_is_kept(tiny_roberta: Path, tmp_path: Path) -> None:
    config, registry = configuration(tiny_roberta, loss="learnt", average=None, batch_size=24), with_plugins()
    finish(config, tmp_path / "whole", registry)
    going = run(config, registry, tmp_path / "run")
    next(going)
    Learnt.interrupted_at = 5  # in the second step: three tasks have a loss each
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(going)
    finally:
        signal.signal(signal.SIGINT, before)
    events = finish(config, tmp_path / "run", registry)
    assert events[0].continued == f"continues {tmp_path / 'run.partial'}: epoch 1, step 2 is done"
    assert without_clocks(tmp_path / "run") == without_clocks(tmp_path / "whole")


def test_a_process_that_is_killed_while_it_writes_leaves_what_was_written_before(
    first: Run,
    tiny_roberta: Path,
    tmp_path: Path,
    command: Callable[..., Said],
    forked: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = forked(Path(__file__).with_name("killed.py"), tiny_roberta, tmp_path / "run")
    assert ended.returncode == -signal.SIGKILL
    partial = tmp_path / "run.partial"
    assert [folder.name for folder in checkpoints.folders(partial)] == ["checkpoint-3", "checkpoint-2"]
    said = command("run", "--resume", partial)
    assert said.code == 0
    assert f"continues {partial}: epoch 1, step 3 is done" in said.err.splitlines()
    assert without_clocks(tmp_path / "run") == without_clocks(first[0])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture(scope="module")
def halted(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a run that was stopped at two steps."""
    return stop(focal(tiny_roberta), tmp_path_factory.mktemp("halted") / "run", 3, minutes=0)


@pytest.fixture
def partial(halted: Path, tmp_path: Path) -> Path:
    """The same, for a test that may spoil it."""
    return Path(shutil.copytree(halted, tmp_path / "run.partial"))


def refusal(config: Any, partial: Path, registry: Registry | None = None, **how: Any) -> str:
    with pytest.raises(KitError) as error:
        finish(config, partial.with_suffix(""), registry, **how)
    assert len(checkpoints.folders(partial)) == 2  # nothing is lost
    return str(error.value)


def test_a_run_with_other_settings_is_refused_and_they_are_named(partial: Path, tiny_roberta: Path) -> None:
    other = focal(tiny_roberta, lr=0.002, clip=None, options={"loss.gamma": 1.5})
    assert refusal(other, partial) == (
        f"{partial}: holds a stopped run with --lr 0.001, not 0.002; --clip 1.0, not none; -o loss.ER.gamma 3.0, not 1.5; "
        "use the same settings, or another --out"
    )


def test_a_run_on_other_data_or_with_another_encoder_is_refused(partial: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    sample = Path(empathy_kit.__file__).parent / "data" / "sample"
    lines = (sample / "pairs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "fewer.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    encoder = shutil.copytree(tiny_roberta, tmp_path / "encoder")
    weights = load_file(encoder / "model.safetensors")
    first, *_ = weights
    save_file({**weights, first: weights[first] + 1e-3}, encoder / "model.safetensors", metadata={"format": "pt"})
    for what, other in (("data", focal(tiny_roberta, data=str(tmp_path / "fewer.jsonl"))), ("encoder", focal(encoder))):
        found = refusal(other, partial)
        assert found.startswith(f"{partial}: the {what} is not the stopped run's (sha256 ")
        assert found.endswith(f"...); use the same {what}, or another --out")


def test_a_run_with_a_changed_plugin_or_without_it_is_refused(tiny_roberta: Path, tmp_path: Path) -> None:
    config = configuration(tiny_roberta, loss="learnt", epochs=2)
    partial = stop(config, tmp_path / "run", 3, with_plugins(), minutes=0)
    newer = Registry(
        tuple(
            each if each.distribution != "mine" else Provided(each.kind, each.spec, "mine", "2")
            for each in with_plugins().provided
        )
    )
    assert refusal(config, partial, newer) == (
        f"{partial}: holds a stopped run with loss learnt of mine 1, and now it has version 2; install what it was begun with, "
        "or use another --out"
    )
    assert refusal(config, partial, load_registry()).startswith("--loss learnt: unknown; there are ")


def test_other_versions_are_refused_unless_they_are_asked_for_and_then_recorded(
    partial: Path, tiny_roberta: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    from empathy_kit.runs import identity

    real = identity.library_versions()
    monkeypatch.setattr(identity, "library_versions", lambda: {**real, "torch": "9.0"})
    was = f"torch {real['torch']}, not 9.0"
    assert refusal(focal(tiny_roberta), partial) == (
        f"{partial}: holds a stopped run with {was}; install what it was begun with, use another --out, or continue it with "
        "--resume-anyway to other numbers"
    )
    said = command("run", "--resume", partial, "--resume-anyway")
    assert (said.code, warnings(said)[0]) == (0, f"the run was begun with {was}; its numbers may differ")
    assert read_json(partial.with_suffix(""))["versions"] == {**real, "torch": f"{real['torch']}, then 9.0"}


def test_a_run_is_not_continued_where_it_would_round_otherwise(
    partial: Path, tiny_roberta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert refusal(focal(tiny_roberta), partial) == (
        f"{partial}: holds a stopped run with environment variables none, not MKL_CBWR=COMPATIBLE; continue it where it was "
        "begun, or use another --out"
    )


def test_where_the_newest_checkpoint_is_damaged_the_one_before_it_is_taken(partial: Path, first: Run, tiny_roberta: Path) -> None:
    newest = checkpoints.folders(partial)[0]
    file = newest / checkpoints.TENSORS
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    events = finish(focal(tiny_roberta), partial.with_suffix(""))
    assert events[0].warnings[0] == f"{newest.name} is damaged ({file.name}: its sha256 is not the manifest's)"
    assert events[0].continued == f"continues {partial}: epoch 1, step 1 is done"
    assert without_clocks(partial.with_suffix("")) == without_clocks(first[0])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "state.json").unlink(), "state.json: No such file or directory"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: not as a run writes it"),
        (lambda folder: (folder / "state.json").write_text("{}"), "state.json: its sha256 is not the manifest's"),
    ],
)
def test_where_both_checkpoints_are_damaged_the_run_is_refused(
    partial: Path, tiny_roberta: Path, spoil: Callable[[Path], Any], why: str
) -> None:
    both = checkpoints.folders(partial)
    for folder in both:
        spoil(folder)
    assert refusal(focal(tiny_roberta), partial) == (
        f"{partial}: {both[0].name} is damaged ({why}); {both[1].name} is damaged ({why}); remove that folder to start from the "
        "beginning"
    )


def test_a_checkpoint_of_another_format_is_not_taken_for_a_damaged_one(partial: Path, tiny_roberta: Path) -> None:
    newest = checkpoints.folders(partial)[0]
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    assert refusal(focal(tiny_roberta), partial) == (
        f"{newest}: format 1 found, expected 2; continue it with the version that wrote it"
    )


def test_a_stopped_run_of_other_settings_does_not_keep_its_name_from_one_that_may_be_numbered(
    partial: Path, tiny_roberta: Path
) -> None:
    out = partial.with_suffix("")
    events = finish(focal(tiny_roberta, epochs=1), out, numbered=True)
    assert events[-1].folder == out.with_name("run-2")
    assert len(checkpoints.folders(partial)) == 2
    assert finish(focal(tiny_roberta), out, numbered=True)[-1].folder == out


@pytest.mark.parametrize("numbered", [False, True])
def test_a_run_of_all_tasks_is_continued_by_the_command_that_names_them_all(
    first: Run, partial: Path, tiny_roberta: Path, numbered: bool
) -> None:
    events = finish(focal(tiny_roberta, tasks=("ER", "EX", "IP")), partial.with_suffix(""), numbered=numbered)
    assert events[0].continued == f"continues {partial}: epoch 1, step 2 is done"
    assert without_clocks(events[-1].folder) == without_clocks(first[0])


def test_two_processes_do_not_continue_one_run(partial: Path, tiny_roberta: Path) -> None:
    out = partial.with_suffix("")
    with files.reserved(out):
        assert refusal(focal(tiny_roberta), partial) == (
            f"--out {out}: another process is writing it; wait until it ends, or use another --out"
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--resume", "{folder}/nowhere.partial"), "--resume {folder}/nowhere.partial: no such folder"),
        (
            ("--resume", "{folder}/done.partial"),
            "--resume {folder}/done.partial: no such folder; the run is complete in {folder}/done",
        ),
        (
            ("--resume", "{folder}/done"),
            "--resume {folder}/done: expected the folder of a stopped run, whose name ends in .partial",
        ),
        (
            ("--resume", "{folder}/empty.partial"),
            "--resume {folder}/empty.partial: no checkpoint found; start the run again with --out {folder}/empty",
        ),
        (("--resume", "{folder}/run.partial", "--out", "x"), "--resume and --out: both given; use only one of them"),
        (
            ("--resume", "{folder}/run.partial", "--lr", "0.1"),
            "{folder}/run.partial: holds a stopped run with --lr 0.001, not 0.1; use the same settings, or another --out",
        ),
        (("--checkpoint-minutes", "-1"), "--checkpoint-minutes -1: expected 0 to 10000"),
    ],
)
def test_what_cannot_be_continued_is_one_line(
    partial: Path, command: Callable[..., Said], flags: tuple[str, ...], message: str
) -> None:
    folder = partial.parent
    (folder / "done").mkdir()
    (folder / "empty.partial").mkdir()
    said = command("run", *(flag.format(folder=folder) for flag in flags))
    assert (said.code, said.err) == (2, f"Error: {message.format(folder=folder)}\n")
    assert len(checkpoints.folders(partial)) == 2
