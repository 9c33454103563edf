"""A comparison's runs: several at once in processes of their own, continued where they stopped, and never mixed up."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up import rewrite_record
from safetensors.torch import load_file, save_file

from empathy_kit import KitError, files
from empathy_kit.cli import cli
from empathy_kit.comparison.cluster import RayWorker
from empathy_kit.comparison.execute import Done, Failed, Progress, alone, execute, prepare
from empathy_kit.comparison.finished import read_finished
from empathy_kit.comparison.pages import summarise
from empathy_kit.comparison.parse import parse_configurations
from empathy_kit.comparison.plan import Plan, read_plan, run_folder
from empathy_kit.comparison.worker import Order, Worker
from empathy_kit.config import RunConfig, configure
from empathy_kit.plugins import Registry, load_registry
from empathy_kit.runs.train import run

SMALL = {
    "epochs": 1,
    "threads": 1,
    "max_tokens": 16,
    "batch_size": 64,
    "options": {"trunk.hidden": 16, "trunk.layers": 1},
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture(scope="module")
def small(tiny_roberta: Path) -> RunConfig:
    """Runs of seconds."""
    return configure(RunConfig(), {**SMALL, "encoder": str(tiny_roberta)})


@pytest.fixture(scope="module")
def plan(small: RunConfig) -> Plan:
    """Two configurations, two seeds, each with its own split."""
    known, _ = parse_configurations(["T1", "hard=--loss focal -o loss.gamma 3"], None, small)
    return Plan(known, (0, 1), resplit=True)


def go(plan: Plan, out: Path, registry: Registry, jobs: int = 2) -> list[Done | Failed]:
    prepared = prepare(plan, out, registry)
    events = list(execute(prepared, out, registry, jobs=jobs, keep_models=False))
    return [event for event in events if isinstance(event, Done | Failed)]


@pytest.fixture(scope="module")
def finished(plan: Plan, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that is done; its runs were made one by one in this process."""
    out = tmp_path_factory.mktemp("comparison") / "done"
    prepare(plan, out, registry)
    for name, seed in plan.runs():
        list(run(plan.config(name, seed), registry, run_folder(out, name, seed), keep_model=False))
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A comparison that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_what_is_missing_is_run_and_the_rest_is_not_touched_and_one_that_fails_stops_no_other(
    finished: Path, plan: Plan, small: RunConfig, registry: Registry, tmp_path: Path
) -> None:
    out, there = tmp_path / "out", tmp_path / "out" / "runs" / "T1-1"
    shutil.copytree(finished / "runs" / "T1-1", there)
    kept = (there / "run.json").stat().st_mtime_ns
    # More tokens than the encoder's positions, which is found once it is loaded.
    bad = replace(small, max_tokens=5000)
    events = go(Plan({"bad": bad, **plan.configurations}, (1,), resplit=True), out, registry)
    assert {event.name: event.found if isinstance(event, Done) else event.reason for event in events} == {
        "T1": True,
        "bad": f"--max-tokens 5000: {small.encoder} reads at most 128 tokens per post",
        "hard": False,
    }
    assert (there / "run.json").stat().st_mtime_ns == kept
    # A run of a comparison is bitwise the run on its own.
    new, own = (folder / "runs" / "hard-1" for folder in (out, finished))
    assert (new / "predictions.csv").read_bytes() == (own / "predictions.csv").read_bytes()
    assert not (new / "model").exists()
    found = read_finished(out)
    assert list(found.runs) == ["T1", "hard"]
    assert found.missing == [("bad", 1)]
    assert found.runs["hard"][0].record.config["options"]["loss.ER.gamma"] == 3.0


def test_a_process_that_dies_is_a_failed_run_unless_another_has_done_it(copy: Path, plan: Plan, registry: Registry) -> None:
    there = copy / "runs" / "T1-0"
    there.rename(copy / "aside")
    for comes in (False, True):
        events = execute(prepare(plan, copy, registry), copy, registry, jobs=1, keep_models=False)
        next(event for event in events if isinstance(event, Progress))
        (child,) = multiprocessing.active_children()
        if comes:  # from a process that an earlier call left behind
            (copy / "aside").rename(there)
        child.kill()
        (event,) = [event for event in events if (event.name, event.seed) == ("T1", 0)]
        expected = Done("T1", 0, True, 0.0) if comes else Failed("T1", 0, "its process ended with signal 9")
        assert event == expected


def test_a_run_that_a_process_of_an_earlier_call_is_writing_is_waited_for_and_not_made_twice(
    copy: Path, plan: Plan, registry: Registry, in_threads: None
) -> None:
    there = run_folder(copy, "T1", 0)
    made = there.rename(copy / "aside")
    with files.reserved(there):  # as that process does
        events = execute(prepare(plan, copy, registry), copy, registry, jobs=1, keep_models=False)
        next(event for event in events if isinstance(event, Progress))
        made.rename(there)
        (event,) = [event for event in events if (event.name, event.seed) == ("T1", 0)]
    assert event == Done("T1", 0, True, 0.0)
    assert read_finished(copy).missing == []


def test_a_comparison_whose_machine_dies_in_the_middle_gives_the_same_report(
    finished: Path, copy: Path, plan: Plan, registry: Registry, in_threads: None
) -> None:
    """One run is done, one has a checkpoint of a step, one was just begun, and one had not started."""
    for (name, seed), events in zip(plan.runs()[1:], (4, 1, 0), strict=True):
        shutil.rmtree(run_folder(copy, name, seed))
        going = run(plan.config(name, seed), registry, run_folder(copy, name, seed), keep_model=False, minutes=0)
        list(islice(going, events))
        going.close()
    assert len(list(copy.glob("runs/*.partial/checkpoint-*"))) == 2
    assert [event.found for event in go(plan, copy, registry, jobs=1) if isinstance(event, Done)] == [True, False, False, False]
    for name, seed in plan.runs():
        for file in ("predictions.csv", "validation.csv"):
            assert (run_folder(copy, name, seed) / file).read_bytes() == (run_folder(finished, name, seed) / file).read_bytes()
    reports = [replace(summarise(read_finished(folder)), seconds=0.0, costs={}) for folder in (copy, finished)]
    assert reports[0] == reports[1]
    assert not list(copy.glob("runs/*.partial"))


def test_a_stopped_run_is_continued_with_as_many_threads_as_it_was_begun_with(
    plan: Plan, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = replace(plan, configurations={name: replace(config, threads=None) for name, config in plan.configurations.items()})
    out = run_folder(tmp_path, "T1", 0)
    going = run(replace(free.config("T1", 0), threads=1), registry, out, keep_model=False, minutes=0)
    list(islice(going, 2))
    going.close()
    given: dict[tuple[str, int], int | None] = {}

    def start(cls: type[Worker], order: Order) -> Worker:
        given[order.name, order.seed] = order.config.threads
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "start", classmethod(start))
    for jobs in ([("T1", 0)], [("hard", 0)]):
        chosen = Plan({name: free.configurations[name] for name, _ in jobs}, (0,), resplit=True)
        with pytest.raises(KeyboardInterrupt):
            list(execute(prepare(chosen, tmp_path, registry), tmp_path, registry, jobs=1, keep_models=False, threads=3))
        (tmp_path / "comparison.json").unlink()
    assert given == {("T1", 0): 1, ("hard", 0): 3}


def test_a_missing_run_is_refused_before_its_training_where_the_encoder_is_not_the_finished_runs_any_more(
    plan: Plan, small: RunConfig, registry: Registry, tmp_path: Path, in_threads: None
) -> None:
    encoder = shutil.copytree(small.encoder, tmp_path / "encoder")
    mine = {name: replace(config, encoder=str(encoder)) for name, config in plan.configurations.items()}
    mine["dropout"] = replace(mine["T1"], attention_dropout=0.1)  # of which no run is finished
    mine_plan, out = Plan(mine, (0,), resplit=True), tmp_path / "out"
    list(run(mine_plan.config("T1", 0), registry, run_folder(out, "T1", 0), keep_model=False))
    weights = load_file(encoder / "model.safetensors")
    save_file({name: 1.01 * weight for name, weight in weights.items()}, encoder / "model.safetensors", {"format": "pt"})
    ended = {event.name: event for event in go(mine_plan, out, registry, jobs=1)}
    assert isinstance(ended["hard"], Failed)
    assert ended["hard"].reason.startswith(f"--encoder {encoder}: is not that of the recorded run (sha256 ")
    assert not run_folder(out, "hard", 0).exists()
    assert isinstance(ended["dropout"], Done)


def test_an_encoder_that_changes_within_a_call_is_refused_from_the_next_run_on(
    plan: Plan, small: RunConfig, registry: Registry, tmp_path: Path, in_threads: None
) -> None:
    encoder = shutil.copytree(small.encoder, tmp_path / "encoder")
    mine = {name: replace(plan.configurations[name], encoder=str(encoder)) for name in ("T1", "hard")}
    ended: dict[str, object] = {}
    prepared = prepare(Plan(mine, (0,), resplit=True), tmp_path / "out", registry)
    for event in execute(prepared, tmp_path / "out", registry, jobs=1, keep_models=False):
        if isinstance(event, Done | Failed):
            ended[event.name] = event
        if isinstance(event, Done):
            weights = load_file(encoder / "model.safetensors")
            save_file({name: 1.01 * weight for name, weight in weights.items()}, encoder / "model.safetensors", {"format": "pt"})
    assert isinstance(ended["T1"], Done)
    assert isinstance(ended["hard"], Failed)
    assert ended["hard"].reason.startswith(f"--encoder {encoder}: is not that of the recorded run (sha256 ")


def test_a_task_on_a_cluster_keeps_libraries_quiet_too(small: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    _, fault = RayWorker.work(Order("x", 0, replace(small, loss="nobodys"), tmp_path / "run", False, (), {}))
    assert fault is not None
    assert fault.startswith("--loss nobodys: ")
    assert os.environ["TQDM_DISABLE"] == "1"


def test_a_comparison_may_grow(copy: Path, small: RunConfig, registry: Registry) -> None:
    more = Plan(parse_configurations(["weighted"], None, small)[0], (0,), resplit=True)
    prepared = prepare(more, copy, registry)
    assert list(prepared.plan.configurations) == ["T1", "hard", "weighted"]
    assert prepared.plan.seeds == (0, 1)
    assert read_plan(copy) == prepared.plan
    found = read_finished(copy)
    assert list(found.runs) == ["T1", "hard"]
    assert found.missing == [("weighted", 0), ("weighted", 1)]


def test_configurations_on_other_pairs_are_not_compared(plan: Plan, registry: Registry, tmp_path: Path) -> None:
    other = {**plan.configurations, "paper": replace(plan.configurations["T1"], split="paper")}
    with pytest.raises(KitError) as error:
        prepare(replace(plan, configurations=other), tmp_path / "out", registry)
    assert str(error.value) == (
        "compare paper: --split is paper, but grouped before; all that is compared must be tested on the same pairs; use "
        "another --out"
    )
    assert not (tmp_path / "out").exists()


def test_a_plugin_that_is_missing_is_told_before_anything_runs(small: RunConfig, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"^compare mine: --loss nobodys: unknown; there are ce, focal, weighted"):
        prepare(Plan({"mine": replace(small, loss="nobodys")}, (0,), False), tmp_path / "out", registry)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(plan: Plan, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(KitError, match=r"^--out .*file: cannot be written: "):
        prepare(plan, tmp_path / "file", registry)


def test_two_calls_do_not_continue_one_comparison(copy: Path) -> None:
    before = sorted(copy.rglob("*"))
    hold = (
        "import pathlib, sys; from empathy_kit.comparison.execute import alone\n"
        "with alone(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        result = CliRunner().invoke(cli, ["compare", "T2", "--resplit", "--out", str(copy)])
        other.kill()
    assert str(result.exception) == (
        f"--out {copy}: another process continues this comparison; wait until it ends, or use another --out"
    )
    assert "T2" not in read_plan(copy).configurations
    with alone(copy):  # who is killed lets go
        pass
    assert sorted(copy.rglob("*")) == before


def refusal(plan: Plan, out: Path, registry: Registry) -> str:
    with pytest.raises(KitError) as error:
        go(plan, out, registry)
    return str(error.value)


def test_a_run_that_was_edited_is_refused(copy: Path, plan: Plan, registry: Registry) -> None:
    file = copy / "runs" / "hard-0" / "predictions.csv"
    file.write_text(file.read_text().replace(",0,", ",1,", 1))
    assert refusal(plan, copy, registry) == f"{file}: changed after the run (sha256 differs from the manifest)"


def test_another_run_in_a_runs_place_is_refused(copy: Path, plan: Plan, registry: Registry) -> None:
    where = copy / "runs" / "T1-0"
    for other, what in (("T1-1", "seed 1 on split 1"), ("hard-0", "--loss focal, not ce")):
        shutil.rmtree(where)
        shutil.copytree(copy / "runs" / other, where)
        assert refusal(plan, copy, registry) == f"{where}: is a run with {what}; expected T1 as it is planned"
    (copy / "comparison.json").unlink()
    soft = {"hard": replace(plan.configurations["hard"], options={**SMALL["options"], "loss.gamma": 2})}
    gammas = "; ".join(f"-o loss.{task}.gamma 3.0, not 2.0" for task in ("ER", "EX", "IP"))
    assert refusal(replace(plan, configurations=soft), copy, registry) == (
        f"{copy / 'runs' / 'hard-0'}: is a run with {gammas}; expected hard as it is planned"
    )


@pytest.mark.parametrize("what", ["data", "split"])
def test_a_run_on_other_data_or_another_split_is_refused(copy: Path, plan: Plan, registry: Registry, what: str) -> None:
    rewrite_record(copy / "runs" / "hard-1", lambda content: content[what].update(sha256="0" * 64))
    assert refusal(plan, copy, registry).startswith(
        f"{copy / 'runs' / 'hard-1'}: was made on another {what} (sha256 000000000000... found, expected "
    )


def test_runs_of_two_versions_of_a_plugin_are_not_averaged(copy: Path, plan: Plan, registry: Registry) -> None:
    theirs = {"name": "focal", "distribution": "mine.py", "version": "1"}
    rewrite_record(copy / "runs" / "hard-1", lambda content: content["plugins"].update(loss=theirs))
    assert refusal(plan, copy, registry).startswith(
        f"{copy / 'runs' / 'hard-1'}: loss focal was from mine.py 1, and is now from empathy-kit "
    )


def test_runs_before_and_after_a_change_of_a_plugins_files_are_not_averaged(
    copy: Path, plan: Plan, registry: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from empathy_kit import Loss, hookimpl\nfrom empathy_kit.losses import FocalLoss\n"
        "def own(task):\n    return FocalLoss(0.0)\n"
        "@hookimpl\ndef empathy_kit_losses():\n    yield Loss('own', own)\n"
    )
    entry = load_registry([file]).get("loss", "own")
    installed = Registry((*registry.provided, replace(entry, distribution="empathy-kit-own", version="1")))
    own = {"own": replace(plan.configurations["T1"], loss="own")}
    prepared = prepare(Plan(own, (0,), resplit=True), tmp_path / "out", installed)
    where = run_folder(tmp_path / "out", "own", 0)
    shutil.copytree(copy / "runs" / "T1-0", where)
    recorded = {"name": "own", "distribution": "empathy-kit-own", "version": "1", "sha256": "0" * 64}
    rewrite_record(where, lambda content: (content["config"].update(loss="own"), content["plugins"].update(loss=recorded)))
    with pytest.raises(KitError) as error:
        list(execute(prepared, tmp_path / "out", installed, jobs=1, keep_models=False))
    assert str(error.value) == (
        f"{where}: the files of loss own from empathy-kit-own were changed since; runs of two versions cannot be averaged: "
        "restore the earlier files, or use another --out"
    )
