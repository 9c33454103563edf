"""Finished runs -> every number of their report; the same runs give the same numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from empathy_kit.comparison.finished import Results
from empathy_kit.comparison.pages.summary import METRICS, Apart, Cell, Compared, Contrast, Cost, Ranked, Summary
from empathy_kit.comparison.plan import HOW_MANY, NOT_COMPARED
from empathy_kit.comparison.run import Run
from empathy_kit.comparison.statistics import OPTION, Answers, Resampled, contrasts, correct, different, paired_test
from empathy_kit.comparison.yardsticks import MAJORITY, SWAPPED, TITLES
from empathy_kit.config import PAPER
from empathy_kit.core.calibration import Calibration, calibration, tempered
from empathy_kit.core.metrics import average_precision, batch_macro_f1, confusion_matrix
from empathy_kit.data.schema import EPITOME, TaskSchema
from empathy_kit.errors import visible
from empathy_kit.plugins import OURS
from empathy_kit.runs.report import random_precision

MOST_SETTINGS = 3  # settings that a title names to distinguish configurations


def summarise(results: Results) -> Summary:
    """Compute every number of a report.

    A configuration's mean is over its own seeds; two are compared on the seeds and tasks that both have.
    """
    runs, tasks = results.runs, results.tasks
    everything = [found for several in runs.values() for found in several]
    settings = {name: _settings(several[0]) for name, several in runs.items()}
    shared = {key: value for key, value in next(iter(settings.values())).items() if _all_have(settings.values(), key, value)}
    columns = list(_columns(results, _titles(results, settings)))
    drawn = {task.name: _Drawn.of(task, columns) for task in tasks.tasks}
    ranked = {name: settings[name] for name in runs if not _is_oracle(runs[name])}
    pairs = [_Pair.of(runs, one, other) for one, other in contrasts(ranked)]
    record = everything[0].record
    repeated = record.data["duplicates"]
    return Summary(
        data=visible(record.data["name"]),
        pairs=record.data["pairs"],
        tasks=list(tasks.tasks),
        split=visible(record.split["kind"]),
        resplit=results.plan.resplit,
        seeds=[seed for seed in results.plan.seeds if any(found.seed == seed for found in everything)],
        test_pairs=_mean(found.record.split["pairs"]["test"] for found in everything),
        labelled={
            name: _mean(len(found.answers[name].ids) for found in everything if name in found.answers) for name in tasks.names
        },
        rows=[_row(column, drawn) for column in columns],
        contrasts=_contrasts(pairs, drawn),
        paper={name: PAPER[name] for name in runs if name in PAPER} if record.schema == EPITOME else {},
        agreement=dict(repeated["agreement"]) if repeated["groups"] else None,
        agreement_groups=repeated["groups"],
        by_chance={task.name: _by_chance(task, columns) for task in tasks.tasks},
        class_counts=record.data["class_counts"],
        curves={
            name: [[_point(epoch) for epoch in model.history] for found in several for model in found.models]
            for name, several in runs.items()
        },
        calibrations={name: _calibrations(several) for name, several in runs.items()},
        tempered={name: _tempered(several) for name, several in runs.items()},
        costs={name: _cost(several) for name, several in runs.items()},
        recipe=shared,
        settings={name: {key: value for key, value in own.items() if key not in shared} for name, own in settings.items()},
        trunks=list(dict.fromkeys(visible(str(own["trunk"])) for own in settings.values())),
        versions=_values(model.record.versions for found in everything for model in found.models),
        machine=_values(model.record.machine for found in everything for model in found.models),
        kit=", ".join(dict.fromkeys(visible(model.record.kit) for found in everything for model in found.models)),
        seconds=sum(found.record.training["seconds"] for found in everything),
        missing=[f"{name} {seed}" for name, seed in results.missing],
        apart=[Apart(pair.first_name, pair.second_name, pair.lacking) for pair in pairs if pair.lacking is not None],
        plugins={name: sorted({plugin for used in _provided(several) for plugin in used}) for name, several in runs.items()},
        mixed=[name for name, several in runs.items() if len(set(_provided(several))) > 1],
        left_out=[*results.left_out, *results.remarks],
    )


def _values(given: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Every part with its value, or a list of the values where they differ."""
    found: dict[str, list[Any]] = {}
    for part, value in (entry for each in given for entry in each.items()):
        if value not in found.setdefault(part, []):
            found[part].append(value)
    return {part: values[0] if len(values) == 1 else values for part, values in found.items()}


@dataclass(frozen=True)
class _Pair:
    """Two configurations' runs with the seeds that both have."""

    first_name: str
    second_name: str
    first: list[Run]
    second: list[Run]
    tasks: list[str]  # that both have

    @classmethod
    def of(cls, runs: Mapping[str, list[Run]], one: str, other: str) -> _Pair:
        common = {run.seed for run in runs[one]} & {run.seed for run in runs[other]}
        first, second = ([run for run in runs[name] if run.seed in common] for name in (one, other))
        return cls(one, other, first, second, [task for task in runs[one][0].answers if task in runs[other][0].answers])

    @property
    def lacking(self) -> Literal["seed", "task"] | None:
        if not self.tasks:
            return "task"
        return None if self.first else "seed"

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.first]


def _contrasts(pairs: Sequence[_Pair], drawn: Mapping[str, _Drawn]) -> list[Contrast]:
    sides = [(pair, task) for pair in pairs if pair.lacking is None for task in pair.tasks]
    tests = [paired_test(*([run.answers[task] for run in side] for side in (pair.first, pair.second))) for pair, task in sides]
    differences = []
    for pair, task in sides:
        first, second = (drawn[task].places(name, pair.seeds) for name in (pair.first_name, pair.second_name))
        differences.append([drawn[task].resampled.difference(first, second, metric) for metric in ("accuracy", "macro_f1")])
    corrected = correct((test, accuracy, macro_f1) for test, (accuracy, macro_f1) in zip(tests, differences, strict=True))
    found = []
    for (pair, task), test, (accuracy, macro_f1), ps in zip(sides, tests, differences, corrected, strict=True):
        answers = [(one.answers[task], other.answers[task]) for one, other in zip(pair.first, pair.second, strict=True)]
        found.append(
            Contrast(
                pair.first_name,
                pair.second_name,
                pair.seeds,
                _mean(len(one.ids) for one, _ in answers),
                task,
                [other.right - one.right for one, other in answers],
                accuracy,
                macro_f1,
                test,
                ps,
            )
        )
    return found


@dataclass(frozen=True)
class _Column:
    """What is scored: the predictions of several runs, one per seed."""

    name: str
    title: str
    kind: Literal["run", "oracle", "yardstick"]
    answers: dict[int, dict[str, Answers]]  # by seed, then by task

    def of(self, task: str) -> dict[int, Answers]:
        """One task's predictions, by seed."""
        return {seed: answers[task] for seed, answers in self.answers.items() if task in answers}


@dataclass(frozen=True)
class _Drawn:
    """Everything that is scored of a task, resampled together, with the position of each run."""

    resampled: Resampled
    where: dict[tuple[str, int], int]  # name and seed to position
    classes: int

    @classmethod
    def of(cls, task: TaskSchema, columns: Sequence[_Column]) -> _Drawn:
        """One task of several columns."""
        scored = {(column.name, seed): answers for column in columns for seed, answers in column.of(task.name).items()}
        classes = len(task.labels)
        return cls(Resampled(list(scored.values()), classes), {key: at for at, key in enumerate(scored)}, classes)

    def places(self, name: str, seeds: Iterable[int]) -> list[int]:
        """The positions of a configuration's runs."""
        return [self.where[name, seed] for seed in seeds]


def _columns(results: Results, titles: Mapping[str, str]) -> Iterator[_Column]:
    runs = results.runs
    honest = [name for name in runs if not _is_oracle(runs[name])]
    for name in (*honest, *(name for name in runs if name not in honest)):
        kind: Literal["run", "oracle"] = "run" if name in honest else "oracle"
        yield _Column(name, titles[name], kind, {found.seed: found.answers for found in runs[name]})
    # What depends on a seed's split alone is the same for every configuration; a smaller --train-share may have another majority.
    majority: dict[int, dict[str, Answers]] = {seed: {} for seed in results.plan.seeds}
    every = [found for several in runs.values() for found in several]
    for found in sorted(every, key=lambda found: -float(found.record.config["train_share"])):
        for task in found.answers.keys() - majority[found.seed].keys():
            majority[found.seed][task] = _majority(found, task)
    yield _Column(MAJORITY, TITLES[MAJORITY], "yardstick", {seed: answers for seed, answers in majority.items() if answers})
    for name, by_seed in results.yardsticks.items():
        yield _Column(name, TITLES[name], "yardstick", by_seed)
    # The first run that has them: runs of an earlier version do not.
    for name in honest:
        swapped = {found.seed: found.swapped for found in runs[name] if found.swapped is not None}
        if swapped:
            yield _Column(f"{name}{SWAPPED}", f"{name}, seekers swapped at test time", "yardstick", swapped)
            break


def _majority(run: Run, task: str) -> Answers:
    """The training part's commonest label for every pair."""
    said, counts = run.answers[task], run.record.split["class_counts"]["train"][task]
    return Answers(said.ids, said.true, np.full_like(said.true, int(np.argmax(counts))))


def _row(column: _Column, drawn: Mapping[str, _Drawn]) -> Compared:
    cells = {}
    for task, of_task in drawn.items():
        answers = column.of(task)
        if not answers:
            continue
        places, classes, resampled = of_task.places(column.name, answers), of_task.classes, of_task.resampled
        tables = [confusion_matrix(each.true, each.predicted, classes) for each in answers.values()]
        scores = {metric: resampled.point[metric][places] for metric in METRICS}
        cells[task] = Cell(
            seeds=list(answers),
            scores={metric: resampled.mean(places, metric) for metric in METRICS},
            runs={metric: each.tolist() for metric, each in scores.items()},
            deviation={metric: float(each.std(ddof=1)) for metric, each in scores.items()} if len(places) > 1 else None,
            recall=[resampled.mean(places, "recall", level) for level in range(classes)],
            average_precision=_ranked(list(answers.values()), classes),
            batch_macro_f1=_mean(batch_macro_f1(each.true, each.predicted, classes) for each in answers.values()),
            never=[sum(bool(table[at].any() and not table[:, at].any()) for table in tables) for at in range(classes)],
            confusion=np.sum(tables, axis=0).tolist(),
        )
    return Compared(column.name, column.title, column.kind, list(column.answers), cells)


def _ranked(answers: Sequence[Answers], classes: int) -> list[Ranked] | None:
    found = []
    for level in range(classes):
        runs = []
        for each in answers:
            if each.probabilities is None:
                return None
            everyone = np.ones((1, len(each.true)))
            runs.append(float(average_precision(each.true == level, each.probabilities[:, level], everyone)[0]))
        found.append(Ranked(_mean(runs), runs))
    return found


def _by_chance(task: TaskSchema, columns: Sequence[_Column]) -> list[float]:
    """The average precision of each label that a random ranking can be expected to have, the mean over the seeds."""
    (majority,) = (column for column in columns if column.name == MAJORITY)
    counts = [np.bincount(each.true, minlength=len(task.labels)).tolist() for each in majority.of(task.name).values()]
    return [_mean(random_precision(of_seed[level], sum(of_seed)) for of_seed in counts) for level in range(len(task.labels))]


def _titles(results: Results, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The title of each configuration; equal titles are extended by the settings that differ."""
    titles = {name: visible(several[0].title) for name, several in results.runs.items()}
    short, whole = {}, {}
    for name, title in titles.items():
        twins = [other for other in titles if titles[other] == title and other != name]
        keys = sorted(set().union(*(different(settings[name], settings[twin]) for twin in twins)))
        words = [visible(_setting(key, settings[name])) for key in keys]
        whole[name] = ", ".join([title, *words])
        more = [f"{len(words) - MOST_SETTINGS} more"] if len(words) > MOST_SETTINGS else []
        short[name] = ", ".join([title, *words[:MOST_SETTINGS], *more])
    counts = Counter(short.values())
    return {name: whole[name] if counts[title] > 1 else title for name, title in short.items()}


def _setting(key: str, own: Mapping[str, Any]) -> str:
    """``gamma 3.0``, or ``gamma ER 3.0 / EX 2.0`` where tasks differ."""
    if not key.startswith(OPTION):
        return f"{key.replace('_', ' ')} {own.get(key)}"
    kind, _, option = key.partition(".")
    values = {
        name.split(".")[-2]: str(value)
        for name, value in own.items()
        if name.startswith(f"{kind}.") and name.rpartition(".")[2] == option
    }
    different_ones = dict.fromkeys(values.values())
    shown = [f"{task} {value}" for task, value in values.items()] if len(different_ones) > 1 else different_ones
    return f"{option.replace('_', ' ')} {' / '.join(shown) or 'by default'}"


def _settings(run: Run) -> dict[str, Any]:
    """The settings of a configuration, without the data's tasks, which all share; with how many models it has, where several."""
    config = run.record.config
    plain = {name: value for name, value in config.items() if name not in (*NOT_COMPARED, "options", "schema")}
    models = {"models": HOW_MANY[True]} if run.parts else {}
    options = {f"{OPTION}{route}": value for route, value in config["options"].items()}
    return {**plain, "tasks": list(run.answers), **models, **options}


def _all_have(settings: Iterable[Mapping[str, Any]], key: str, value: object) -> bool:
    return all(key in own and own[key] == value for own in settings)


def _is_oracle(runs: Sequence[Run]) -> bool:
    return any(found.record.oracle for found in runs)


def _point(epoch: Mapping[str, Any]) -> tuple[float, float]:
    scores = epoch["validation_macro_f1"]
    return epoch["validation_loss"], sum(scores.values()) / len(scores)


def _calibrations(runs: Sequence[Run]) -> dict[str, Calibration]:
    return {
        task: calibration(
            np.concatenate([found.probabilities[task] for found in runs]),
            np.concatenate([found.answers[task].true for found in runs]),
        )
        for task in runs[0].answers
    }


def _tempered(runs: Sequence[Run]) -> dict[str, float]:
    found = {}
    for task in runs[0].answers:
        temperatures = [(run.record.calibration or {}).get(task, {}).get("temperature") for run in runs]
        if all(temperatures):  # the runs of earlier versions have none
            chances = [tempered(run.probabilities[task], float(by)) for run, by in zip(runs, temperatures, strict=True) if by]
            found[task] = calibration(np.concatenate(chances), np.concatenate([run.answers[task].true for run in runs])).ece
    return found


def _cost(runs: Sequence[Run]) -> Cost:
    sizes = [found.record.model for found in runs if found.record.model is not None]  # runs of earlier versions have none
    known = {
        name: _mean(size[name] for size in sizes) if sizes else None
        for name in ("parameters", "trained", "bytes", "pairs_per_second")
    }
    return Cost(len(runs[0].models), _mean(float(found.record.training["seconds"]) for found in runs), **known)


def _provided(runs: Iterable[Run]) -> Iterator[tuple[str, ...]]:
    """The third parties' plugins of each model."""
    for found in runs:
        for model in found.models:
            yield tuple(
                visible(f"{kind} {entry['name']} from {entry['distribution']} {entry['version']}")
                for kind, entry in model.record.plugins.items()
                if entry["distribution"] != OURS
            )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
