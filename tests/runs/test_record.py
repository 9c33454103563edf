"""A run directory holds what is known of a run, and shows when it was changed afterwards."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_run import make_record, make_run

from empathy_kit.config import ADDED, RunConfig, to_dict
from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.schema import EPITOME
from empathy_kit.errors import KitError
from empathy_kit.runs.record import FORMAT, MALFORMED, hashed_ids, read, seal, verify


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
        (RunConfig(loss="focal", train_share=0.25), {}, "focal + 25 % of the seekers"),
    ],
)
def test_a_title_names_what_makes_a_run_and_an_oracle_is_called_one(config: RunConfig, changes: Any, title: str) -> None:
    assert make_record(config=to_dict(config), **changes).title == title


def test_a_record_knows_its_datas_tasks_and_those_that_were_trained() -> None:
    record = make_record(config=json.loads(json.dumps(to_dict(RunConfig(tasks=("IP",))))))
    assert record.schema == EPITOME
    assert record.tasks == EPITOME.select(["IP"])


def test_a_run_from_before_a_setting_was_added_did_what_its_default_does(tmp_path: Path) -> None:
    new = to_dict(RunConfig(loss="focal"))
    old = {name: value for name, value in new.items() if name not in ADDED}
    assert old != new
    assert read(make_run(tmp_path / "run", make_record(config=old))).config == new


def test_a_file_that_is_missing_added_or_changed_is_named(tmp_path: Path) -> None:
    changes = {
        "missing, but the manifest lists it": lambda path: path.unlink(),
        "changed after the run (sha256 differs from the manifest)": lambda path: path.write_bytes(b"\1" + path.read_bytes()[1:]),
        "not in the manifest; it was added after the run": lambda path: path.with_name("extra").touch(),
    }
    for number, (problem, change) in enumerate(changes.items()):
        out = make_run(tmp_path / str(number))
        verify(out)
        change(out / "model" / "weights")  # whose first byte is 0: one bit is flipped
        name = "extra" if "added" in problem else "weights"
        for check in (verify, read):  # a record is not read without its files
            with pytest.raises(KitError) as error:
                check(out)
            assert str(error.value) == f"{out / 'model' / name}: {problem}"


@pytest.mark.parametrize("name", ["run.json", "manifest.json"])
def test_a_byte_order_mark_is_no_part_of_a_record(tmp_path: Path, name: str) -> None:
    out = make_run(tmp_path / "run")
    (out / name).write_text((out / name).read_text("utf-8"), encoding="utf-8-sig")
    if name == "run.json":
        seal(out)
    assert read(out) == make_record()


def test_a_link_out_of_the_folder_is_refused_and_one_within_it_is_not(tmp_path: Path) -> None:
    run, outside = make_run(tmp_path / "run"), tmp_path / "outside"
    (run / "history.jsonl").rename(outside)
    (run / "history.jsonl").symlink_to(outside)  # with the same bytes: they could be others tomorrow
    with pytest.raises(KitError) as error:
        verify(run)
    assert str(error.value) == f"{run / 'history.jsonl'}: a link out of this folder found, expected the file itself"
    (run / "history.jsonl").unlink()
    outside.rename(run / "model" / "history.jsonl")
    (run / "history.jsonl").symlink_to("model/history.jsonl")
    with pytest.raises(KitError, match=r"model/history.jsonl: not in the manifest"):
        verify(run)
    verify(run, model=False)


def test_a_snapshot_of_the_hubs_client_may_link_to_its_own_files(tmp_path: Path) -> None:
    run = make_run(tmp_path / "models--a--b" / "snapshots" / "0")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for name in ("history.jsonl", "manifest.json", "model/weights"):
        (run / name).rename(blobs / name.replace("/", "-"))
        (run / name).symlink_to(blobs / name.replace("/", "-"))
    verify(run)


def test_a_pipe_in_a_run_is_not_waited_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    os.mkfifo(run / "more")
    with pytest.raises(KitError) as error:
        verify(run)
    assert str(error.value) == f"{run / 'more'}: not a regular file, expected one that a run writes"
    (run / "more").unlink()
    (run / "manifest.json").unlink()
    os.mkfifo(run / "manifest.json")
    with pytest.raises(KitError) as error:
        verify(run)
    assert str(error.value) == f"{run / 'manifest.json'}: cannot be read: not a regular file"


@pytest.mark.parametrize("manifest", [None, b"", b"{}", b"[1]", b'{"sha256": [1]}', b"\xff\xfe", b"[" * 100_000])
def test_a_folder_that_is_no_finished_run_is_named(tmp_path: Path, manifest: bytes | None) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_bytes(manifest)
    with pytest.raises(KitError) as error:
        verify(tmp_path)
    assert str(error.value) == f"{tmp_path}: not a finished run: manifest.json is missing or unreadable"


@pytest.mark.parametrize("number", [FORMAT - 1, FORMAT + 1])
def test_a_record_of_another_format_is_refused(tmp_path: Path, number: int) -> None:
    out = make_run(tmp_path / "run", make_record(format=number))
    with pytest.raises(KitError) as error:
        read(out)
    assert str(error.value) == f"{out / 'run.json'}: format {number} found, expected {FORMAT}"


@pytest.mark.parametrize("part", ["data", "split", "encoder"])
@pytest.mark.parametrize("held", [{}, {"sha256": None}, {"sha256": 5}])
def test_a_record_without_the_hash_of_what_it_was_made_of_is_one_line(tmp_path: Path, part: str, held: dict[str, Any]) -> None:
    """What compares or exports a run asks by them whether the data is still the run's, and whether encoders are the same."""
    out = make_run(tmp_path / "run", make_record(**{part: {"name": "sample", **held}}))
    with pytest.raises(KitError) as error:
        read(out)
    assert str(error.value) == f"{out / 'run.json'}: {MALFORMED}"


def make_corpus(count: int = 50, prefix: str = "t3_") -> Corpus:
    pairs = tuple(
        Pair(row, f"{prefix}{row:06}", f"{prefix}{row // 2}", f"seeker {row // 2} 🙂", f"response {row}", (0, 1, 2))
        for row in range(1, count + 1)
    )
    return Corpus("made", pairs, {})


def test_hashed_ids_are_the_same_in_every_run_and_process() -> None:
    assert hashed_ids(make_corpus())[:2] == ["44e5009297bfbd2e", "54de1215c74d8e13"]


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
