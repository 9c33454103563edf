"""A run directory appears whole or not at all, never over another, and says when it was changed afterwards."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from empathy_kit.config import RunConfig, to_dict
from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.schema import EPITOME
from empathy_kit.errors import KitError
from empathy_kit.runs.record import FORMAT, Record, check_output, hashed_ids, read, staged, verify, write


def make_record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "format": FORMAT,
        "kit": "0.1.0",
        "oracle": False,
        "config": to_dict(RunConfig(loss="focal")),
        "plugins": {"loss": {"name": "focal", "distribution": "empathy-kit", "version": "0.1.0"}},
        "versions": {"python": "3.11.7"},
        "machine": {"device": "cpu"},
        "data": {"name": "sample"},
        "split": {"kind": "grouped"},
        "encoder": {"name": "minilm", "sha256": "0" * 64},
        "truncation": {"max_tokens": 64},
        "training": {"epochs": 5},
        "scores": {"ER": {"n": 3}},
        "spans": None,
    }
    return Record(**{**values, **changes})


def make_run(out: Path, record: Record | None = None) -> Path:
    with staged(out) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_bytes(bytes(range(256)))
        write(
            folder,
            record or make_record(),
            [{"epoch": 1}, {"epoch": 2}],
            predictions=[["id", "ER_true"], ["ab", "1"], ["cd", "0"]],
            validation=[["id", "ER_true"], ["ef", "2"]],
        )
    return out


def break_off(out: Path, error: BaseException) -> None:
    """Write half of a run, then raise."""
    with staged(out) as folder:
        (folder / "half.bin").write_bytes(b"x" * 1000)
        (folder / "model").mkdir()
        raise error


def test_a_run_directory_holds_its_record_history_predictions_and_a_manifest_of_all(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "history.jsonl",
        "manifest.json",
        "model/weights",
        "predictions.csv",
        "run.json",
        "validation.csv",
    ]
    assert read(out) == make_record()
    assert [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()] == [{"epoch": 1}, {"epoch": 2}]
    assert list(csv.reader((out / "predictions.csv").read_text().splitlines())) == [["id", "ER_true"], ["ab", "1"], ["cd", "0"]]
    assert list(csv.reader((out / "validation.csv").read_text().splitlines())) == [["id", "ER_true"], ["ef", "2"]]
    assert set(json.loads((out / "manifest.json").read_text())["sha256"]) == {
        "history.jsonl",
        "model/weights",
        "predictions.csv",
        "run.json",
        "validation.csv",
    }


@pytest.mark.parametrize(
    ("config", "changes", "title"),
    [
        (RunConfig(loss="focal"), {}, "focal"),
        (RunConfig(rationale="gold"), {"oracle": True}, "ce + gold (ORACLE)"),
        (RunConfig(rationale="tag", head="attention"), {}, "ce + attention head + tag"),
        # A head that brings its own loss is not trained by the run's.
        (RunConfig(rationale="tag", head="ordinal"), {"training": {"own_criterion": True}}, "ordinal head + tag"),
        (RunConfig(trunk="mean", sampler="over"), {}, "ce + mean trunk + over sampling"),
        (RunConfig(posts="response", tasks=("ER", "IP")), {}, "ce + ER, IP only + response only"),
    ],
)
def test_a_title_names_what_makes_a_run_and_an_oracle_is_called_one(config: RunConfig, changes: Any, title: str) -> None:
    assert make_record(config=to_dict(config), **changes).title == title


def test_a_record_knows_its_datas_tasks_and_those_that_were_trained() -> None:
    record = make_record(config=json.loads(json.dumps(to_dict(RunConfig(tasks=("IP",))))))
    assert record.schema == EPITOME
    assert record.tasks == EPITOME.select(["IP"])


def test_a_run_of_format_1_is_read_as_one_of_today(tmp_path: Path) -> None:
    """Its GRU's options were settings; it knew no other tasks, samplers or trunks."""
    new = to_dict(RunConfig(loss="focal", options={"loss.gamma": 2.0}))
    old = {name: value for name, value in new.items() if name not in ("schema", "tasks", "sampler", "trunk")}
    old |= {"hidden": 128, "layers": 1, "dropout": 0.5}
    out = make_run(tmp_path / "run", make_record(format=1, config=old))
    found = read(out)
    assert found.format == FORMAT
    assert found.config == {
        **new,
        "options": {"loss.gamma": 2.0, "trunk.hidden": 128, "trunk.layers": 1, "trunk.dropout": 0.5},
    }
    ours = {"distribution": "empathy-kit", "version": "0.1.0"}
    assert found.plugins == {
        "loss": {"name": "focal", **ours},
        "sampler": {"name": "all", **ours},
        "trunk": {"name": "gru", **ours},
    }


def test_a_run_of_format_2_has_no_average_precision_and_its_span_scores_are_not_those_of_today(tmp_path: Path) -> None:
    """They left out the evidence that truncation had cut away."""
    found = read(make_run(tmp_path / "run", make_record(format=2, spans={"ER": {"pairs": 3}})))
    assert (found.format, found.spans) == (FORMAT, None)
    assert found.scores == {"ER": {"n": 3, "average_precision": [], "batch_macro_f1": None}}


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), KitError("a fault")])
def test_an_exception_leaves_nothing_behind_and_stays_itself(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        break_off(tmp_path / "run", error)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KitError) as error:
        break_off(out, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "half.bin"))
    assert str(error.value) == f"--out {out}: cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_json_does_not_have_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_run(tmp_path / "run", make_record(scores={"ER": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run")
    message = f"--out {out}: already exists; a run never overwrites another, expected a new name"
    with pytest.raises(KitError) as error:
        check_output(out)
    assert str(error.value) == message
    with pytest.raises(KitError) as error:
        make_run(out, make_record(kit="9"))
    assert str(error.value) == message
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert read(out) == make_record()


APPEARING: dict[str, Callable[[Path], None]] = {
    "an empty folder": Path.mkdir,  # rename alone would take its place
    "a file": Path.touch,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", APPEARING)
def test_whatever_appears_meanwhile_is_kept(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"

    def overtaken() -> None:
        with staged(out) as folder:
            (folder / "half").touch()
            APPEARING[kind](out)

    with pytest.raises(KitError, match="already exists"):
        overtaken()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_two_runs_at_once_under_one_name_do_not_touch_each_other(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with staged(out) as first:
        (first / "mine").touch()
        with pytest.raises(RuntimeError):
            break_off(out, RuntimeError())
        assert [path.name for path in first.iterdir()] == ["mine"]
    verify(out)


KILLED = """
import os, signal, sys
from pathlib import Path
from empathy_kit.runs.record import staged
with staged(Path(sys.argv[1])) as folder:
    (folder / "run.json").write_text("{}")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_no_directory_of_the_runs_name_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".run.partial-")
    check_output(out)
    verify(make_run(out))


def test_the_check_before_the_work_leaves_nothing_not_even_parents(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "run"
    check_output(out)
    assert list(tmp_path.iterdir()) == []
    verify(make_run(out))


def test_a_relative_folder_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(Path("runs/x"))
    verify(make_run(Path("runs/x")))
    assert (tmp_path / "runs" / "x" / "run.json").is_file()


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, reason in (("file/run", "Not a directory"), ("n" * 300, "File name too long"), ("n" * 240, "File name too long")):
        out = tmp_path / name  # 240 characters are a name, but not with those of the unfinished folder
        with pytest.raises(KitError) as error:
            check_output(out)
        assert str(error.value) == f"--out {out}: cannot be written: {reason}"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("new/..", "--out new/..: leads back to a folder above, expected a new name"),
        ("a\0b", "--out 'a\\x00b': a NUL byte found, expected a folder's name"),
        (".", "--out .: already exists; a run never overwrites another, expected a new name"),
        ("", "--out .: already exists; a run never overwrites another, expected a new name"),
    ],
)
def test_what_is_no_name_of_a_new_folder_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KitError) as error:
        check_output(Path(name))
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_without_permission_is_found_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(KitError, match="cannot be written: Permission denied"):
        check_output(tmp_path / "run")


def test_a_file_that_is_missing_added_or_changed_is_named(tmp_path: Path) -> None:
    changes = {
        "missing, but the manifest lists it": lambda path: path.unlink(),
        "changed after the run (sha256 differs from the manifest)": lambda path: path.write_bytes(bytes(256)),
        "not in the manifest; it was added after the run": lambda path: path.with_name("extra").touch(),
    }
    for number, (problem, change) in enumerate(changes.items()):
        out = make_run(tmp_path / str(number))
        verify(out)
        change(out / "model" / "weights")
        name = "extra" if "added" in problem else "weights"
        for check in (verify, read):  # a record is not read without its files
            with pytest.raises(KitError) as error:
                check(out)
            assert str(error.value) == f"{out / 'model' / name}: {problem}"


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run")
    path = out / "model" / "weights"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(KitError, match=r"weights: changed after the run"):
        verify(out)


@pytest.mark.parametrize("manifest", [None, b"", b"{}", b"[1]", b'{"sha256": [1]}', b"\xff\xfe", b"[" * 100_000])
def test_a_folder_that_is_no_finished_run_is_named(tmp_path: Path, manifest: bytes | None) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_bytes(manifest)
    with pytest.raises(KitError) as error:
        verify(tmp_path)
    assert str(error.value) == f"{tmp_path}: not a finished run: manifest.json is missing or unreadable"


def test_a_record_of_another_format_is_refused(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run", make_record(format=FORMAT + 1))
    with pytest.raises(KitError) as error:
        read(out)
    assert str(error.value) == f"{out / 'run.json'}: format {FORMAT + 1} found, expected {FORMAT}"


def make_corpus(count: int = 50, prefix: str = "t3_") -> Corpus:
    pairs = tuple(
        Pair(row, f"{prefix}{row:06}", f"{prefix}{row // 2}", f"seeker {row // 2} 🙂", f"response {row}", (0, 1, 2))
        for row in range(1, count + 1)
    )
    return Corpus("made", pairs, {})


IDS = """
import sys
sys.path.insert(0, sys.argv[1])
from test_record import hashed_ids, make_corpus
print(*hashed_ids(make_corpus()))
"""


def test_hashed_ids_are_the_same_in_every_run_and_process() -> None:
    command = [sys.executable, "-c", IDS, str(Path(__file__).parent)]
    other = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert hashed_ids(make_corpus()) == hashed_ids(make_corpus()) == other


def test_hashed_ids_are_unique_opaque_and_hold_no_raw_id() -> None:
    corpus = make_corpus(2000, prefix="")  # ids that are short numbers, and easy to find again
    ids = hashed_ids(corpus)
    assert len(set(ids)) == len(corpus)
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in ids)
    assert sum(pair.pair_id in name for pair, name in zip(corpus.pairs, ids, strict=True)) == 0


def test_a_pair_that_stands_twice_has_two_ids() -> None:
    pair = make_corpus(1).pairs[0]
    assert len(set(hashed_ids(Corpus("twice", (pair, replace(pair, row=2)), {})))) == 2


def test_hashed_ids_differ_between_corpora_so_that_they_cannot_be_looked_up() -> None:
    corpus = make_corpus()
    changed = replace(corpus, pairs=(*corpus.pairs[:-1], replace(corpus.pairs[-1], response="other words")))
    assert set(hashed_ids(corpus)).isdisjoint(hashed_ids(changed))
    assert hashed_ids(replace(corpus, name="renamed")) == hashed_ids(corpus)
