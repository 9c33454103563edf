"""Read finished runs for a report, and check that they belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from empathy_kit.comparison import yardsticks
from empathy_kit.comparison.plan import RUNS, Plan, differences, read_plan, run_folder
from empathy_kit.comparison.run import Run, read_run, together
from empathy_kit.comparison.statistics import Answers
from empathy_kit.config import RunConfig, configure
from empathy_kit.data.schema import Schema
from empathy_kit.errors import KitError, shown, visible
from empathy_kit.options import parse
from empathy_kit.plugins import KINDS
from empathy_kit.runs import record
from empathy_kit.runs.choose import LIBRARIES
from empathy_kit.runs.differences import listed
from empathy_kit.runs.identity import KIT
from empathy_kit.runs.machine import PARTS, described


@dataclass(frozen=True)
class Results:
    """Everything that exists of a comparison."""

    plan: Plan
    runs: dict[str, list[Run]]  # configuration to its runs, ordered by seed; configurations may have different numbers of runs
    yardsticks: dict[str, dict[int, dict[str, Answers]]]  # yardstick to seed to task to answers
    missing: list[tuple[str, int]]  # planned runs that do not exist
    left_out: list[str]  # missing yardsticks, and why
    remarks: list[str]  # on runs that may not belong together

    @cached_property
    def tasks(self) -> Schema:
        """The tasks of any run."""
        there = {task for several in self.runs.values() for found in several for task in found.answers}
        schema = self.plan.tasks
        return schema.select([name for name in schema.names if name in there])


def read_finished(folder: Path) -> Results:
    """Read a comparison's runs; no torch, no data.

    Raises:
        KitError: there is no comparison or no complete configuration, a run was changed or is not the planned one, or runs have
            other data or splits than the first.
    """
    plan = read_plan(folder)
    there = {
        model: {seed: read_run(folder, model, seed) for seed in plan.seeds if run_folder(folder, model, seed).exists()}
        for model in plan.models
    }
    every = [found for runs in there.values() for found in runs.values()]
    if not every:
        raise KitError(f"{folder}: no finished run, expected at least one in {folder / RUNS}")
    for found in every:
        _check_planned(run_folder(folder, found.name, found.seed), found, plan)
    _check_alike(folder, every)
    _check_counts(folder, every)
    missing = [(model, seed) for model, seed in plan.runs() if seed not in there[model]]
    whole = {name: several for name in plan.configurations if (several := list(_whole(name, plan, there)))}
    if not whole:
        shown_missing = listed([f"{model} {seed}" for model, seed in missing])
        raise KitError(f"{folder}: no configuration is complete; missing runs: {shown_missing}; continue the comparison")
    splits = {found.seed: found.record.split["seed"] for runs in whole.values() for found in runs}
    measured = yardsticks.read(folder, splits.values(), plan.tasks)
    by_seed = {
        name: {seed: by_split[split] for seed, split in sorted(splits.items()) if split in by_split}
        for name, by_split in measured.answers.items()
    }
    _check_yardsticks(folder, by_seed, every)
    remarks = [*_computed(every), *_remarks(plan, there), *measured.remarks, *_incomplete(plan, there)]
    return Results(plan, whole, by_seed, missing, measured.left_out, remarks)


There = Mapping[str, Mapping[int, Run]]  # model to seed to its run


def _whole(name: str, plan: Plan, there: There) -> Iterator[Run]:
    """A configuration's runs. Of one model per task, a seed counts only where no model is missing."""
    for seed in plan.seeds:
        found = [there[model].get(seed) for model in plan.models_of(name)]
        parts = [each for each in found if each is not None]
        if len(parts) == len(found):
            yield together(name, seed, plan.configurations[name].tasks, parts) if name in plan.separate else parts[0]


def _incomplete(plan: Plan, there: There) -> Iterator[str]:
    """Sentences on seeds of which some models are there and others are missing."""
    for name in plan.configurations:
        for seed in plan.seeds:
            lacking = [model for model in plan.models_of(name) if seed not in there[model]]
            if 0 < len(lacking) < len(plan.models_of(name)):
                yield f"{name}: seed {seed} is left out, because it is not complete without {', '.join(lacking)}."


def _computed(runs: Sequence[Run]) -> Iterator[str]:
    """Sentences on versions and machines that differ between runs."""
    versions = [{KIT: each.record.kit, **each.record.versions} for each in runs]
    for name in (KIT, "python", *LIBRARIES):
        found = sorted({visible(each[name]) for each in versions if name in each})
        if len(found) > 1:
            yield f"The runs were computed with different versions of {name} ({', '.join(found)}), whose numbers may differ."
    machines = [described(each.record.machine) for each in runs]
    for part, title in PARTS.items():
        found = sorted({each[part] for each in machines if part in each})
        if len(found) > 1:
            yield f"The runs differ in their {title} ({'; '.join(found)}), on which their numbers may depend."


def _remarks(plan: Plan, there: There) -> Iterator[str]:
    """Sentences on runs that may not belong together."""
    runs = {name: [found for model in plan.models_of(name) for found in there[model].values()] for name in plan.configurations}
    for name, several in runs.items():
        for kind in KINDS:
            code = {
                (entry["version"], entry["sha256"])
                for each in several
                if "sha256" in (entry := each.record.plugins.get(kind, {}))
            }
            if len(code) > len({version for version, _ in code}):
                yield f"{name}: the files of its {kind} changed between its runs, whose numbers may differ."
        first: dict[tuple[str, bytes], Run] = {}
        for each in several:
            said = b"".join(shares.tobytes() for shares in each.probabilities.values())
            if (other := first.setdefault((each.name, said), each)) is not each:
                yield f"{each.name}: seeds {other.seed} and {each.seed} predicted the same to the last digit; one may be a copy."


def _check_planned(where: Path, found: Run, plan: Plan) -> None:
    """Check that a folder has its planned run: folders may have been copied or exchanged."""
    config, planned = configure(RunConfig(), found.record.config), plan.config(found.name, found.seed)
    changed = differences(replace(config, options={}), replace(planned, options={}))
    for route, value in config.options.items():
        kind, *_, option = route.split(".")
        given = planned.options.get(route, planned.options.get(f"{kind}.{option}", _DEFAULT))
        # An option that is not in the plan has the plugin's default, which only the plugin knows.
        if given is not _DEFAULT and not _same_option(given, value):
            changed.append(f"-o {route} {value}, not {given}")
    if (config.seed, config.split_seed, found.record.split["seed"]) != (found.seed, planned.split_seed, planned.split_seed):
        changed.append(f"seed {config.seed} on split {found.record.split['seed']}")
    if changed:
        raise KitError(f"{where}: is a run with {listed(changed)}; expected {found.name} as it is planned")


_DEFAULT = object()


def _same_option(given: Any, value: Any) -> bool:
    """Whether text or a TOML value equals the JSON value of a record."""
    if isinstance(value, list):
        parts = given.split(",") if isinstance(given, str) else given
        return isinstance(parts, list | tuple) and len(parts) == len(value) and all(map(_same_option, parts, value))
    if value is None:
        return given in (None, "none")
    try:
        return bool(parse(type(value), given.strip() if isinstance(given, str) else given) == value)
    except ValueError:
        return False


def _check_alike(folder: Path, runs: Sequence[Run]) -> None:
    """Check that all runs have the same data, and that runs on one split have the same pairs and labels."""
    first: dict[int, Run] = {}  # by the split's seed
    encoders: dict[tuple[str, float | None], Run] = {}  # by all that a hash follows from
    labels: dict[int, dict[str, Answers]] = {}  # split seed to task to the first run's answers
    true: dict[str, dict[str, int]] = {}  # task to id to true level, which must be the same in every split and part
    for found in runs:
        split = found.record.split["seed"]
        for what, sibling in (("data", runs[0]), ("split", first.setdefault(split, found))):
            one, other = (getattr(each.record, what)["sha256"] for each in (found, sibling))
            if one != other:
                raise KitError(
                    f"{run_folder(folder, found.name, found.seed)}: was made on another {what} than "
                    f"{run_folder(folder, sibling.name, sibling.seed)} (sha256 {one[:12]}... and {other[:12]}...); "
                    "they cannot be compared"
                )
        given = found.record.config
        _check_encoder(folder, found, encoders.setdefault((given["encoder"], given["attention_dropout"]), found))
        known = labels.setdefault(split, {})
        _check_labels(run_folder(folder, found.name, found.seed) / record.PREDICTIONS, found.answers, known)
        labels[split] = {**found.answers, **known}
        for table, answers in ((record.PREDICTIONS, found.answers), (record.VALIDATION, found.validation)):
            for task, answer in answers.items():
                levels = true.setdefault(task, {})
                for name, level in zip(answer.ids, answer.true.tolist(), strict=True):
                    if levels.setdefault(name, level) != level:
                        raise KitError(
                            f"{run_folder(folder, found.name, found.seed) / table}: the true level of {task} of {shown(name)} "
                            "is another one than in the other runs"
                        )


def _check_encoder(folder: Path, found: Run, sibling: Run) -> None:
    """Check that one name is one encoder: a folder's weights may have changed between runs."""
    one, other = (each.record.encoder["sha256"] for each in (found, sibling))
    if one != other:
        raise KitError(
            f"{run_folder(folder, found.name, found.seed)}: --encoder {found.record.config['encoder']} was another one than in "
            f"{run_folder(folder, sibling.name, sibling.seed)} (sha256 {one[:12]}... and {other[:12]}...); "
            "they cannot be compared"
        )


def _check_labels(path: Path, ours: Mapping[str, Answers], theirs: Mapping[str, Answers]) -> None:
    for task in ours:
        if task in theirs and (ours[task].ids != theirs[task].ids or not np.array_equal(ours[task].true, theirs[task].true)):
            raise KitError(f"{path}: has other pairs or true labels of {task} than the other files of its split")


def _check_yardsticks(folder: Path, by_seed: Mapping[str, Mapping[int, Mapping[str, Answers]]], runs: Sequence[Run]) -> None:
    for found in runs:
        for name, answers in by_seed.items():
            if found.seed in answers:
                path = folder / yardsticks.FOLDER / f"{name}-{found.record.split['seed']}.csv"
                _check_labels(path, answers[found.seed], found.answers)


def _check_counts(folder: Path, runs: Sequence[Run]) -> None:
    """Check that runs whose data and splits have the same hashes have the same counts of them; a training part may be thinned."""
    first: dict[tuple[int, float], Run] = {}  # by the split's seed, and by how much of the training part is used
    for found in runs:
        like = found.record.split["seed"], found.record.config["train_share"]
        for what, sibling in (("data", runs[0]), ("split", first.setdefault(like, found))):
            one, other = (getattr(each.record, what) for each in (found, sibling))
            if any(one[counts] != other[counts] for counts in ("pairs", "class_counts")):
                raise KitError(
                    f"{run_folder(folder, found.name, found.seed)}: the counts of its {what} are not those of "
                    f"{run_folder(folder, sibling.name, sibling.seed)}, but the sha256 is the same; one of them was changed"
                )
