"""Tables in, tables out: every row once, in order, whatever stops the job, and nothing of another job mixed in."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from job_tables import COLUMNS, ROWS, read, work, write
from pretend import ByWords, pretend_model

from empathy_kit import KitError
from empathy_kit.core.scored import MEND
from empathy_kit.inference import outputs, scoring
from empathy_kit.inference.scoring import Job, predict_table


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PART", 10)


@pytest.mark.parametrize("source", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("out", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_every_row_in_order_with_what_is_kept(tmp_path: Path, source: str, out: str) -> None:
    job = Job(write(tmp_path / f"in{source}", ROWS), tmp_path / f"out{out}", COLUMNS, evidence=True)
    assert work(job) == scoring.Progress(53, 0, 1.0, 0)
    found = read(job.out)
    said = pretend_model().predict([(row["seeker_post"], row["response_post"]) for row in ROWS])
    assert [int(row["row"]) for row in found] == [int(row["n"]) for row in found] == list(range(1, 54))
    assert list(found[0]) == [
        *("row", "n", "warm_predicted", "warm_p0", "warm_p1", "warm_evidence"),
        *("ER_predicted", "ER_p0", "ER_p1", "ER_p2", "ER_evidence", "seeker_truncated", "response_truncated"),
    ]
    for row, prediction, given in zip(found, said, ROWS, strict=True):
        assert (row["warm_predicted"], row["ER_predicted"]) == (prediction["warm"].label, prediction["ER"].label)
        assert float(row["ER_p1"]) == round(prediction["ER"].probabilities["1"], 6)
        evidence = json.loads(row["ER_evidence"]) if out == ".csv" else row["ER_evidence"]
        assert [quote["text"] for quote in evidence] == [
            given["response_post"][span.start : span.end] for span in prediction["ER"].evidence or ()
        ]
    # Kept numbers stay numbers where both formats have types. From JSON Lines, whose columns may mix them, Parquet gets text.
    typed = {(".jsonl", ".jsonl"), (".parquet", ".jsonl"), (".parquet", ".parquet")}
    assert {type(row["n"]) for row in found} == {int if (source, out) in typed else str}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == [job.out.name]


def test_a_killed_job_is_continued_to_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    """SIGKILL at random moments of a part's life, again and again, until a call comes through."""
    rows = [{**ROWS[n % 50], "n": n, "response_post": " " if n % 37 == 0 else f"hug {n}"} for n in range(120)]
    source = write(tmp_path / "in.csv", rows)
    script = str(Path(__file__).with_name("pretend.py"))
    subprocess.run([sys.executable, script, source, tmp_path / "whole.csv"], check=True)
    out, dice, kills = tmp_path / "out.csv", random.Random(0), 0
    while not out.exists():
        process = subprocess.Popen([sys.executable, script, source, out])
        before = len(list(tmp_path.glob("out.csv.parts/0*.json")))
        while process.poll() is None and len(list(tmp_path.glob("out.csv.parts/0*.json"))) == before:
            time.sleep(0.001)
        time.sleep(dice.choice((dice.uniform(0, 0.02), dice.uniform(0.11, 0.14))))  # it computes for 0.12 s, and writes the part
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, script, source, out], check=False)  # what was killed after the last rename is cleaned up
    assert kills >= 3
    for name in ("", ".skipped.csv"):
        assert Path(f"{out}{name}").read_bytes() == Path(f"{tmp_path / 'whole.csv'}{name}").read_bytes()
    assert len(read(out)) == 120 - 4
    assert not (tmp_path / "out.csv.parts").exists()


def stop_after(job: Job, parts: int) -> None:
    events = predict_table(job, pretend_model())
    for _ in range(parts):
        next(events)
    events.close()


def test_a_continued_job_computes_nothing_twice_and_mends_a_damaged_part(tmp_path: Path) -> None:
    job = Job(write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv", COLUMNS)
    work(replace(job, out=tmp_path / "whole.csv"))
    stop_after(job, 3)
    assert sorted(path.name for path in job.parts.iterdir() if path.name[0] != ".") == [
        *("00000000.csv", "00000000.json", "00000001.csv", "00000001.json", "00000002.csv", "00000002.json", "job.json")
    ]
    damaged = job.parts / "00000001.csv"
    damaged.write_bytes(damaged.read_bytes().replace(b"yes", b"no ", 1)[:-1])
    (job.parts / "00000002.json").write_text("{")
    model = pretend_model()
    assert list(predict_table(job, model))[-1].reused == 10
    assert isinstance(model.engine, ByWords)
    assert model.engine.pairs == 43
    assert job.out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("gone", ["00000002.csv", "00000002.json", "00000005.csv"])
def test_a_part_that_is_lost_while_the_job_runs_is_not_the_end_of_the_table(tmp_path: Path, gone: str) -> None:
    job = Job(write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv", COLUMNS)
    work(replace(job, out=tmp_path / "whole.csv"))
    events = predict_table(job, pretend_model())
    for _ in range(6):  # all parts are made
        next(events)
    (job.parts / gone).unlink()
    with pytest.raises(KitError) as error:
        list(events)
    assert str(error.value) == (
        f"{job.parts}: part {int(gone[:8])} is missing or was changed since it was predicted; the other parts are kept, "
        "repeat the command to continue"
    )
    assert not job.out.exists()
    assert work(job).reused == 53 - (3 if gone == "00000005.csv" else 10)
    assert job.out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_folder_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    job = Job(write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv", COLUMNS)
    notes = job.parts / "notes.txt"
    job.parts.mkdir()
    notes.write_text("mine")
    for source in (job.source, write(tmp_path / "bad.csv", [{**ROWS[0], "response_post": ""}])):
        with pytest.raises(KitError) as error:
            work(replace(job, source=source))
        assert str(error.value) == (
            f"--out {job.out}: {job.parts} is in the way and holds no job; move it away, or use another --out"
        )
        assert [path.name for path in job.parts.iterdir()] == ["notes.txt"]
    notes.unlink()
    assert work(job).rows == 53  # an empty folder is nobody's
    job.out.unlink()
    job.parts.write_text("mine")
    with pytest.raises(KitError, match="is in the way"):
        work(job)
    assert job.parts.read_text() == "mine"


@pytest.mark.parametrize("difference", ["input", "model", "columns", "evidence", "library", "device"])
def test_parts_of_another_job_are_never_mixed_in(tmp_path: Path, difference: str) -> None:
    job = Job(write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv", COLUMNS)
    stop_after(job, 2)
    changed, model = job, pretend_model()
    if difference == "input":
        write(job.source, [*ROWS[1:], ROWS[0]])
    elif difference == "model":
        model = pretend_model(digest="e" * 64)
    elif difference in ("library", "device"):
        model = pretend_model(**{difference: "another"})
    elif difference == "columns":
        changed = replace(job, columns=replace(COLUMNS, keep_all=False))
    else:
        changed = replace(job, evidence=True)
    with pytest.raises(KitError) as error:
        list(predict_table(changed, model))
    assert str(error.value) == (
        f"{job.parts}: holds parts of another job (different: {difference}); "
        "repeat that job's command, delete the folder, or use another --out"
    )
    write(job.source, ROWS)
    assert work(job).reused == 20


def test_a_bad_row_stops_the_job_with_one_line_and_skipped_it_is_listed(tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    rows[24]["response_post"], rows[40]["seeker_post"] = "", "\u200b"
    job = Job(write(tmp_path / "in.csv", rows), tmp_path / "out.csv", COLUMNS)
    with pytest.raises(KitError) as error:
        work(job)
    assert str(error.value) == (
        "in.csv, row 25, column 'response_post': empty, expected a post; "
        "use --errors skip to predict the other rows and list the bad ones"
    )
    found = work(replace(job, skip_errors=True))
    assert (found.rows, found.bad, found.reused) == (53, 2, 20)  # the parts before the bad row are used
    assert [int(row["row"]) for row in read(job.out)] == [n for n in range(1, 54) if n not in (25, 41)]
    assert job.skipped.read_text() == (
        'row,column,reason\n25,response_post,"empty, expected a post"\n'
        '41,seeker_post,"only invisible characters found, expected a post"\n'
    )


@pytest.mark.parametrize(
    ("part", "row", "said"), [(10, 25, "2 of 9 pairs"), (4096, 81, "2 of 41 pairs")], ids=["in a part", "in a window of a part"]
)
def test_a_row_that_the_model_fails_on_is_named_and_ends_the_job_even_where_bad_rows_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int, row: int, said: str
) -> None:
    class Divides(ByWords):
        def _score(self, pairs: Any) -> Any:
            for pair, each in zip(pairs, super()._score(pairs), strict=True):
                wrong = {"ER": np.full(3, np.nan)} if len(pair.response) == 3 else {}  # a single word
                yield replace(each, probabilities={**each.probabilities, **wrong})

    monkeypatch.setattr(scoring, "PART", part)
    rows = [{**each, "n": at} for at, each in enumerate([*ROWS, *ROWS], start=1)]
    rows[row - 1]["response_post"] = rows[row + 1]["response_post"] = "hug"
    rows[22]["response_post"] = ""  # a bad row, so that positions are not row numbers
    job = Job(write(tmp_path / "in.csv", rows), tmp_path / "out.csv", COLUMNS, skip_errors=True)
    with pytest.raises(KitError) as error:
        list(predict_table(job, replace(pretend_model(), engine=Divides())))
    assert str(error.value) == f"ER: the probabilities of {said} are no finite numbers, the first in row {row}; {MEND}"
    assert not job.out.exists()
    assert len(list(job.parts.glob("*.csv"))) == (2 if part == 10 else 0)  # those before it are kept


def test_an_output_that_exists_or_is_being_written_is_refused(tmp_path: Path) -> None:
    job = Job(write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv", COLUMNS)
    events = predict_table(job, pretend_model())
    next(events)
    with pytest.raises(KitError) as error:
        work(job)
    assert str(error.value) == f"--out {job.out}: another job is writing it; wait until it ends, or use another --out"
    assert len(list(events)) == 6  # the other parts, and the end
    with pytest.raises(KitError) as error:
        work(job)
    assert str(error.value) == f"--out {job.out}: already exists; predictions never overwrite a file, use another --out"
    with pytest.raises(KitError) as error:
        work(replace(job, out=tmp_path / "out.txt"))
    assert str(error.value) == f"--out {tmp_path / 'out.txt'}: a .txt file, expected .csv, .jsonl, .parquet"


def test_a_full_disk_leaves_the_parts_and_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv", COLUMNS)
    written = outputs.Output.write_part

    def full(self: outputs.Output, path: Path, rows: Any) -> None:
        if len(list(job.parts.glob("*.csv"))) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, path, rows)

    with monkeypatch.context() as patch:
        patch.setattr(outputs.Output, "write_part", full)
        with pytest.raises(KitError) as error:
            work(job)
    assert str(error.value) == (
        f"--out {job.out}: cannot be written: No space left on device; finished parts are kept, repeat the command to continue"
    )
    assert not job.out.exists()

    def half(self: outputs.Output, parts: Any, out: Path) -> None:
        out.write_text("half")
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(outputs.Output, "join", half)
        with pytest.raises(KitError):
            work(job)
    assert not job.out.exists()
    assert not (job.parts / "joined").exists()  # or the disk would stay full
    assert work(job).reused == 53


@pytest.mark.parametrize("removed", [0, 1, 5, 11])
def test_a_job_that_died_after_its_last_rename_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int) -> None:
    """However many of its parts it had removed."""
    job = Job(write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv", COLUMNS, skip_errors=True)
    unlink, count = Path.unlink, 0

    def die(self: Path, missing_ok: bool = False) -> None:
        nonlocal count
        if self.parent == job.parts and job.out.exists():
            count += 1
            if count > removed:
                raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            work(job)
    whole = job.out.read_bytes()
    assert list(predict_table(job, pretend_model())) == []
    assert not job.parts.exists()
    assert job.out.read_bytes() == whole


def test_a_job_is_complete_on_a_share_that_keeps_an_open_file_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does, under another name, until it is closed."""
    job = Job(write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv", COLUMNS)
    kept = job.parts / ".nfs0001"
    unlink, close = Path.unlink, os.close

    def renamed(self: Path, missing_ok: bool = False) -> None:
        self.rename(kept) if self == job.parts / "lock" else unlink(self, missing_ok=missing_ok)

    def closed(descriptor: int) -> None:
        close(descriptor)
        unlink(kept, missing_ok=True)

    monkeypatch.setattr(Path, "unlink", renamed)
    monkeypatch.setattr(os, "close", closed)
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)  # nor can it be removed with its folder
    work(job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_an_empty_table_is_refused_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    write(source, ROWS[:1])
    if suffix == ".parquet":
        pa.parquet.write_table(pa.parquet.read_table(source).slice(0, 0), source)
    else:
        source.write_text(source.read_text().splitlines(keepends=True)[0] if suffix == ".csv" else "\n")
    with pytest.raises(KitError) as error:
        work(Job(source, tmp_path / "out.csv", COLUMNS))
    assert str(error.value) == f"in{suffix}: no rows, expected at least one pair"
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_column_that_would_stand_twice_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "ER_predicted": 1} for row in ROWS]
    job = Job(write(tmp_path / "in.csv", rows), tmp_path / "out.csv", COLUMNS)
    with pytest.raises(KitError) as error:
        work(job)
    assert str(error.value) == "in.csv: column 'ER_predicted' is kept and predicted; rename it, or do not keep it"
