"""The run directory: it appears whole or not at all, and later changes are detected."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from empathy_kit.config import ADDED, RunConfig, configure, to_dict
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.schema import Schema
from empathy_kit.errors import KitError, shown
from empathy_kit.files import sha256
from empathy_kit.reading import read_regular

FORMAT = 3
RUN, MANIFEST, HISTORY, MODEL = "run.json", "manifest.json", "history.jsonl", "model"
CALIBRATION = "calibration.json"  # in the model's folder
CARD = "README.md"  # of a published model
UNLISTED = (MANIFEST, CARD, ".gitattributes")  # the card and the hub's own file: nothing reads them, and both may be edited there
PREDICTIONS, VALIDATION = "predictions.csv", "validation.csv"  # of the test part, and of the part that chose the epoch


class Damaged(KitError):  # noqa: N818 - as in `runs list`
    """A file of a run is missing, was added, or has other bytes than the manifest lists."""


class Unreadable(KitError):  # noqa: N818
    """A file of a run cannot be read at the moment, so nothing is known of its bytes."""


@dataclass(frozen=True)
class Record:
    """Everything that is recorded about one run; ``run.json`` holds exactly this."""

    format: int
    kit: str  # version
    oracle: bool  # gold spans were seen at inference
    config: dict[str, Any]  # every setting, and the plugins' options including defaults
    plugins: dict[str, dict[str, str]]  # kind to name, distribution and version
    versions: dict[str, str]  # of Python and the libraries that compute
    machine: dict[str, Any]
    data: dict[str, Any]
    split: dict[str, Any]
    encoder: dict[str, str]  # name, and sha256 of weights, settings and tokenizer
    truncation: dict[str, Any]
    training: dict[str, Any]  # what happened; own_criterion: the heads brought their loss, and config's was not used
    scores: dict[str, Any]  # task to core.metrics.Scores
    spans: dict[str, Any] | None  # task to core.metrics.SpanScores
    # Task to its temperature, fitted on the validation part, and the test part's calibration error without it and with it.
    calibration: dict[str, dict[str, float]] | None = None  # None in runs of earlier versions
    # Parameters, how many of them are trained, the bytes of all weights, and the test part's pairs per second: without
    # frozen layers where their states were computed once, which is on a CPU, for encoders that are read without padding.
    model: dict[str, Any] | None = None  # None in runs of earlier versions

    @property
    def schema(self) -> Schema:
        """The tasks of the data."""
        return Schema.from_dict(self.config["schema"])

    @property
    def tasks(self) -> Schema:
        """The tasks that the model was trained and scored on."""
        return self.schema.select(self.config["tasks"])

    @property
    def title(self) -> str:
        """What the run is called in tables; an oracle is called one."""
        head, rationale = self.config["head"], self.config["rationale"]
        own = self.training.get("own_criterion", False)
        parts = [*([] if own else [self.config["loss"]]), *([] if head == "linear" and not own else [f"{head} head"])]
        if self.config["trunk"] != "gru":
            parts.append(f"{self.config['trunk']} trunk")
        if self.config["sampler"] != "all":
            parts.append(f"{self.config['sampler']} sampling")
        if rationale != "none":
            parts.append(rationale)
        if self.config["tasks"] is not None:
            parts.append(f"{', '.join(self.config['tasks'])} only")
        if self.config["posts"] == "response":
            parts.append("response only")
        if (share := float(self.config["train_share"])) < 1:
            parts.append(f"{100 * share:g} % of the seekers")
        return " + ".join(parts) + (" (ORACLE)" if self.oracle else "")


def hashed_ids(corpus: Corpus) -> list[str]:
    """One opaque id per pair, the same in every run on this data.

    The ids of the Reddit data identify people, and there are few enough to try them all. So the hashes are keyed by a hash of the
    whole corpus, which is not stored and which only holders of the corpus can compute.
    """
    digest = hashlib.sha256(b"empathy-kit ids")
    for pair in corpus.pairs:
        digest.update(f"{pair.pair_id}\0{pair.seeker}\0{pair.response}\0".encode())
    key = digest.digest()
    return [hmac.digest(key, f"{pair.row}:{pair.pair_id}".encode(), "sha256").hex()[:16] for pair in corpus.pairs]


def write(
    folder: Path,
    record: Record,
    history: Sequence[Mapping[str, Any]],
    *,
    predictions: list[list[str]],
    validation: list[list[str]],
) -> None:
    """Write all of a run but its model into a staged folder; each table has its header first."""
    _write_json(folder / RUN, asdict(record))
    (folder / HISTORY).write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")
    for name, table in ((PREDICTIONS, predictions), (VALIDATION, validation)):
        rows = "".join(",".join(row) + "\n" for row in table)  # numbers and hashes: nothing to quote
        (folder / name).write_text(rows, encoding="utf-8")


def read_history(folder: Path, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """The epochs of a finished run, first to last: what `core.state.Epoch` holds, and ``steps`` only where the run wrote it.

    Raises:
        KitError: the file is missing, empty, or not as a run writes it.
    """
    path = folder / HISTORY
    try:
        history: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines()]
        for epoch in history:
            for value in (epoch["validation_loss"], *(epoch["validation_macro_f1"][task] for task in tasks)):
                check_type(value, int | float)
                math.floor(value)  # raises where it is not finite
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        history = []
    if not history:
        raise KitError(f"{path}: expected a line for each epoch, with its validation_loss and validation_macro_f1")
    return history


def write_temperatures(model: Path, record: Record) -> None:
    """Write the temperatures, which calibrate the model's probabilities, into the model's folder."""
    temperatures = {task: found["temperature"] for task, found in (record.calibration or {}).items()}
    _write_json(model / CALIBRATION, {"temperatures": temperatures})


def read(folder: Path, *, model: bool = True) -> Record:
    """The record of a finished run; without its model, only the other files are compared with the manifest.

    Raises:
        Damaged, Unreadable: as `verify`.
        KitError: the files are whole, but the record is not one that this version reads.
    """
    verify(folder, model=model)
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8-sig"))
        number = content["format"]
        if number != FORMAT:
            raise KitError(f"{folder / RUN}: format {shown(number)} found, expected {FORMAT}")
        content = {**dict.fromkeys(LATER), **content, "config": complete(content["config"])}
        found = Record(**{entry.name: content[entry.name] for entry in fields(Record)})
        _check(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise KitError(f"{folder / RUN}: {MALFORMED}") from None
    try:
        found.schema.select(configure(RunConfig(), found.config).tasks)
    except KitError as error:
        raise KitError(f"{folder / RUN}: {error}") from None
    return found


def read_with_model(folder: Path) -> Record:
    """The record of a finished run that has a model; a comparison keeps those of its runs only where it is asked to.

    Raises:
        KitError: as `read`, or there is no model.
    """
    found = read(folder)
    if not (folder / MODEL).is_dir():
        again = f"empathy-kit run --config {folder / RUN} --out NEW"
        raise KitError(f"{folder}: the run has no model; `{again}` repeats it and keeps its model")
    return found


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings, with the defaults of those that earlier versions did not record, in the order of today."""
    return {**{name: value for name, value in to_dict(RunConfig()).items() if name in ADDED or name in settings}, **settings}


LATER = ("calibration", "model")  # parts that runs of earlier versions of this format lack
MALFORMED = "parts are missing, or are not as a run writes them"


def _check(found: Record) -> None:
    """Check the types of a record's parts; any exception means that one is wrong."""
    for name, kind in get_type_hints(Record).items():
        check_type(getattr(found, name), dict | None if name in ("spans", *LATER) else get_origin(kind) or kind)
    if missing := to_dict(RunConfig()).keys() - found.config.keys():
        raise KeyError(*missing)
    for value in (found.config["options"], *found.plugins.values()):
        check_type(value, dict)
    for value in (
        found.data["sha256"],  # by these three, what is compared knows that it may be
        found.split["sha256"],
        found.encoder["sha256"],
        *found.versions.values(),
        *found.encoder.values(),
        *(part for entry in found.plugins.values() for part in entry.values()),
    ):
        check_type(value, str)
    for entry in found.plugins.values():
        for part in ("name", "distribution", "version"):
            entry[part]


def check_type(value: Any, kind: Any) -> None:
    """Raise a TypeError where a JSON value has another type; True is not a number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise TypeError(str(kind))


def verify(folder: Path, *, model: bool = True) -> None:
    """Compare a run's files with its manifest; with ``model=False`` the model's files are skipped and may be missing.

    Raises:
        Damaged: there is no folder or no manifest, a file is missing, added or changed, or there is a link out of the folder.
        Unreadable: a file or a folder cannot be read.
    """
    try:
        expected = json.loads(read_regular(folder / MANIFEST).decode("utf-8-sig"))["sha256"]
        check_type(expected, dict)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        if not os.path.lexists(folder):
            raise Damaged(
                f"{folder}: no such folder, expected a finished run; `empathy-kit runs list` shows those of runs/"
            ) from None
        raise Damaged(f"{folder}: not a finished run: {MANIFEST} is missing or unreadable") from None
    except OSError as error:
        raise Unreadable(f"{folder / MANIFEST}: cannot be read: {error.strerror or error}") from None
    try:
        found = _hashes(folder, model=model)
    except OSError as error:
        raise Unreadable(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None
    if not model:
        expected = {name: value for name, value in expected.items() if not name.startswith(f"{MODEL}/")}
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise Damaged(f"{folder / name}: missing, but the manifest lists it")
        if name not in expected:
            raise Damaged(f"{folder / name}: not in the manifest; it was added after the run")
        if found[name] != expected[name]:
            raise Damaged(f"{folder / name}: changed after the run (sha256 differs from the manifest)")


def _hashes(folder: Path, *, model: bool = True) -> dict[str, str]:
    hashes = {}
    for path in sorted(_inside(folder)):
        if path.is_symlink() and not _stays(path, folder):
            raise Damaged(f"{path}: a link out of this folder found, expected the file itself")
        if not model and folder / MODEL in path.parents:
            continue
        name = path.relative_to(folder).as_posix()
        if not path.is_file() and not path.is_dir():  # nor would a copy of it have what it holds
            raise Damaged(f"{path}: not a regular file, expected one that a run writes")
        if path.is_file() and name not in UNLISTED:
            hashes[name] = sha256(path)
    return hashes


def _inside(folder: Path) -> Iterator[Path]:
    """All that is in a folder; `Path.rglob` passes over a folder that cannot be listed, as if its files were missing."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in (*folders, *names))


def _stays(link: Path, folder: Path) -> bool:
    """Whether a link leads to something in the same folder, or to where the hub's client keeps the files of its snapshots."""
    home, target = folder.resolve(), link.resolve()
    blobs = home.parent.parent / "blobs"
    return target.is_relative_to(home) or (home.parent.name == "snapshots" and target.parent == blobs)


def to_json(content: Mapping[str, Any]) -> str:
    """A value as JSON text, as in the files of a run."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def seal(folder: Path) -> None:
    """Write the manifest of a complete run folder."""
    _write_json(folder / MANIFEST, {"format": FORMAT, "sha256": _hashes(folder)})


def refuse_inside(option: str, out: Path, folder: Path | str) -> None:
    """Check that nothing will be written into a model's folder, whose manifest lists all that may be there.

    Raises:
        KitError: the place is inside of the folder.
    """
    if "\0" in f"{out}{folder}":  # which no path has; what reads or writes it says so
        return
    place, held = (Path(os.path.realpath(each)) for each in (out, folder))
    if place.is_relative_to(held) and (held / MANIFEST).exists():
        raise KitError(f"{option} {out}: is inside of {folder}, which would count as changed; use a place outside of it")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(to_json(content), encoding="utf-8")
