"""One finished run of a comparison, read back for a report; or the runs of one model per task, taken together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from empathy_kit.builtin.rationales import empathy_kit_rationales
from empathy_kit.comparison.answers import AnswerTable
from empathy_kit.comparison.plan import run_folder
from empathy_kit.comparison.statistics import Answers
from empathy_kit.core.metrics import confusion_matrix
from empathy_kit.data.schema import TaskSchema
from empathy_kit.data.splits import PARTS
from empathy_kit.errors import KitError, shown
from empathy_kit.plugins import KINDS
from empathy_kit.runs import record

Floats = NDArray[np.float64]
T = TypeVar("T")
_ENDLESS = 1e15  # more than any number of parameters, bytes or seconds


@dataclass(frozen=True)
class Run:
    """What a report needs of a configuration with one seed: of one finished run, or of one per task."""

    name: str
    seed: int
    record: record.Record
    history: list[dict[str, Any]]  # of the run; empty where there are several
    answers: dict[str, Answers]  # task to its predictions
    swapped: dict[str, Answers] | None  # predictions with another pair's seeker post; None where they were not made
    probabilities: dict[str, Floats]  # task to (N, C), for the same labelled pairs as its answers
    validation: dict[str, Answers]  # predictions of the validation part
    parts: tuple[Run, ...] = ()  # the runs, where each task has a model of its own; the record is then of all of them together

    @property
    def models(self) -> tuple[Run, ...]:
        """The runs, each with its own model."""
        return self.parts or (self,)

    @property
    def title(self) -> str:
        """What it is called in tables."""
        return f"{self.record.title}, one model per task" if self.parts else self.record.title


def read_run(folder: Path, model: str, seed: int) -> Run:
    """Read one finished run of a comparison.

    Raises:
        KitError: the run was changed, or lacks something.
    """
    where = run_folder(folder, model, seed)
    found = record.read(where, model=False)
    try:
        tasks = found.tasks.tasks
        _check_parts(found)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise KitError(f"{where / record.RUN}: {record.MALFORMED}") from None
    _check_plugins(where, found)
    _check_sums(where, found)
    history = record.read_history(where, [task.name for task in tasks])
    table = AnswerTable(where / record.PREDICTIONS)
    answers, probabilities = _read_answers(table, tasks)
    _check_part(where, found, "test", table, answers)
    others = AnswerTable(where / record.VALIDATION)
    if both := set(others.ids) & set(table.ids):
        raise KitError(f"{others.path}: has {len(both)} pairs of {table.path.name} too, expected none")
    validation, _ = _read_answers(others, tasks)
    _check_part(where, found, "validation", others, validation)
    _check_validation(where, found, validation)
    asked = all(table.has(task, "swapped") for task in tasks)
    for task in tasks:
        said = answers[task.name]
        confusion = confusion_matrix(said.true, said.predicted, len(task.labels)).tolist()
        if not len(said.ids) or found.scores[task.name]["confusion"] != confusion:
            raise KitError(f"{where}: the scores of {task.name} in {record.RUN} are not those of {record.PREDICTIONS}")
    return Run(
        model,
        seed,
        found,
        history,
        answers,
        {task.name: table.answers(task, "swapped") for task in tasks} if asked else None,
        probabilities,
        validation,
    )


def together(name: str, seed: int, tasks: Sequence[str] | None, parts: Sequence[Run]) -> Run:
    """One configuration's runs with one task each as a whole: the answers of all, their time and their size.

    Args:
        name: of the configuration.
        seed: of all its runs.
        tasks: as the configuration names them.
        parts: the runs, one per task, in the order of the tasks.
    """
    records = [part.record for part in parts]
    options = {route: value for each in records for route, value in each.config["options"].items()}
    whole = replace(
        records[0],
        oracle=any(each.oracle for each in records),
        config={**records[0].config, "tasks": None if tasks is None else list(tasks), "options": options},
        training={
            "seconds": sum(float(each.training["seconds"]) for each in records),
            "own_criterion": records[0].training.get("own_criterion", False),
        },
        scores=_merged(each.scores for each in records),
        spans=_merged(each.spans or {} for each in records) or None,
        calibration=_merged(each.calibration or {} for each in records) or None,
        model=_whole_model([each.model for each in records]),
    )
    swapped = [part.swapped for part in parts if part.swapped is not None]
    return Run(
        name,
        seed,
        whole,
        [],
        _merged(part.answers for part in parts),
        _merged(swapped) if len(swapped) == len(parts) else None,
        _merged(part.probabilities for part in parts),
        _merged(part.validation for part in parts),
        tuple(parts),
    )


def _merged(of_tasks: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {task: value for each in of_tasks for task, value in each.items()}


def _whole_model(models: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The size of several models, and the speed of asking each of them for every pair; None where one is not known."""
    known = [model for model in models if model is not None]
    if len(known) < len(models):
        return None
    sizes = {name: sum(model[name] for model in known) for name in ("parameters", "trained", "bytes")}
    return {**sizes, "pairs_per_second": 1 / sum(1 / model["pairs_per_second"] for model in known)}


def _check_plugins(where: Path, found: record.Record) -> None:
    """Compare the plugins with the settings, and what is called an oracle with the injector.

    Of a third party's, which may not be installed here, the record is believed; none can have the name of one of the kit's.
    """
    for kind in (kind for kind in KINDS if kind in found.plugins):
        if (name := found.plugins[kind]["name"]) != found.config[kind]:
            raise KitError(f"{where / record.RUN}: its {kind} is {shown(name)}, but {found.config[kind]} in its settings")
    rationale = found.config["rationale"]
    gold = next((spec.gold for spec in empathy_kit_rationales() if spec.name == rationale), None)
    if gold is not None and found.oracle != (gold == "always"):
        is_one = "is no oracle" if found.oracle else "is an oracle"
        raise KitError(f"{where / record.RUN}: oracle is {str(found.oracle).lower()}, but --rationale {rationale} {is_one}")


def _check_sums(where: Path, found: record.Record) -> None:
    """Check that the parts, and what --train-share leaves out, are the data."""
    data, split = found.data, found.split
    unused = split.get("unused", 0)
    fits = sum(split["pairs"][part] for part in PARTS) + unused == data["pairs"]
    for name, counts in data["class_counts"].items():
        of_parts = [sum(several) for several in zip(*(split["class_counts"][part][name] for part in PARTS), strict=True)]
        fits &= of_parts == counts or (unused > 0 and all(some <= all_ for some, all_ in zip(of_parts, counts, strict=True)))
    if not fits:
        raise KitError(f"{where / record.RUN}: the pairs or labels of the parts do not add up to those of the data")


def _check_part(where: Path, found: record.Record, part: str, table: AnswerTable, answers: Mapping[str, Answers]) -> None:
    """Compare the counts of a part with its pairs and their labels."""
    counts = {task.name: found.split["class_counts"][part][task.name] for task in found.tasks.tasks}
    true = {name: np.bincount(answers[name].true, minlength=len(counts[name])).tolist() for name in counts}
    if (found.split["pairs"][part], counts) != (len(table.ids), true):
        raise KitError(f"{where}: the counts of the {part} part in {record.RUN} are not those of {table.path.name}")


def _check_validation(where: Path, found: record.Record, validation: Mapping[str, Answers]) -> None:
    """Compare the answers that are kept of the chosen epoch with its score; a device may round one pair to another level."""
    for name, said in validation.items():
        right = int((said.true == said.predicted).sum())
        try:
            recorded = float(found.training["validation_accuracy"][name]) * len(said.ids)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise KitError(f"{where / record.RUN}: {record.MALFORMED}") from None
        if not abs(right - recorded) <= 1.5:
            raise KitError(f"{where}: the validation scores of {name} in {record.RUN} are not those of {record.VALIDATION}")


def _read_answers(table: AnswerTable, tasks: Sequence[TaskSchema]) -> tuple[dict[str, Answers], dict[str, Floats]]:
    """Predicted levels and probabilities, which must agree."""
    answers = {task.name: table.answers(task) for task in tasks}
    probabilities = {task.name: table.probabilities(task) for task in tasks}
    for name, shares in probabilities.items():
        # Where two are equal in the file, either may have been the larger before rounding.
        if (shares[np.arange(len(shares)), answers[name].predicted] < shares.max(1, initial=0) - 2e-6).any():
            raise KitError(f"{table.path}: {name}_predicted is not always the likeliest level")
    return answers, probabilities


def _check_parts(found: record.Record) -> None:
    """Check what a report reads from a record; any exception means that something is missing."""
    for name, kind in (("name", str), ("pairs", int), ("sha256", str)):
        record.check_type(found.data[name], kind)
    for name, kind in (("kind", str), ("seed", int), ("sha256", str)):
        record.check_type(found.split[name], kind)
    for pairs in (*(found.split["pairs"][part] for part in PARTS), found.split.get("unused", 0)):
        record.check_type(pairs, int)
    record.check_type(found.data["duplicates"]["groups"], int)
    if not 0 <= float(found.training["seconds"]) < _ENDLESS:
        raise ValueError("seconds")
    for task in found.schema.tasks:
        for counts in (found.data["class_counts"], *(found.split["class_counts"][part] for part in PARTS)):
            if len(counts[task.name]) != len(task.labels):
                raise ValueError(task.name)
            for count in counts[task.name]:
                record.check_type(count, int)
    for task in found.tasks.tasks:
        record.check_type(found.scores[task.name]["confusion"], list)
    for share in found.data["duplicates"]["agreement"].values():
        float(share)
    for fitted in (found.calibration or {}).values():
        if not 0 < float(fitted["temperature"]) < _ENDLESS:
            raise ValueError("temperature")
    if found.model is not None:
        for name in ("parameters", "trained", "bytes"):
            record.check_type(found.model[name], int)
            if not 0 <= found.model[name] < _ENDLESS:
                raise ValueError(name)
        if not 0 < float(found.model["pairs_per_second"]) < _ENDLESS:
            raise ValueError("pairs_per_second")
