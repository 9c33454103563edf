"""A run's name is reserved before the work, its directory appears whole or not at all, and no finished run is thrown away."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made_run import make_record, make_run, written
from run_world import configuration

from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry
from empathy_kit.runs import record
from empathy_kit.runs.record import read, verify
from empathy_kit.runs.reservation import reserved
from empathy_kit.runs.train import Finished, run


def break_off(out: Path, error: BaseException) -> None:
    """Write half of a run, then raise."""

    def half(folder: Path, model: bool) -> None:
        (folder / "half.bin").write_bytes(b"x" * 1000)
        (folder / "model").mkdir()
        raise error

    with reserved(out) as place:
        place.leave(half)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), KitError("a fault")])
def test_an_exception_leaves_nothing_behind_and_stays_itself(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        break_off(tmp_path / "run", error)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


SMALL_DISK = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from made_run import reserved, written
from empathy_kit import KitError
disk, tempfile.tempdir = Path("/mnt"), sys.argv[2]
try:
    with reserved(disk / "run") as place:
        (disk / "filler").write_bytes(bytes(int(sys.argv[3])))
        place.leave(written)
except KitError as error:
    print(f"KitError: {error}")
print(*sorted(path.relative_to(disk).as_posix() for path in disk.rglob("*") if path.name != "filler"))
"""


def on_a_small_disk(temporary: object, filled: int) -> list[str]:
    """Leave a run on a disk of 1 MiB, mounted where only the test sees it: the error, and what is there afterwards."""
    command = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=1m none /mnt || exit 77; exec "$0" "$@"']
    arguments = [sys.executable, "-c", SMALL_DISK, str(Path(__file__).parent), str(temporary), str(filled)]
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, check=False)
    if ran.returncode == 77 or ran.stderr.startswith("unshare:"):
        pytest.skip(f"no disk can be mounted: {ran.stderr.strip()[-200:]}")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
def test_a_finished_run_that_does_not_fit_its_disk_is_left_on_another_and_named(tmp_path: Path) -> None:
    error, there = on_a_small_disk(tmp_path, 0)
    (folder,) = tmp_path.glob("*/run")
    assert error == f"KitError: --out /mnt/run: cannot be written: No space left on device; the finished run is in {folder}"
    assert there == ""
    assert read(folder) == make_record()


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
def test_where_no_disk_has_room_for_the_model_the_rest_of_the_run_is_left() -> None:
    error, there = on_a_small_disk("/mnt", 0)
    assert error == (
        "KitError: --out /mnt/run: cannot be written: No space left on device; the finished run is in /mnt/run, without its model"
    )
    assert there == "run run/history.jsonl run/manifest.json run/predictions.csv run/run.json run/validation.csv"
    assert on_a_small_disk("/mnt", 2**20) == ["KitError: --out /mnt/run: cannot be written: No space left on device", ""]


def test_a_finished_run_whose_share_was_lost_is_left_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "share" / "run"

    def lose(folder: Path, model: bool) -> None:
        if (tmp_path / "share").exists():
            shutil.rmtree(tmp_path / "share")
        written(folder, model)

    with pytest.raises(KitError) as error, reserved(out) as place:
        place.leave(lose)
    (folder,) = tmp_path.glob("empathy-kit-*/run")
    assert str(error.value) == f"--out {out}: cannot be written: No such file or directory; the finished run is in {folder}"
    verify(folder)
    assert not (tmp_path / "share").exists()


def test_a_number_that_json_does_not_have_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_run(tmp_path / "run", make_record(scores={"ER": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def refusal(out: Path) -> str:
    with pytest.raises(KitError) as error, reserved(out):
        pass
    return str(error.value)


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run")
    assert refusal(out) == f"--out {out}: already exists; a run never overwrites another, use another --out"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert read(out) == make_record()


APPEARING: dict[str, Callable[[Path], None]] = {
    "an empty folder": Path.mkdir,  # rename alone would take its place
    "a file": Path.touch,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", APPEARING)
def test_whatever_takes_the_name_meanwhile_is_kept_and_so_is_the_finished_run(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    with reserved(out) as place:
        APPEARING[kind](out)
        (tmp_path / "run-2").mkdir()  # taken as well
        with pytest.raises(KitError) as error:
            place.leave(written)
    third = tmp_path / "run-3"
    assert str(error.value) == f"--out {out}: was taken by something else; the finished run is in {third}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2", "run-3"]
    assert read(third) == make_record()
    assert not (out.is_dir() and list(out.iterdir()))


def test_a_second_run_of_one_name_is_refused_at_once_or_takes_the_next_number(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with reserved(out) as first:
        assert refusal(out) == f"--out {out}: another process is writing it; wait until it ends, or use another --out"
        with reserved(out, numbered=True) as second:
            assert [second.leave(written), first.leave(written)] == [tmp_path / "run-2", out]
    with reserved(out, numbered=True) as third:
        assert third.out == tmp_path / "run-3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from made_run import reserved, written
from empathy_kit import files
def die(path):
    os.kill(os.getpid(), signal.SIGKILL)
def half(folder, model):
    written(folder, model), die(folder)
if sys.argv[3] == "while its files are forced onto the disk":
    files.sync = die
with reserved(Path(sys.argv[2])) as place:
    place.leave(half if sys.argv[3] == "while it writes" else written)
"""


def killed(out: Path, when: str) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(out), when], timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in out.parent.iterdir()] == [f"{out.name}.partial"]


def test_what_a_killed_process_was_writing_is_cleared_away_by_the_next_run_of_any_name(tmp_path: Path) -> None:
    for name in ("run", "another"):
        killed(tmp_path / "run", "while it writes")
        with reserved(tmp_path / name) as place:
            assert [path.name for path in tmp_path.iterdir()] == [f"{name}.partial"]
            assert [path.name for path in place.partial.iterdir()] == [".lock"]
        assert list(tmp_path.iterdir()) == []


def test_a_run_that_only_lacked_its_name_when_its_process_was_killed_gets_it_from_the_next(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for name in ("run", "another"):
        killed(out, "while its files are forced onto the disk")
        if name == "run":
            assert refusal(out) == f"--out {out}: holds the run that was stopped here, which was finished; use another --out"
        else:
            make_run(tmp_path / name)
        assert read(out) == make_record()
        assert not list(tmp_path.glob("*.partial"))
        shutil.rmtree(out)


def test_a_finished_run_that_cannot_be_read_at_the_moment_is_not_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "run", record.sha256
    killed(out, "while its files are forced onto the disk")

    def failing(path: Path) -> str:
        if f"{out.name}.partial" in path.parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(record, "sha256", failing)
        assert refusal(out).endswith(": cannot be read: Input/output error")
        make_run(tmp_path / "another")
    assert refusal(out) == f"--out {out}: holds the run that was stopped here, which was finished; use another --out"
    assert read(out) == make_record()


def test_a_checkpoint_of_a_killed_process_and_somebody_elses_folder_stay(tmp_path: Path) -> None:
    """A folder that reserves a name may hold more than an unfinished result, and then it is for --resume, not for the sweep."""
    for name in ("mine.partial", "old.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint").touch()
    (tmp_path / "old.partial" / ".lock").touch()
    make_run(tmp_path / "run")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*.partial/*")) == [
        "mine.partial/checkpoint",
        "old.partial/.lock",
        "old.partial/checkpoint",
    ]
    assert (
        refusal(tmp_path / "mine") == f"--out {tmp_path / 'mine'}: {tmp_path / 'mine.partial'} is in the way; use another --out"
    )


def test_a_relative_folder_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verify(make_run(Path("runs/x")))
    assert (tmp_path / "runs" / "x" / "run.json").is_file()


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, reason in (("file/run", "Not a directory"), ("n" * 300, "File name too long"), ("n" * 250, "File name too long")):
        out = tmp_path / name  # 250 characters are a name, but not with those of the unfinished folder
        assert refusal(out) == f"--out {out}: cannot be written: {reason}"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_never_starts_leaves_nothing_not_even_parents(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"^a fault$"), reserved(tmp_path / "a" / "b" / "run"):
        raise KitError("a fault")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("new/..", "--out new/..: leads back to a folder above, use another --out"),
        ("a\0b", "--out 'a\\x00b': a NUL byte found, expected a folder's name"),
        (".", "--out .: already exists; a run never overwrites another, use another --out"),
        ("", "--out .: already exists; a run never overwrites another, use another --out"),
    ],
)
def test_what_is_no_name_of_a_new_folder_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(Path(name)) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_without_permission_is_found_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert refusal(tmp_path / "run").endswith("cannot be written: Permission denied")


def test_two_runs_at_once_that_differ_in_nothing_that_their_name_shows_have_two_folders(
    tiny_roberta: Path, tmp_path: Path
) -> None:
    out, registry = tmp_path / "runs" / "sample-ce-none-0", load_registry()
    first = run(configuration(tiny_roberta, lr=1e-3), registry, out, numbered=True)
    next(first)  # it trains
    second = list(run(configuration(tiny_roberta, lr=2e-3), registry, out, numbered=True))
    folders = [events[-1].folder for events in (list(first), second) if isinstance(events[-1], Finished)]
    assert folders == [out, tmp_path / "runs" / "sample-ce-none-0-2"]
    assert [read(folder).config["lr"] for folder in folders] == [1e-3, 2e-3]
    assert sorted(path.name for path in out.parent.iterdir()) == ["sample-ce-none-0", "sample-ce-none-0-2"]


def test_a_finished_run_that_only_lacked_its_name_gets_it_from_another_that_may_be_numbered_and_that_one_is_trained(
    tiny_roberta: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killed(out, "while its files are forced onto the disk")
    *_, finished = run(configuration(tiny_roberta), load_registry(), out, numbered=True)
    assert isinstance(finished, Finished)
    assert finished.folder == tmp_path / "run-2"
    assert read(out) == make_record()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]
