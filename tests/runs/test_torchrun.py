"""`empathy-kit run` under torchrun: one run in several processes. The first one writes and prints, and they end together."""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from resume_world import finish, stop, with_plugins, without_clocks
from run_together import exact, noisy
from run_world import Said, flags, read_json, read_predictions

from empathy_kit.core.processes import Processes
from empathy_kit.errors import KitError
from empathy_kit.runs import checkpoints
from empathy_kit.runs import torchrun as module
from empathy_kit.runs.choose import choose_plugins, library_versions
from empathy_kit.runs.identity import all_versions, settings_of
from empathy_kit.runs.signals import SIGNALS, held
from empathy_kit.runs.torchrun import joined

Torchrun = Callable[..., "subprocess.CompletedProcess[str]"]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def still(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder without dropout."""
    folder = Path(shutil.copytree(tiny_roberta, tmp_path_factory.mktemp("still") / "encoder"))
    config = json.loads((folder / "config.json").read_text())
    changed = {name: 0.0 if "dropout" in name else value for name, value in config.items()}
    (folder / "config.json").write_text(json.dumps(changed))
    return folder


@pytest.fixture(scope="module")
def together(
    still: Path, torchrun: Torchrun, new_cache: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with what two processes have left behind."""
    out = tmp_path_factory.mktemp("together")
    stop(exact(still), out / "begun", 3, with_plugins())
    done = torchrun(2, HERE / "run_together.py", still, out, EMPATHY_KIT_CACHE=str(new_cache(out / "cache")))
    assert done.returncode == 0, done.stderr
    return out


def assert_same_scores(folder: Path, alone: Path) -> None:
    """The same history and predictions, but for the rounding of sums that are taken in another order."""
    histories = [[json.loads(line) for line in (each / "history.jsonl").read_text().splitlines()] for each in (folder, alone)]
    for epoch, other in zip(*histories, strict=True):
        assert {name: epoch[name] for name in ("epoch", "best", "validation_accuracy")} == {
            name: other[name] for name in ("epoch", "best", "validation_accuracy")
        }
        for name in ("train_loss", "validation_loss"):
            assert epoch[name] == pytest.approx(other[name], abs=1e-5)
    for file in ("predictions.csv", "validation.csv"):
        for row, other in zip(read_predictions(folder, file), read_predictions(alone, file), strict=True):
            for name, cell in row.items():
                exactly = name == "id" or re.fullmatch(r"-?\d*", cell)
                assert cell == other[name] if exactly else float(cell) == pytest.approx(float(other[name]), abs=1e-4)


@pytest.fixture(scope="module")
def alone(still: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    finish(exact(still), out, with_plugins())
    return out


@pytest.mark.processes
def test_two_processes_end_with_the_scores_of_one(together: Path, alone: Path) -> None:
    assert_same_scores(together / "exact", alone)
    assert read_json(together / "exact")["machine"]["processes"] == 2
    assert "processes" not in read_json(alone)["machine"]
    assert len(list((together / "cache" / "states").glob("*.npy"))) == 1  # one has computed them, and the other read them


@pytest.mark.processes
def test_a_run_that_one_process_has_begun_is_continued_by_two(together: Path, alone: Path) -> None:
    assert_same_scores(together / "begun", alone)
    assert read_json(together / "begun")["machine"]["processes"] == "1, then 2"


@pytest.mark.processes
def test_a_signal_to_one_process_stops_all_after_the_same_step_and_nothing_is_lost(together: Path) -> None:
    assert {path.name for path in together.glob("interrupted-*")} == {"interrupted-0", "interrupted-1"}
    newest = checkpoints.read(checkpoints.folders(together / "left.partial")[0])
    assert newest.identity["position"] == "epoch 1, step 3"
    # With dropout and noise: what the second process draws follows from the seed, the position and its rank.
    assert without_clocks(together / "stopped") == without_clocks(together / "whole")


@pytest.mark.processes
def test_a_run_that_two_processes_have_begun_is_continued_by_one(together: Path, still: Path) -> None:
    events = finish(noisy(still), together / "left", with_plugins())
    assert events[0].continued == f"continues {together / 'left.partial'}: epoch 1, step 3 is done"
    assert read_json(together / "left")["machine"]["processes"] == "2, then 1"


@pytest.mark.processes
def test_a_process_that_dies_takes_the_others_down_and_is_named_in_one_line(
    torchrun: Torchrun, tiny_roberta: Path, tmp_path: Path
) -> None:
    arguments = [*flags(tiny_roberta), "--out", tmp_path / "run", "--checkpoint-minutes", "0"]
    done = torchrun(2, HERE / "faulty.py", "killed", "run", *arguments)
    assert done.returncode == 1
    (died, ended) = (re.findall(rf"^{what} at (.+)$", done.stderr, re.MULTILINE) for what in ("dies", "ends"))
    assert float(*ended) - float(*died) < 30  # of the same clock; torchrun would have killed the other after that
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    partial = tmp_path / "run.partial"
    assert re.fullmatch(
        rf"Error: rank 1 of 2 \(\S+, pid \d+\): ended, or does not answer; the other processes end too; "
        rf"the run's state is in {partial}, for --resume",
        line,
    )
    assert checkpoints.read(checkpoints.folders(partial)[0]).identity["position"] == "epoch 1, step 1"
    assert done.stdout == ""


@pytest.mark.processes
def test_a_fault_is_printed_once_whichever_processes_have_it(torchrun: Torchrun, tiny_roberta: Path, tmp_path: Path) -> None:
    done = torchrun(2, HERE / "faulty.py", "missing", "run", *flags(tiny_roberta), "--out", tmp_path / "run")
    kit = [line for line in done.stderr.splitlines() if line.startswith("Error:") or "Aborted" in line]
    assert kit == [
        "Error: --data missing.csv: no such file or folder; expected sample, reddit, a folder or a .csv, .jsonl or .parquet file"
    ]
    assert re.search(r"Root Cause.*\n.*\n.*\n.*\n  rank      : 1 .*\n  exitcode  : 2 ", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_a_fault_that_all_have_before_they_meet_is_printed_once_too() -> None:
    """By torchrun's own command, which forks nothing."""
    module = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "empathy_kit"]
    done = subprocess.run([*module, "run", "--epochs", "0"], capture_output=True, text=True, timeout=300, check=False)
    kit = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert kit == ["Error: --epochs 0: out of range, expected 1 to 10000"]


def test_one_process_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (None, "1"):  # torchrun sets it for one process too
        monkeypatch.delenv("WORLD_SIZE", raising=False) if count is None else monkeypatch.setenv("WORLD_SIZE", count)
        with joined("cpu") as processes:
            assert processes is None
    assert Processes().told("anything", 3) == 3


@pytest.fixture
def leftover(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What torchrun sets, in a shell where no torchrun is: nobody listens on the port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    found = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0"}
    found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "SOONEST", timedelta(seconds=1))
    return found


@pytest.mark.parametrize("without", [None, "MASTER_ADDR", "MASTER_PORT"])
def test_variables_of_torchrun_without_torchrun_are_one_line_that_names_them(
    leftover: dict[str, str], monkeypatch: pytest.MonkeyPatch, without: str | None
) -> None:
    if without is not None:
        monkeypatch.delenv(without)
    with pytest.raises(KitError) as error, joined("cpu"):
        pass
    message = str(error.value)
    assert message.startswith("WORLD_SIZE=2 ")
    assert message.endswith("start with torchrun, or unset WORLD_SIZE")
    assert "\n" not in message
    assert without is None or without in message
    assert without is not None or f"MASTER_PORT={leftover['MASTER_PORT']} " in message


@pytest.mark.usefixtures("leftover")
def test_a_fault_is_printed_at_once_where_torchrun_has_ended(
    tmp_path: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_store", functools.cache(lambda: pytest.fail("waits for the other processes")))
    reply = command("runs", "list", tmp_path / "missing")
    assert reply == Said(2, "", f"Error: {tmp_path / 'missing'}: no such folder, expected a folder with runs\n")


def test_a_handler_that_is_set_while_signals_are_held_stays() -> None:
    """A process that names one that has died ignores SIGTERM from then on, for torchrun may send it late."""
    kept = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with held():
            with held():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


class Apart(Processes):
    """The second process of two, whose first one has something else."""

    def __init__(self, **first: Any) -> None:
        super().__init__(1, 2)
        self.first = first

    def told(self, name: str, value: Any = None) -> Any:
        return self.first.get(name, value)


@pytest.mark.parametrize("what", ["data", "split", "encoder"])
def test_a_process_with_other_data_or_another_encoder_than_the_first_is_refused(
    tiny_roberta: Path, tmp_path: Path, what: str
) -> None:
    with pytest.raises(KitError) as error:
        finish(noisy(tiny_roberta), tmp_path / "run", with_plugins(), processes=Apart(**{what: "0" * 64}))
    assert re.fullmatch(
        rf"torchrun: the {what} of rank 1 is not that of rank 0 \(sha256 \w{{12}}... found, expected 000000000000...\); "
        rf"start all processes with the same {what}",
        str(error.value),
    )


def test_a_process_with_other_settings_than_the_first_is_refused(tiny_roberta: Path, tmp_path: Path) -> None:
    config = noisy(tiny_roberta)
    first = settings_of(replace(config, lr=0.5, epochs=9), choose_plugins(config, with_plugins()))
    with pytest.raises(KitError) as error:
        finish(config, tmp_path / "run", with_plugins(), processes=Apart(settings=first))
    assert str(error.value) == (
        f"torchrun: rank 0 was started with --epochs 9, not 2; --lr 0.5, not {config.lr:g}; "
        "start all processes with the same settings"
    )


@pytest.mark.parametrize(
    ("what", "other", "differing"),
    [
        ("versions", {"torch": "9.0"}, f"torch {library_versions()['torch']} found, expected 9.0"),
        (
            "plugins",
            {"loss": f"learnt of mine 1 (sha256 {'b' * 12}...)"},
            f"loss learnt of mine 1 (sha256 {'a' * 12}...) found, expected learnt of mine 1 (sha256 {'b' * 12}...)",
        ),
    ],
)
def test_a_process_with_other_versions_or_files_of_a_plugin_than_the_first_is_refused(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, other: dict[str, str], differing: str
) -> None:
    """Whether a run is begun or continued: what was stopped is compared with the first process alone."""
    monkeypatch.setattr("empathy_kit.runs.choose.fingerprint", lambda entry: "a" * 64 if entry.distribution == "mine" else None)
    config, registry = noisy(tiny_roberta), with_plugins()
    chosen = choose_plugins(config, registry).chosen
    plugins = {kind: f"{entry.spec.name} of {entry.distribution} {entry.version}" for kind, entry in chosen.items()}
    first = {"plugins": {**plugins, "loss": f"learnt of mine 1 (sha256 {'a' * 12}...)"}, "versions": all_versions()}
    processes = Apart(**{**first, what: {**first[what], **other}})
    with pytest.raises(KitError) as error:
        finish(config, tmp_path / "run", registry, processes=processes)
    assert str(error.value) == (
        f"torchrun: the {what} of rank 1 are not those of rank 0 ({differing}); start all processes with the same {what}"
    )
