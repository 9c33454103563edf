"""A run's state on disk while it trains: its last two checkpoints, in the folder that reserves its name."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empathy_kit import files
from empathy_kit.errors import KitError

FORMAT = 2
KEPT = 2  # where the newest cannot be read, there is one before it
STATE, TENSORS, MANIFEST = "state.json", "state.safetensors", "manifest.json"
NAME = re.compile(r"checkpoint-(\d{1,9})")

_NICE = 10  # of the thread that hashes: training goes first


class DamagedError(Exception):
    """A checkpoint that is not as it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint whose files are as they were written."""

    folder: Path
    identity: dict[str, Any]  # what the run is, see `identity`
    packed: Any  # the state without its tensors; None before the first step

    def state(self) -> Any:
        """The state, for `TrainState.load_state_dict`."""
        from safetensors.torch import load_file

        from empathy_kit.core.snapshot import unpack

        return unpack(self.packed, load_file(self.folder / TENSORS))


def folders(partial: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    found = []
    with suppress(OSError):
        found = [path for path in partial.iterdir() if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_number, reverse=True)


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint whose every byte is compared with its manifest.

    Raises:
        DamagedError: a file is missing, unreadable or changed.
        KitError: it has another format.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        number, expected = manifest["format"], dict(manifest["sha256"])
        if number == FORMAT:
            for name, digest in expected.items():
                if files.sha256(folder / name) != digest:
                    raise DamagedError(f"{folder.name} is damaged ({name}: its sha256 is not the manifest's)")
            content = json.loads((folder / STATE).read_text(encoding="utf-8"))
            return Checkpoint(folder, content["identity"], content["state"])
    except OSError as error:
        raise DamagedError(f"{folder.name} is damaged ({Path(error.filename or MANIFEST).name}: {error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(f"{folder.name} is damaged ({MANIFEST}: not as a run writes it)") from None
    raise KitError(f"{folder}: format {number!r} found, expected {FORMAT}; continue it with the version that wrote it")


def newest(partial: Path) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The newest checkpoint that is whole, if any, and what is wrong with those after it.

    Raises:
        KitError: there are checkpoints, and none of them is whole, or one has another format.
    """
    faults: list[str] = []
    for folder in folders(partial):
        try:
            return read(folder), tuple(faults)
        except DamagedError as fault:
            faults.append(str(fault))
    if faults:
        raise KitError(f"{partial}: {'; '.join(faults)}; remove that folder to start from the beginning")
    return None, ()


def clear(partial: Path, *, keep: int = 0) -> None:
    """Remove the checkpoints but for the newest few."""
    for folder in folders(partial)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


class Writer:
    """Writes checkpoints. A fault of the disk stops no training: what was written before is kept."""

    def __init__(self, partial: Path, found: Checkpoint | None = None) -> None:
        self.partial = partial
        self.seconds = 0.0  # that training waited for the last one
        self._last = max(map(_number, folders(partial)), default=-1)
        self._whole = [] if found is None else [found.folder]  # oldest first
        self.failed = False  # the last one could not be written
        self._sealing: threading.Thread | None = None
        self._reasons: list[str] = []  # of all that could not
        self._told = False

    @property
    def busy(self) -> bool:
        """Whether the last checkpoint is still being completed."""
        return self._sealing is not None and self._sealing.is_alive()

    def save(self, identity: Mapping[str, Any], state: Mapping[str, Any] | None, *, complete: bool = False) -> None:
        """Write a state; its hashes and the disk's own time are waited for only to make it ``complete``."""
        self.wait()
        started = time.perf_counter()
        self.failed = False
        self._last += 1
        folder = self.partial / f"checkpoint-{self._last}"
        try:
            if not (self.partial / files.LOCK).exists():  # a lost share: its path may be another disk's now
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            with ExitStack() as stack:
                staging = stack.enter_context(files.staged_folder(folder))
                _write(staging, identity, state)
                rest = stack.pop_all()
        except OSError as error:
            self._fail(error)
            return
        if complete:
            self._seal(rest, staging, folder)
        else:
            self._sealing = threading.Thread(target=self._behind, args=(rest, staging, folder))
            self._sealing.start()
        self.seconds = time.perf_counter() - started

    def wait(self) -> None:
        """Wait until the last checkpoint is complete."""
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None

    def fault(self) -> str | None:
        """Why a checkpoint could not be written; asked for again, None."""
        if not self._reasons or self._told:
            return None
        self._told = True
        return self._reasons[0]

    def _fail(self, error: OSError) -> None:
        self.failed = True
        self._reasons.append(str(error.strerror or error))

    def _behind(self, rest: ExitStack, staging: Path, folder: Path) -> None:
        if hasattr(os, "setpriority"):
            with suppress(OSError):  # on Linux of this thread alone
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        self._seal(rest, staging, folder)

    def _seal(self, rest: ExitStack, staging: Path, folder: Path) -> None:
        """The manifest, the disk and the name; then the oldest one is no longer needed."""
        try:
            with rest:
                hashes = {path.name: files.sha256(path) for path in sorted(staging.iterdir())}
                (staging / MANIFEST).write_text(json.dumps({"format": FORMAT, "sha256": hashes}), encoding="utf-8")
            for names in (self.partial, self.partial.absolute().parent):
                files.sync(names, inside=False)
        except OSError as error:
            self._fail(error)
            return
        self._whole.append(folder)
        for old in folders(self.partial):
            if old not in self._whole[-KEPT:]:
                shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, identity: Mapping[str, Any], state: Mapping[str, Any] | None) -> None:
    packed = None
    if state is not None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        from empathy_kit.core.snapshot import pack

        packed, tensors = pack(state)
        try:
            save_file(tensors, folder / TENSORS)
        except SafetensorError as error:  # a full disk is one of these
            raise OSError(str(error)) from error
    (folder / STATE).write_text(json.dumps({"identity": identity, "state": packed}), encoding="utf-8")
