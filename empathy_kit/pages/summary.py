"""What a comparison found: every figure of its report, as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from empathy_kit.comparison import MAJORITY, NOT_COMPARED, SWAPPED, Finished, Run
from empathy_kit.config import PAPER
from empathy_kit.core.metrics import confusion_matrix
from empathy_kit.data.pairs import LEVELS, MECHANISMS
from empathy_kit.statistics import (
    Answers,
    Calibration,
    Estimate,
    PairedTest,
    Resampled,
    calibration,
    contrasts,
    holm,
    paired_test,
)

METRICS = {"accuracy": "accuracy", "weighted_f1": "weighted F1", "macro_f1": "macro F1", "kappa": "kappa"}
CLASSES = len(LEVELS)


@dataclass(frozen=True)
class Cell:
    """One row of the table, one mechanism."""

    scores: dict[str, Estimate]  # metric to its mean over the seeds
    runs: dict[str, list[float]]  # metric to every run's own score
    deviation: dict[str, float] | None  # metric to the standard deviation between runs; None where there is one run
    recall: list[Estimate]  # a level
    never: list[int]  # a level: runs that never predicted it, though their test part has it
    confusion: list[list[int]]  # [true][predicted], summed over the runs


@dataclass(frozen=True)
class Row:
    """One configuration or yardstick."""

    name: str
    title: str
    kind: str  # "run", "oracle" or "yardstick"
    seeds: list[int]
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Contrast:
    """Two configurations, one mechanism."""

    first: str
    second: str
    seeds: list[int]  # that both have
    test_pairs: float  # mean over these seeds
    mechanism: str
    gains: list[int]  # right answers of the second, less the first's, a seed
    accuracy: Estimate  # of the second, less the first's
    macro_f1: Estimate
    test: PairedTest
    corrected: float  # the exact test's p, after Holm over all contrasts and mechanisms


@dataclass(frozen=True)
class Summary:
    """All that a report says."""

    data: str
    pairs: int
    split: str
    resplit: bool
    seeds: list[int]  # that any configuration has
    test_pairs: float  # mean over the runs
    rows: list[Row]
    contrasts: list[Contrast]
    paper: dict[str, dict[str, tuple[float, float]]]  # configuration to mechanism to accuracy and weighted F1
    ceiling: dict[str, float] | None  # agreement of labels where a pair was labelled twice
    ceiling_groups: int
    class_counts: dict[str, list[int]]
    curves: dict[str, list[list[tuple[float, float]]]]  # configuration to a run's validation loss and mean macro F1, an epoch
    calibrations: dict[str, dict[str, Calibration]]  # configuration to mechanism
    recipe: dict[str, Any]  # settings that all configurations share
    settings: dict[str, dict[str, Any]]  # configuration to the settings that they do not share
    versions: dict[str, str]
    machine: dict[str, Any]
    kit: str
    seconds: float  # in training, all runs
    missing: list[str]
    apart: list[tuple[str, str]]  # would be compared, but have no seed in common
    plugins: dict[str, list[str]]  # configuration to its third-party plugins

    @property
    def uneven(self) -> bool:
        """Whether some configurations have other seeds than others."""
        return len({tuple(row.seeds) for row in self.rows if row.kind != "yardstick"}) > 1

    def ranked(self) -> list[Row]:
        """Configurations that may be compared: no oracle, no yardstick."""
        return [row for row in self.rows if row.kind == "run"]


def summarise(finished: Finished) -> Summary:
    """Compute every figure; the same runs give the same figures.

    A configuration's mean is over its own seeds; two are compared on the seeds that both have.
    """
    runs = finished.runs
    first = next(iter(runs.values()))
    everything = [found for several in runs.values() for found in several]
    seeds = [seed for seed in finished.plan.seeds if any(found.seed == seed for found in everything)]
    columns = _columns(finished)
    resampled = {
        name: Resampled([answers[name] for column in columns for answers in column.answers.values()], CLASSES)
        for name in MECHANISMS
    }
    order = iter(range(sum(len(column.answers) for column in columns)))
    places = {column.name: {seed: next(order) for seed in column.answers} for column in columns}
    settings = {name: _settings(found[0]) for name, found in runs.items()}
    shared = {
        key: value for key, value in next(iter(settings.values())).items() if all(s.get(key) == value for s in settings.values())
    }
    ranked = {name: settings[name] for name in runs if not runs[name][0].record.oracle}
    pairs = [_Pair.of(runs, one, other) for one, other in contrasts(ranked)]
    tests = [
        (pair, name, paired_test([run.answers[name] for run in pair.first], [run.answers[name] for run in pair.second]))
        for pair in pairs
        if pair.first
        for name in MECHANISMS
    ]
    corrected = holm([test.exact for *_, test in tests])
    record = first[0].record
    repeated = record.data["duplicates"]
    return Summary(
        data=record.data["name"],
        pairs=record.data["pairs"],
        split=record.split["kind"],
        resplit=finished.plan.resplit,
        seeds=seeds,
        test_pairs=_test_pairs(everything),
        rows=[_row(column, list(places[column.name].values()), resampled) for column in columns],
        contrasts=[
            Contrast(
                pair.first[0].name,
                pair.second[0].name,
                pair.seeds,
                _test_pairs(pair.first),
                name,
                [other.answers[name].right - one.answers[name].right for one, other in zip(pair.first, pair.second, strict=True)],
                resampled[name].difference(*pair.places(places), "accuracy"),
                resampled[name].difference(*pair.places(places), "macro_f1"),
                test,
                p,
            )
            for (pair, name, test), p in zip(tests, corrected, strict=True)
        ],
        paper={name: PAPER[name] for name in runs if name in PAPER},
        ceiling=dict(repeated["agreement"]) if repeated["groups"] else None,
        ceiling_groups=repeated["groups"],
        class_counts=record.data["class_counts"],
        curves={name: [[_point(epoch) for epoch in found.history] for found in several] for name, several in runs.items()},
        calibrations={name: _calibrations(several) for name, several in runs.items()},
        recipe=shared,
        settings={name: {key: value for key, value in own.items() if key not in shared} for name, own in settings.items()},
        versions=record.versions,
        machine=record.machine,
        kit=record.kit,
        seconds=sum(found.record.training["seconds"] for found in everything),
        missing=[f"{name} {seed}" for name, seed in finished.missing],
        apart=[pair for pair, both in zip(contrasts(ranked), pairs, strict=True) if not both.first],
        plugins={name: sorted(_third_parties(several[0])) for name, several in runs.items()},
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary as a program reads it."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(summary)))
    return content


@dataclass(frozen=True)
class _Pair:
    """Two configurations' runs with the seeds that both have."""

    first: list[Run]
    second: list[Run]

    @classmethod
    def of(cls, runs: dict[str, list[Run]], one: str, other: str) -> _Pair:
        common = {run.seed for run in runs[one]} & {run.seed for run in runs[other]}
        return cls(*([run for run in runs[name] if run.seed in common] for name in (one, other)))

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.first]

    def places(self, places: dict[str, dict[int, int]]) -> tuple[list[int], list[int]]:
        """Where both stand among all that was resampled together."""
        first, second = ([places[run.name][run.seed] for run in side] for side in (self.first, self.second))
        return first, second


def _test_pairs(runs: Sequence[Run]) -> float:
    return float(np.mean([len(found.answers[MECHANISMS[0]].ids) for found in runs]))


@dataclass(frozen=True)
class _Column:
    """What is scored: the answers of some runs, one a seed."""

    name: str
    title: str
    kind: str
    answers: dict[int, dict[str, Answers]]  # by seed


def _columns(finished: Finished) -> list[_Column]:
    runs = finished.runs
    honest = [name for name in runs if not runs[name][0].record.oracle]
    kinds = {**dict.fromkeys(honest, "run"), **{name: "oracle" for name in runs if name not in honest}}
    columns = [
        _Column(name, runs[name][0].record.title, kind, {found.seed: found.answers for found in runs[name]})
        for name, kind in kinds.items()
    ]
    # What stands for a seed's split alone is the same for every configuration: whichever has the seed will do.
    by_seed = {found.seed: found for several in reversed(runs.values()) for found in several}
    by_seed = {seed: by_seed[seed] for seed in finished.plan.seeds if seed in by_seed}
    columns.append(_Column(MAJORITY, "majority class", "yardstick", {seed: _majority(found) for seed, found in by_seed.items()}))
    titles = {"tfidf": "TF-IDF + logistic regression, response only", "tfidf-balanced": "the same, classes balanced"}
    columns += [_Column(name, titles[name], "yardstick", answers) for name, answers in finished.yardsticks.items()]
    # The first that was asked: a run of an earlier version was not.
    for name in honest:
        swapped = {found.seed: found.swapped for found in runs[name] if found.swapped is not None}
        if swapped:
            columns.append(_Column(f"{name}{SWAPPED}", f"{name}, seekers swapped at test time", "yardstick", swapped))
            break
    return columns


def _majority(run: Run) -> dict[str, Answers]:
    """The training part's commonest level for every pair."""
    counts = run.record.split["class_counts"]["train"]
    return {
        name: Answers(said.ids, said.true, np.full_like(said.true, int(np.argmax(counts[name]))))
        for name, said in run.answers.items()
    }


def _row(column: _Column, places: Sequence[int], resampled: dict[str, Resampled]) -> Row:
    cells = {}
    for name in MECHANISMS:
        answers = [each[name] for each in column.answers.values()]
        tables = [confusion_matrix(each.true, each.predicted, CLASSES) for each in answers]
        scores = {metric: resampled[name].point[metric][list(places)] for metric in METRICS}
        cells[name] = Cell(
            scores={metric: resampled[name].mean(places, metric) for metric in METRICS},
            runs={metric: each.tolist() for metric, each in scores.items()},
            deviation={metric: float(each.std(ddof=1)) for metric, each in scores.items()} if len(places) > 1 else None,
            recall=[resampled[name].mean(places, "recall", level) for level in range(CLASSES)],
            never=[sum(bool(t[level].any() and not t[:, level].any()) for t in tables) for level in range(CLASSES)],
            confusion=np.sum(tables, axis=0).tolist(),
        )
    return Row(column.name, column.title, column.kind, list(column.answers), cells)


def _settings(run: Run) -> dict[str, Any]:
    config = run.record.config
    return {name: value for name, value in config.items() if name not in (*NOT_COMPARED, "options")} | {
        f"-o {name}": value for name, value in config.get("options", {}).items()
    }


def _point(epoch: dict[str, Any]) -> tuple[float, float]:
    scores = epoch["validation_macro_f1"]
    return epoch["validation_loss"], sum(scores.values()) / len(scores)


def _calibrations(runs: Sequence[Run]) -> dict[str, Calibration]:
    return {
        name: calibration(
            np.concatenate([found.probabilities[name] for found in runs]),
            np.concatenate([found.answers[name].true for found in runs]),
        )
        for name in MECHANISMS
    }


def _third_parties(run: Run) -> Iterator[str]:
    for kind, entry in run.record.plugins.items():
        if entry["distribution"] != "empathy-kit":
            yield f"{kind} {entry['name']} from {entry['distribution']} {entry['version']}"
