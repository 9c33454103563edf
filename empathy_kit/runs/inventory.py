"""The runs in a folder: which there are, what state each is in, how much disk it takes; and how one is deleted."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empathy_kit import files
from empathy_kit.errors import KitError
from empathy_kit.reading import read_regular
from empathy_kit.runs import record
from empathy_kit.runs.reservation import RESULT

PLAN, RUNS = "comparison.json", "runs"  # of a comparison's folder: its plan, and the folder with its runs
FINISHED, DAMAGED, UNFINISHED, TRAINING = "finished", "damaged", "unfinished", "in training"
NEWER = "newer kit"  # every byte is the one that was written, but this version of the kit cannot read the record
UNREADABLE = "unreadable"  # a file cannot be read at the moment
METRICS = ("accuracy", "weighted_f1", "macro_f1")
_WRITTEN = {record.RUN, record.HISTORY, record.MODEL, record.PREDICTIONS, record.VALIDATION, *record.UNLISTED}


@dataclass(frozen=True)
class Found:
    """One folder, and what it turned out to be."""

    path: Path
    state: str  # one of the six
    problem: str  # why it is damaged or cannot be read; empty otherwise
    record: record.Record | None  # of a finished run
    size: int  # bytes
    changed: float  # when its newest file was written, in seconds since the epoch

    @property
    def scores(self) -> dict[str, dict[str, float | None]]:
        """Task to the headline scores of the test part; None where a score is undefined."""
        return {} if self.record is None else scores_of(self.record)


def scores_of(about: record.Record) -> dict[str, dict[str, float | None]]:
    """Task to the headline scores of the test part; None where a score is undefined."""
    return {task: {name: _value(scores[name]) for name in METRICS} for task, scores in about.scores.items()}


def _value(score: Any) -> float | None:
    if score is None:
        return None
    value = float(score["value"])
    if not math.isfinite(value):
        raise ValueError("a score that is no finite number")
    return value


def find(folder: Path, *, model: bool = False) -> list[Found]:
    """Every run in a folder, sorted by path: the folder itself, its subfolders, and the runs of comparisons.

    Args:
        folder: a run, a comparison, or a folder that holds runs or comparisons.
        model: also compare the models' files with the manifests, which takes longer.

    Raises:
        KitError: the folder does not exist or cannot be read.
    """
    try:
        return [look(path, model=model) for path in _runs(folder)]
    except NotADirectoryError:
        raise KitError(f"{folder}: a file found, expected a folder with runs") from None
    except FileNotFoundError:
        raise KitError(f"{folder}: no such folder, expected a folder with runs") from None
    except OSError as error:
        raise KitError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None


def look(path: Path, *, model: bool = False) -> Found:
    """What one run's folder is; as `find`, but any folder is taken for a run.

    Raises:
        OSError: it cannot be read.
    """
    size, changed = _measured(path)
    if path.name.endswith(files.PARTIAL):
        held = files.is_held(path)
        problem = "" if held else _unnamed(path / RESULT)
        return Found(path, TRAINING if held else UNFINISHED, problem, None, size, changed)
    try:
        about = record.read(path, model=model)
    except KitError as error:
        state = DAMAGED if isinstance(error, record.Damaged) else UNREADABLE if isinstance(error, record.Unreadable) else NEWER
        return Found(path, state, str(error), None, size, changed)
    if not _has_scores(about):
        return Found(path, NEWER, f"{path / record.RUN}: {record.MALFORMED}", None, size, changed)
    return Found(path, FINISHED, "", about, size, changed)


def _unnamed(result: Path) -> str:
    """Why an unfinished run must not be deleted: it is finished, or cannot be read at the moment. Empty where it may be."""
    try:
        record.verify(result)
    except record.Damaged:
        return ""
    except record.Unreadable as error:
        return str(error)
    # Its process was killed between the last byte and the name.
    return f"{result}: a finished run that only lacks its name; the next run in this folder gives it"


def _has_scores(about: record.Record) -> bool:
    """Whether the scores that a list shows are as a run writes them."""
    try:
        for scores in about.scores.values():
            for name in METRICS:
                _value(scores[name])
        record.check_type(about.data["name"], str)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return True


def _runs(folder: Path) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
        return
    inside = sorted(folder.iterdir())
    if (folder / PLAN).is_file():
        inside = sorted((folder / RUNS).iterdir()) if (folder / RUNS).is_dir() else []
    for path in inside:
        try:
            run, comparison = _is_run(path), path.is_dir() and (path / PLAN).is_file()
        except PermissionError:  # another user's, whatever it is
            continue
        if run:
            yield path
        elif comparison:
            yield from _runs(path)


def _is_run(path: Path) -> bool:
    """Whether a folder has the files of a run, or reserves the name of one."""
    if path.name.endswith(files.PARTIAL):
        return (path / files.LOCK).is_file() and not path.name.startswith(".")
    return (path / record.RUN).is_file() or record.RUN in _listed(path)


def named(path: Path) -> Found:
    """A run that somebody wants to delete by its name.

    Raises:
        KitError: it is certainly no run of the kit's, or another process is writing it.
    """
    spared = "nothing was deleted"
    if path.is_symlink():
        raise KitError(f"{path}: a link found, expected a run's own folder; {spared}")
    if not path.is_dir() or not _is_ours(path):
        inside = len(find(path)) if path.is_dir() and not _is_run(path) else 0
        advice = f"it holds {inside}: name them, or use --damaged or --unfinished" if inside else "expected the folder of one"
        raise KitError(f"{path}: not a run of empathy-kit, {advice}; {spared}")
    found = look(path)
    if found.state == TRAINING:
        raise KitError(f"{path}: another process is writing it; {spared}")
    return found


def prunable(found: Sequence[Found], *, damaged: bool, unfinished: bool, before: float) -> tuple[list[Found], list[str]]:
    """The damaged and the unfinished runs that may be deleted, and sentences on those that are left alone.

    What is no more than named like a run may be somebody's own folder. Files that were added to a run may be somebody's notes.

    Args:
        found: the runs.
        damaged: whether to take the damaged ones.
        unfinished: whether to take the unfinished ones.
        before: seconds since the epoch; an unfinished run that changed later is left alone.
    """
    doomed, spared = [], []
    for each in found:
        if unfinished and each.state == TRAINING:
            spared.append(f"{each.path}: another process is writing it")
        elif unfinished and each.state == UNFINISHED and each.changed <= before:
            if each.problem:
                spared.append(each.problem)
            elif each.path.is_symlink():
                spared.append(f"{each.path}: a link found, expected a run's own folder; name the folder that it leads to")
            else:
                doomed.append(each)
        elif damaged and each.state == UNREADABLE:
            spared.append(each.problem)
        elif damaged and each.state == DAMAGED:
            if each.path.is_symlink() or not _is_ours(each.path):
                spared.append(f"{each.path}: not certainly a run of empathy-kit; delete it yourself")
            elif own := _added(each.path):
                spared.append(
                    f"{each.path}: has files that no run writes ({', '.join(own)}); name the run to delete them with it"
                )
            else:
                doomed.append(each)
    return doomed, spared


def _is_ours(path: Path) -> bool:
    """Whether a folder is certainly a run: its manifest or its record is what the kit writes, or a lock reserves its name."""
    if path.name.endswith(files.PARTIAL):
        return _is_run(path)
    return record.RUN in _listed(path) or {"format", "kit", "config", "scores"} <= _json(path / record.RUN).keys()


def _added(path: Path) -> list[str]:
    """Files in a run's folder that no run writes and its manifest does not list."""
    known = _listed(path)
    names = (each.relative_to(path).as_posix() for each in sorted(path.rglob("*")) if not each.is_dir())
    return [
        name
        for name in names
        if name not in known and (known or name.partition("/")[0] not in _WRITTEN) and name not in record.UNLISTED
    ]


def delete(found: Found) -> None:
    """Delete a run. It vanishes at once, so that no process ever sees half of it.

    Raises:
        KitError: another process is writing it, or it cannot be deleted.
    """
    path = found.path
    try:
        if path.name.endswith(files.PARTIAL):
            if not files.remove_abandoned(path):
                raise KitError(f"{path}: another process is writing it; wait until it ends")
            return
        staging = files.staging_name(path.resolve())  # "." has no name
        path.resolve().rename(staging)
        shutil.rmtree(staging)
    except OSError as error:
        raise KitError(f"{path}: cannot be deleted: {error.strerror or error}") from None


def _measured(path: Path) -> tuple[int, float]:
    """Bytes of all files, and when the newest was written."""
    size, changed = 0, path.stat().st_mtime
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):  # it is being written, or has just been deleted
                state = Path(parent, name).lstat()
                size, changed = size + state.st_size, max(changed, state.st_mtime)
    return size, changed


def _listed(path: Path) -> dict[str, Any]:
    """What a manifest lists; empty where it is missing or damaged."""
    found = _json(path / record.MANIFEST).get("sha256")
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def amount(size: float) -> str:
    """A number of bytes for people: ``88.1 MiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def as_value(found: Found) -> dict[str, Any]:
    """What is known of a run, as JSON has it."""
    about = found.record
    known = {} if about is None else {
        "title": about.title,
        "oracle": about.oracle,
        "data": about.data.get("name"),
        "seed": about.config["seed"],
        "kit": about.kit,
    }  # fmt: skip
    return {
        "path": str(found.path),
        "state": found.state,
        "problem": found.problem or None,
        **known,
        "scores": found.scores,
        "bytes": found.size,
        "changed": round(found.changed),
    }
