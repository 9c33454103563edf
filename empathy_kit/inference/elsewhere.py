"""What `empathy-kit evaluate --json` printed of a model, read for its card."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empathy_kit.errors import KitError
from empathy_kit.reading import read_regular
from empathy_kit.runs.report import HEADLINE

SCORES = (*(key for key, _ in HEADLINE), "kappa")


@dataclass(frozen=True)
class Elsewhere:
    """A model's scores on labelled pairs that are not its run's test part."""

    data: str
    sha256: str  # of everything that the kit read from the data
    scored: int  # pairs
    seen: int | None  # of them, how many seeker posts the model was trained or validated on; None where nobody knows
    tasks: Mapping[str, Mapping[str, Any]]  # task to its scores as in a record: "n", and `SCORES` with their intervals


def read_evaluation(path: Path, digest: str) -> Elsewhere:
    """Read one evaluation.

    Args:
        path: the file.
        digest: the sha256 of the model folder's manifest: the evaluation must be of this model.

    Raises:
        KitError: it cannot be read, is something else, or is of another model.
    """
    try:
        found = json.loads(read_regular(path))
        scored, unseen = _count(found["scored"]), found["unseen"]
        read = Elsewhere(
            data=_text(found["data"]),
            sha256=_text(found["sha256"], "[0-9a-f]{64}"),
            scored=scored,
            seen=None if unseen is None else max(scored - _count(unseen), 0),
            tasks={name: _scores(task["scores"]) for name, task in found["tasks"].items()},
        )
        of = _text(found["digest"])
    except OSError as error:
        raise KitError(f"--evaluation {path}: cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # others may have written it
        raise KitError(f"--evaluation {path}: expected what `empathy-kit evaluate MODEL DATA --json` prints") from None
    if of != digest:
        raise KitError(
            f"--evaluation {path}: of another model (sha256 {of[:12]}) than the published one ({digest[:12]}); "
            "evaluate the folder that is published"
        )
    return read


def _scores(found: Any) -> dict[str, Any]:
    kept: dict[str, Any] = {"n": _count(found["n"])}
    for key in SCORES:
        score = found[key]
        kept[key] = (
            None if score is None and key == "kappa" else {bound: _finite(score[bound]) for bound in ("value", "low", "high")}
        )
    return kept


def _text(value: Any, pattern: str = ".*") -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
        raise ValueError
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)
