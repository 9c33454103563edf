"""The model of a server: what is told of it, and whether it can still be relied on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from empathy_kit import __version__
from empathy_kit.data.cells import MAX_CELL
from empathy_kit.errors import KitError
from empathy_kit.inference.model import EmpathyModel, digest
from empathy_kit.runs.record import MANIFEST
from empathy_kit.service.messages import MOST_BYTES, MOST_PAIRS, UNCERTAIN

WARM = ("I do not know what to do any more.", "That sounds very hard. What happened? " * 40)


@dataclass
class Served:
    """The model of a server."""

    model: EmpathyModel
    folder: Path | None  # None where nothing can change it: the cache of a published model
    stopping: bool = False
    broken: bool = False  # nothing computes any more: the server has to end

    def __post_init__(self) -> None:
        self._stamps = None if self.folder is None else _stamps(self.folder)

    def stop(self) -> None:
        """Tell balancers to send nothing more. What still comes is answered."""
        self.stopping = True

    @cached_property
    def marks_evidence(self) -> bool:
        """Whether the model has a span head. Asked of the model itself, which is warm afterwards."""
        found = [each for length in (1, 4) for each in self.model.predict([WARM] * length)]
        return any(task.evidence is not None for task in found[0].tasks.values())

    @property
    def changed(self) -> bool:
        """Whether the folder holds another model by now; the server answers with the one that it loaded."""
        if self.folder is None:
            return False
        try:
            return digest(self.folder) != self.model.digest or self._stamps is None or _stamps(self.folder) != self._stamps
        except OSError:
            return True

    @cached_property
    def described(self) -> dict[str, Any]:
        """What `/v1/model` answers of the model that was loaded. Paths in the record are cut to their last part."""
        from empathy_kit.inference.card import without_paths

        model = self.model
        return {
            "schema": model.schema.to_dict(),
            "digest": model.digest,
            "kit": __version__,
            "reads_seekers": model.reads_seekers,
            "marks_evidence": self.marks_evidence,
            "max_tokens": model.tokenization.max_tokens,
            "truncate": model.tokenization.truncate,
            "precision": model.about.get("precision"),  # of an export; a run's own is in its record
            "uncertain_below": UNCERTAIN,
            "limits": {"pairs": MOST_PAIRS, "characters": MAX_CELL, "bytes": MOST_BYTES},
            "temperatures": dict(model.temperatures),
            "warnings": list(model.warnings),
            "record": without_paths(dict(_record(model))),
        }

    def card(self) -> str:
        """The model card, made from the record.

        Raises:
            KitError: the record is of an earlier version, which has too little for it.
        """
        from empathy_kit.inference.card import of_export, published, write_card
        from empathy_kit.runs.record import Record

        try:
            found = Record(**_record(self.model))
        except TypeError:
            raise KitError("the model has no record that a card can be made of; train or export it with this version") from None
        about = self.model.about
        name = about["hub"].partition("@")[0] if "hub" in about else None
        return write_card(published(found), name, licence=None, export=of_export(about) if "record" in about else None)


def _stamps(folder: Path) -> dict[str, tuple[int, int]] | None:
    """Sizes and times of the files that a manifest lists; None where one is missing. To read them all would take too long."""
    try:
        names = json.loads((folder / MANIFEST).read_bytes())["sha256"]
        found = {name: (folder / name).stat() for name in names}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {name: (each.st_size, each.st_mtime_ns) for name, each in found.items()}


def _record(model: EmpathyModel) -> Mapping[str, Any]:
    """The run's record: the description of a run itself, or within that of an exported model."""
    found = model.about.get("record", model.about)
    return {name: value for name, value in found.items() if name != "hub"}
