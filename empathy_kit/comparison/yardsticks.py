"""Yardsticks, which a model has to beat: their names, measuring them on each split, and reading them back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empathy_kit.comparison.answers import AnswerTable
from empathy_kit.comparison.statistics import Answers
from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.schema import MISSING, Schema
from empathy_kit.data.splits import Split, take
from empathy_kit.errors import KitError, visible
from empathy_kit.files import write_whole
from empathy_kit.reading import read_regular
from empathy_kit.runs.record import hashed_ids

LIBRARIES = ("scikit-learn", "scipy")
"""The libraries that a yardstick's numbers depend on."""

FOLDER, MANIFEST, FORMAT = "yardsticks", "manifest.json", 1
MAJORITY, SWAPPED = "majority", "-swapped"  # in the tables, as are
TFIDF = {"tfidf": False, "tfidf-balanced": True}  # yardstick to whether it balances classes
TITLES = {
    MAJORITY: "majority class",
    "tfidf": "TF-IDF + logistic regression, response only",
    "tfidf-balanced": "the same, classes balanced",
}


def is_yardstick(name: str) -> bool:
    """Whether a name is a yardstick's, or would be read as one."""
    return name.lower() in TITLES or name.lower().endswith(SWAPPED)


@dataclass(frozen=True)
class _Manifest:
    """The hashes of what was measured, and why the rest was not."""

    format: int = FORMAT
    sha256: dict[str, str] = field(default_factory=dict)  # file to its hash
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)  # file to task to why
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  # file to library to its version; unknown of earlier files

    @classmethod
    def read(cls, folder: Path) -> _Manifest:
        """The manifest of a folder; empty for folders of earlier versions, which had none.

        Raises:
            KitError: it cannot be read.
        """
        path = folder / MANIFEST
        if not path.exists():
            return cls()
        try:
            content = {"versions": {}, **json.loads(read_regular(path).decode("utf-8-sig"))}
            hashes = {str(name): str(value) for name, value in content["sha256"].items()}
            why, versions = (_nested(content[part]) for part in ("left_out", "versions"))
            known = content["format"] == FORMAT
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            known = False
        if not known:
            raise KitError(f"{path}: unreadable; delete {folder} and run `empathy-kit compare` to measure it again")
        return cls(FORMAT, hashes, why, versions)


def _nested(content: Any) -> dict[str, dict[str, str]]:
    return {str(name): {str(key): str(value) for key, value in each.items()} for name, each in content.items()}


def measure(corpus: Corpus, splits: Iterable[Split], out: Path) -> None:
    """Measure TF-IDF and logistic regression on the responses of each split; existing unchanged files are kept.

    They are fitted on the labelled training pairs of each task and predict all test pairs. A task that cannot be fitted is
    left out, and the manifest has the reason.

    Raises:
        KitError: the folder cannot be written.
    """
    folder = out / FOLDER
    manifest = _Manifest.read(folder)
    ids: Sequence[str] = ()
    for split in splits:
        for name, balanced in TFIDF.items():
            path = folder / f"{name}-{split.seed}.csv"
            if path.exists() and manifest.sha256.get(path.name) == _sha256(path):
                continue
            ids = ids or hashed_ids(corpus)
            columns, why = _predict(corpus, split, ids, balanced=balanced)
            try:
                folder.mkdir(exist_ok=True)
                write_whole(path, "".join(",".join(row) + "\n" for row in zip(*columns, strict=True)))
                manifest.sha256[path.name] = _sha256(path)
                manifest.left_out.pop(path.name, None)
                if why:
                    manifest.left_out[path.name] = why
                manifest.versions[path.name] = {name: version(name) for name in LIBRARIES}
                write_whole(folder / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
            except OSError as error:
                raise KitError(f"{path}: cannot be written: {error.strerror}") from None


def _predict(corpus: Corpus, split: Split, ids: Sequence[str], *, balanced: bool) -> tuple[list[list[str]], dict[str, str]]:
    """The rows of a yardstick's file, header first, and why tasks are missing from it."""
    train, test = take(corpus, split.train), take(corpus, split.test)
    columns = [["id", *(ids[position] for position in split.test)]]
    left_out = {}
    for index, task in enumerate(corpus.schema.names):
        chances = _learn(train, test, index, len(corpus.schema.tasks[index].labels), balanced=balanced)
        if isinstance(chances, str):
            left_out[task] = chances
            continue
        columns.append([f"{task}_true", *("" if pair.levels[index] == MISSING else str(pair.levels[index]) for pair in test)])
        columns.append([f"{task}_predicted", *map(str, chances.argmax(1).tolist())])
        columns += [[f"{task}_p{level}", *(f"{value:.6f}" for value in each)] for level, each in enumerate(chances.T.tolist())]
    return columns, left_out


def _learn(
    train: Sequence[Pair], test: Sequence[Pair], index: int, classes: int, *, balanced: bool
) -> NDArray[np.float64] | str:  # (N, C)
    """The probabilities of a task's levels for all test pairs, or why there are none."""
    from empathy_kit.core.baselines import tfidf_probabilities

    labelled = [pair for pair in train if pair.levels[index] != MISSING]
    levels = np.array([pair.levels[index] for pair in labelled], dtype=np.int64)
    if len(set(levels.tolist())) < 2:
        return "its training pairs have fewer than two labels"
    if all(pair.levels[index] == MISSING for pair in test):
        return "no test pair is labelled"
    texts, wanted = [pair.response for pair in labelled], [pair.response for pair in test]
    try:
        return tfidf_probabilities(texts, levels, wanted, classes, balanced=balanced)
    except ValueError as error:  # from scikit-learn, where there is no word at all or none in two texts
        if not str(error).startswith(("empty vocabulary", "After pruning, no terms remain")):
            raise
        return "no word occurs in two training responses"


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_regular(path)).hexdigest()
    except OSError as error:
        raise KitError(f"{path}: cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Yardsticks:
    """The yardsticks that were measured."""

    answers: dict[str, dict[int, dict[str, Answers]]]  # yardstick to split seed to task to answers
    left_out: list[str]  # sentences on what is missing, and why
    remarks: list[str]  # sentences on files that may not belong together


def read(out: Path, split_seeds: Iterable[int], tasks: Schema) -> Yardsticks:
    """Read what was measured on some splits.

    Raises:
        KitError: a file was changed after it was measured, or is not a table of predictions.
    """
    folder = out / FOLDER
    manifest = _Manifest.read(folder)
    answers: dict[str, dict[int, dict[str, Answers]]] = {}
    lacking: dict[str, list[int]] = {}  # what is missing and why, to the seeds of the splits
    for seed in sorted(set(split_seeds)):
        for name in TFIDF:
            path = folder / f"{name}-{seed}.csv"
            if not path.exists():
                lacking.setdefault(f"{name} was not measured", []).append(seed)
                continue
            if manifest.sha256 and manifest.sha256.get(path.name) != _sha256(path):  # an earlier version wrote no manifest
                raise KitError(
                    f"{path}: changed after it was measured (sha256 differs from {MANIFEST}); delete it and run "
                    "`empathy-kit compare` to measure it again"
                )
            why = manifest.left_out.get(path.name, {})
            for task in tasks.names:
                if task in why:
                    lacking.setdefault(f"{name} has nothing for {task}: {why[task]}", []).append(seed)
            table = AnswerTable(path)
            found = {task.name: table.answers(task) for task in tasks.tasks if task.name not in why}
            if found:
                answers.setdefault(name, {})[seed] = found
    left_out = [f"{what} (split {', '.join(map(str, seeds))})." for what, seeds in lacking.items()]
    measured = [f"{name}-{seed}.csv" for name, by_seed in answers.items() for seed in by_seed]
    return Yardsticks(answers, left_out, list(_differing(manifest, measured)))


def _differing(manifest: _Manifest, files: Iterable[str]) -> Iterator[str]:
    versions = [manifest.versions.get(file, {}) for file in files]
    for library in LIBRARIES:
        found = sorted({visible(each[library]) for each in versions if library in each})
        if len(found) > 1:
            several = ", ".join(found)
            yield f"The yardsticks were measured with different versions of {library} ({several}), whose numbers may differ."
