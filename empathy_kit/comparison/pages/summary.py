"""The results of a comparison: every number of its report, as plain values."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from empathy_kit.comparison.statistics import Corrected, PairedTest, SeedEstimate
from empathy_kit.core.calibration import Calibration
from empathy_kit.data.schema import TaskSchema

METRICS = {"accuracy": "accuracy", "weighted_f1": "weighted F1", "macro_f1": "macro F1", "kappa": "kappa"}


@dataclass(frozen=True)
class Ranked:
    """Average precision of the pairs ranked by a label's probability. NaN where a test part has no pair with the label."""

    value: float  # mean over the seeds
    runs: list[float]


@dataclass(frozen=True)
class Cell:
    """One row of the tables for one task. Lists per label are in the order of the task's labels."""

    seeds: list[int]
    scores: dict[str, SeedEstimate]  # metric to its mean over the seeds
    runs: dict[str, list[float]]  # metric to every run's own score; NaN where it is undefined
    deviation: dict[str, float] | None  # metric to the standard deviation between runs; None where there is one run
    recall: list[SeedEstimate]  # per label
    average_precision: list[Ranked] | None  # per label; None where the probabilities are not known
    batch_macro_f1: float  # mean over the seeds of core.metrics.batch_macro_f1, which is no estimate of macro F1
    never: list[int]  # per label: runs that never predicted it, though their test part has it
    confusion: list[list[int]]  # [true][predicted], summed over the runs


@dataclass(frozen=True)
class Compared:
    """One configuration or yardstick."""

    name: str
    title: str
    kind: Literal["run", "oracle", "yardstick"]
    seeds: list[int]
    cells: dict[str, Cell]  # by task; a configuration may lack some

    @property
    def label(self) -> str:
        """The name, with a mark on oracles."""
        return f"{self.name} (ORACLE)" if self.kind == "oracle" else self.name


@dataclass(frozen=True)
class Contrast:
    """The comparison of two configurations on a task that both have."""

    first: str
    second: str
    seeds: list[int]  # that both have
    test_pairs: float  # with a label of the task, mean over these seeds
    task: str
    gains: list[int]  # right predictions, second minus first, per seed
    accuracy: SeedEstimate  # second minus first
    macro_f1: SeedEstimate
    test: PairedTest
    corrected: Corrected  # over all contrasts and tasks of a table


@dataclass(frozen=True)
class Cost:
    """The size and the time of a configuration's models, all of a seed together; means over the seeds that have them."""

    models: int  # one, or one per task
    seconds: float  # of training
    parameters: float | None  # this and the others are None where no run has them
    trained: float | None  # of the parameters
    bytes: float | None  # of all weights
    pairs_per_second: float | None  # of the test part, each pair through all models


@dataclass(frozen=True)
class Apart:
    """Two configurations that cannot be compared."""

    first: str
    second: str
    lacking: Literal["seed", "task"]  # what they do not have in common


@dataclass(frozen=True)
class Summary:
    """Everything that a report shows."""

    data: str
    pairs: int
    tasks: list[TaskSchema]  # that any configuration has
    split: str
    resplit: bool
    seeds: list[int]  # that any configuration has
    test_pairs: float  # mean over the runs
    labelled: dict[str, float]  # task to test pairs with a label, mean over the runs that have the task
    rows: list[Compared]
    contrasts: list[Contrast]
    paper: dict[str, dict[str, tuple[float, float]]]  # configuration to task to accuracy and weighted F1
    agreement: dict[str, float] | None  # between the labels of pairs that were labelled more than once, per task
    agreement_groups: int  # how many such pairs there are
    by_chance: dict[str, list[float]]  # task to the average precision of each label that a random ranking is expected to have
    class_counts: dict[str, list[int]]
    curves: dict[str, list[list[tuple[float, float]]]]  # configuration to a run's validation loss and mean macro F1 per epoch
    calibrations: dict[str, dict[str, Calibration]]  # configuration to task; as the runs predicted, without temperatures
    tempered: dict[str, dict[str, float]]  # the same, calibration errors with the temperatures that all runs have
    costs: dict[str, Cost]  # by configuration
    recipe: dict[str, Any]  # settings that all configurations share
    settings: dict[str, dict[str, Any]]  # configuration to the settings that they do not share
    trunks: list[str]  # of all configurations
    versions: dict[str, Any]  # of Python and the libraries; a list where the runs differ
    machine: dict[str, Any]  # what computed the runs, likewise
    kit: str
    seconds: float  # in training, all runs
    missing: list[str]
    apart: list[Apart]
    plugins: dict[str, list[str]]  # configuration to its third-party plugins
    mixed: list[str]  # configurations whose runs have plugins of several versions
    left_out: list[str]  # sentences on missing yardsticks, and on runs that may not belong together

    @property
    def names(self) -> list[str]:
        """The tasks' names."""
        return [task.name for task in self.tasks]

    @property
    def uneven(self) -> bool:
        """Whether some configurations have other seeds than others."""
        return len({tuple(row.seeds) for row in self.rows if row.kind != "yardstick"}) > 1

    def ranked(self) -> list[Compared]:
        """Configurations that may be compared: neither oracles nor yardsticks."""
        return [row for row in self.rows if row.kind == "run"]


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary as JSON values; undefined numbers are null."""
    content: dict[str, Any] = json.loads(json.dumps(_defined(asdict(summary)), allow_nan=False))
    return content


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _defined(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
