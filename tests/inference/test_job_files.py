"""What a job of tables finds around it: an input that changes, a list of skipped rows that is not its own, a bad beginning."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from pretend import pretend_model

from empathy_kit import KitError, files
from empathy_kit.inference import outputs, scoring, tables
from empathy_kit.inference.scoring import Job, predict_table
from empathy_kit.inference.tables import Columns

PAIR = {"seeker_post": "I am sad", "response_post": "so sorry"}
BAD = {**PAIR, "response_post": ""}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PART", 10)


def a_job(folder: Path, rows: list[dict[str, Any]], out: str = "out.csv") -> Job:
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Job(source, folder / out, Columns("seeker_post", "response_post", keep_all=True), skip_errors=True)


def work(job: Job) -> scoring.Progress:
    return list(predict_table(job, pretend_model()))[-1]


# --- an input that changes, or cannot be read ---


def rewritten(path: Path) -> None:
    before = path.stat()
    path.write_text(path.read_text().replace("sad", "mad"))  # of the same size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**7))  # some systems count time in steps of 4 ms


def replaced(path: Path) -> None:
    told = path.stat()
    new = path.with_name("new")
    new.write_text(path.read_text())
    os.utime(new, ns=(told.st_atime_ns, told.st_mtime_ns))
    new.replace(path)


def longer(path: Path) -> None:
    with path.open("a") as stream:
        stream.write(json.dumps(PAIR) + "\n")


@pytest.mark.parametrize("change", [rewritten, replaced, longer, Path.unlink])
def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    job = a_job(tmp_path, [PAIR] * 35)
    whole = replace(job, out=tmp_path / "whole.csv")
    work(whole)
    before = job.source.read_bytes()
    events = predict_table(job, pretend_model())
    next(events)
    change(job.source)
    with pytest.raises(KitError) as error:
        list(events)
    assert str(error.value) == "in.jsonl: changed while it was read; predict a copy that nothing changes"
    assert not job.out.exists()
    # What was predicted before is used, and nothing of what came after.
    job.source.write_bytes(before)
    assert work(job).reused == 10
    assert job.out.read_bytes() == whole.out.read_bytes()


def test_so_is_one_that_changes_between_its_hash_and_its_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job(tmp_path, [PAIR] * 5)
    claim = scoring._claim

    def late(job: Job, identity: dict[str, Any]) -> None:
        claim(job, identity)
        rewritten(job.source)

    monkeypatch.setattr(scoring, "_claim", late)
    with pytest.raises(KitError, match="changed while it was read"):
        work(job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_an_input_that_cannot_be_read_to_its_end_is_no_fault_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worn(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    job = a_job(tmp_path, [PAIR])
    monkeypatch.setattr(tables, "sha256", worn)
    with pytest.raises(KitError) as error:
        work(job)
    assert str(error.value) == f"{job.source}: cannot be read: Input/output error"


# --- what lies next to the output ---


def test_nothing_else_in_the_outputs_folder_is_opened(tmp_path: Path) -> None:
    job = a_job(tmp_path, [PAIR, BAD])
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "deep").mkdir()
    os.mkfifo(tmp_path / "deep" / "pipe")  # opened for reading, it would wait for a writer for ever
    work(job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "in.jsonl", "link", "out.csv", job.skipped.name]


def test_the_folder_of_the_parts_is_not_looked_through_for_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, swept = files.sweep, []

    def counted(folder: Path) -> None:
        swept.append(folder)
        sweep(folder)

    monkeypatch.setattr(files, "sweep", counted)
    jobs = [a_job(tmp_path, [PAIR] * 5, "one.csv"), a_job(tmp_path, [PAIR] * 55, "six.csv")]
    for job in jobs:
        work(job)
    assert [swept.count(job.parts) for job in jobs] == [4, 4]  # the job's file, the leftovers, the skipped rows, the end


# --- the row groups of a Parquet output ---


def test_parts_become_few_row_groups_the_same_ones_however_often_the_job_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "GROUP", 2_000)  # bytes: two or three of these parts
    job = a_job(tmp_path, [PAIR] * 95, "out.parquet")
    whole = replace(job, out=tmp_path / "whole.parquet")
    work(whole)
    told = pyarrow.parquet.ParquetFile(whole.out)
    sizes = [told.metadata.row_group(at).num_rows for at in range(told.num_row_groups)]
    assert 1 < len(sizes) < 6
    assert sum(sizes) == 95
    events = predict_table(job, pretend_model())
    next(events)
    events.close()
    assert work(job).reused == 10
    assert job.out.read_bytes() == whole.out.read_bytes()


# --- the list of skipped rows ---


def test_the_list_of_skipped_rows_never_overwrites_a_file(tmp_path: Path) -> None:
    job = a_job(tmp_path, [PAIR, BAD])
    job.skipped.write_text("mine")
    refusal = (
        f"--out {job.out}: the skipped rows are listed in {job.skipped}, which already exists; move it, or use another --out"
    )
    with pytest.raises(KitError) as error:
        work(job)
    assert str(error.value) == refusal
    assert [job.skipped.read_text(), job.out.exists(), job.parts.exists()] == ["mine", False, False]
    job.skipped.unlink()
    events = predict_table(job, pretend_model())
    next(events)
    job.skipped.symlink_to(tmp_path / "nowhere")  # meanwhile
    with pytest.raises(KitError) as error:
        list(events)
    assert str(error.value) == refusal
    assert not job.out.exists()
    job.skipped.unlink()
    assert work(job).reused == 2
    assert job.skipped.read_text().startswith("row,column,reason\n2,response_post,")


def test_a_job_that_died_after_it_had_listed_the_skipped_rows_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, rename = a_job(tmp_path, [PAIR, BAD]), Path.rename

    def die(self: Path, target: Path) -> Path:
        if target == job.out:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            work(job)
    assert (job.skipped.exists(), job.out.exists()) == (True, False)
    assert work(job).reused == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.csv", "out.csv.skipped.csv"]


# --- a bad beginning ---


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet"])
def test_a_part_of_bad_rows_alone_does_not_decide_which_columns_are_kept(tmp_path: Path, out: str) -> None:
    job = a_job(tmp_path, [{"other": 1}] * 12 + [{**PAIR, "n": 7}] * 3, out)
    found = work(job)
    assert (found.rows, found.bad) == (15, 12)
    if out == "out.parquet":
        rows = pyarrow.parquet.read_table(job.out).to_pylist()
    elif out == "out.csv":
        header, *lines = job.out.read_text().splitlines()
        rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    else:
        rows = [json.loads(line) for line in job.out.read_text().splitlines()]
    assert [(int(row["row"]), int(row["n"])) for row in rows] == [(13, 7), (14, 7), (15, 7)]
