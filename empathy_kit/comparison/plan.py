"""The plan of a comparison: its configurations and seeds, written to its folder, read back, and extended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from empathy_kit.comparison.yardsticks import is_yardstick
from empathy_kit.config import RunConfig, configure, flag, to_dict
from empathy_kit.contracts import NAME_PATTERN
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.schema import Schema
from empathy_kit.data.splits import Split, make_split
from empathy_kit.errors import KitError, shown
from empathy_kit.files import write_whole
from empathy_kit.reading import read_regular
from empathy_kit.runs import inventory
from empathy_kit.runs.differences import as_given, listed, sentences

FORMAT = 2
PLAN, RUNS = inventory.PLAN, inventory.RUNS
NOT_COMPARED = ("seed", "split_seed", "device", "fused", "threads")  # may differ between runs of one configuration
SAME = ("data", "schema", "split")  # all configurations must share these, to be tested on the same pairs
SAME_PAIRS = "all that is compared must be tested on the same pairs; use another --out"
MOST_SEEDS, LONGEST_NAME = 10_000, 100
HOW_MANY = {True: "one model per task", False: "one model for all tasks"}
SEPARATE = "separate"  # stands next to a configuration's settings where each of its tasks has a model of its own


@dataclass(frozen=True)
class Plan:
    """The configurations and seeds to compare."""

    configurations: Mapping[str, RunConfig]  # by name, in the order of the tables; the others are compared with the first
    seeds: tuple[int, ...]
    resplit: bool  # each seed draws a new split
    separate: frozenset[str] = frozenset()  # configurations of which each task has a model, and a run, of its own

    def models_of(self, name: str) -> dict[str, RunConfig]:
        """The models of a configuration, each of which is one run per seed: itself alone, or one per task, named ``T1s.ER``."""
        config = self.configurations[name]
        if name not in self.separate:
            return {name: config}
        return {f"{name}.{task}": replace(config, tasks=(task,)) for task in config.schema.select(config.tasks).names}

    @cached_property
    def models(self) -> dict[str, RunConfig]:
        """The models of all configurations by their names."""
        return {model: config for name in self.configurations for model, config in self.models_of(name).items()}

    def config(self, model: str, seed: int) -> RunConfig:
        """One run's configuration."""
        base = self.models[model]
        return replace(base, seed=seed, split_seed=seed if self.resplit else base.split_seed)

    def runs(self) -> list[tuple[str, int]]:
        """Every run: all models of a seed before the next seed, so that an interrupted comparison is balanced."""
        return [(model, seed) for seed in self.seeds for model in self.models]

    @cached_property
    def tasks(self) -> Schema:
        """The tasks that any configuration trains."""
        schema = next(iter(self.configurations.values())).schema
        trained = {name for config in self.configurations.values() for name in schema.select(config.tasks).names}
        return schema.select([name for name in schema.names if name in trained])

    def splits(self, corpus: Corpus) -> dict[int, Split]:
        """The splits of the plan by their seeds.

        Raises:
            KitError: a split in which a part lacks a label of a task that is trained.
        """
        kind = next(iter(self.configurations.values())).split
        seeds = dict.fromkeys(self.config(*run).split_seed for run in self.runs())
        return {seed: make_split(corpus, kind, seed, self.tasks) for seed in seeds}


def run_folder(out: Path, model: str, seed: int) -> Path:
    """The folder of a run in a comparison's folder."""
    return out / RUNS / f"{model}-{seed}"


def check_name(name: str) -> None:
    """Check a configuration's name, which is used for folders and in tables.

    Raises:
        KitError: it has characters other than letters, digits and hyphens, or is a yardstick's name.
    """
    if not NAME_PATTERN.fullmatch(name.lower()) or len(name) > LONGEST_NAME:
        shown = repr(name) if len(name) <= LONGEST_NAME else f"{name[:20]!r}..."
        raise KitError(f"compare {shown}: expected a name of at most {LONGEST_NAME} letters, digits and hyphens, first a letter")
    if is_yardstick(name):
        raise KitError(f"compare {name}: this is the name of a yardstick; use another name")


def check_names(names: Iterable[str]) -> None:
    """Check all names of a comparison.

    Raises:
        KitError: as `check_name`, or two names differ only in case.
    """
    seen: set[str] = set()
    for name in names:
        check_name(name)
        if name.lower() in seen:
            raise KitError(f"compare {name}: differs from another name only in case, which some file systems ignore; use another")
        seen.add(name.lower())


def without_separate(changes: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Settings of a run, and whether each task has a model of its own, from the settings of a configuration.

    Raises:
        KitError: that is neither true nor false.
    """
    apart = changes.get(SEPARATE, False)
    if not isinstance(apart, bool):
        raise KitError(f"{SEPARATE} is {shown(apart)}, expected true (one model per task) or false (one for all tasks)")
    return {name: value for name, value in changes.items() if name != SEPARATE}, apart


def check_seeds(seeds: Sequence[int], where: str) -> None:
    """Check the seeds of a comparison.

    Raises:
        KitError: there are none or too many, or one is out of range or given twice.
    """
    if not 0 < len(seeds) <= MOST_SEEDS or not all(0 <= seed < 2**32 for seed in seeds):
        raise KitError(f"{where}: expected 1 to {MOST_SEEDS} seeds, each from 0 to {2**32 - 1}")
    twice = next((seed for seed, count in Counter(seeds).items() if count > 1), None)
    if twice is not None:
        raise KitError(f"{where}: {twice} is given twice, expected each seed once")


def check_same(configurations: Mapping[str, RunConfig], first: RunConfig, resplit: bool, before: str = "before") -> None:
    """Check that all configurations are tested on the same pairs as the first.

    Raises:
        KitError: the data, its tasks or the split differ.
    """
    # Tasks may differ; ones that the schema lacks are refused later, by the configuration's name.
    theirs, *others = (as_given(config, without=("tasks",)) for config in (first, *configurations.values()))
    ours = dict(zip(configurations, others, strict=True))
    for setting in map(flag, (*SAME, *(() if resplit else ("split_seed",)))):
        for name, given in ours.items():
            if given[setting] != theirs[setting]:
                raise KitError(f"compare {name}: {setting} is {given[setting]}, but {theirs[setting]} {before}; {SAME_PAIRS}")


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Settings of ``one`` that make ``other`` another configuration: ``--epochs 1, not 2``."""
    return sentences(as_given(one, without=NOT_COMPARED), as_given(other, without=NOT_COMPARED))


def merge(before: Plan, now: Plan, out: Path) -> Plan:
    """The earlier plan with the additions of a new one; a name keeps its configuration.

    Raises:
        KitError: a name had another configuration, or the pairs are not the same.
    """
    if before.resplit != now.resplit:
        raise KitError(
            f"--out {out}: was begun {'with' if before.resplit else 'without'} --resplit; do the same, or use another --out"
        )
    for name, config in now.configurations.items():
        known = before.configurations.get(name)
        changed = [] if known is None else differences(known, config)
        if known is not None and (name in before.separate) != (name in now.separate):
            had, has = (HOW_MANY[name in plan.separate] for plan in (before, now))
            changed.append(f"{had}, not {has}")
        if changed:
            raise KitError(
                f"compare {name}: {out} has it with {listed(changed)}; use the same settings, another name or another --out"
            )
    check_same(now.configurations, next(iter(before.configurations.values())), now.resplit, f"in {out}")
    configurations = {**before.configurations, **now.configurations}
    check_names(configurations)
    seeds = (*before.seeds, *(seed for seed in now.seeds if seed not in set(before.seeds)))
    check_seeds(seeds, f"--out {out}")
    return Plan(configurations, seeds, now.resplit, before.separate | now.separate)


def write_plan(plan: Plan, folder: Path) -> None:
    """Write a plan into a comparison's folder.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "configurations": {
            # A version that does not know it refuses the plan, and does not take the configuration for another one.
            name: {**to_dict(config), **({SEPARATE: True} if name in plan.separate else {})}
            for name, config in plan.configurations.items()
        },
        "seeds": list(plan.seeds),
        "resplit": plan.resplit,
    }
    write_whole(folder / PLAN, json.dumps(content, indent=2) + "\n")


def read_plan(folder: Path) -> Plan:
    """Read and check the plan of a comparison's folder, which may come from anybody.

    Raises:
        KitError: it is missing, or not in the format of `write_plan`.
    """
    path = folder / PLAN
    try:
        content = json.loads(read_regular(path).decode("utf-8-sig"))
        number, given, seeds, resplit = (content[key] for key in ("format", "configurations", "seeds", "resplit"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise KitError(f"{folder}: not a comparison: {PLAN} is missing or unreadable") from None
    if number != FORMAT:
        raise KitError(f"{path}: format {number!r} found, expected {FORMAT}")
    if not isinstance(given, dict) or not given or not all(isinstance(changes, dict) for changes in given.values()):
        raise KitError(f"{path}: configurations: expected at least one name with its settings")
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds) or not isinstance(resplit, bool):
        raise KitError(f"{path}: expected seeds as a list of whole numbers, and resplit as true or false")
    check_seeds(seeds, f"{path}: seeds")
    try:
        check_names(given)
        parts = {name: without_separate(changes) for name, changes in given.items()}
        configurations = {name: configure(RunConfig(), changes) for name, (changes, _) in parts.items()}
        for config in configurations.values():
            config.schema.select(config.tasks)
        check_same(configurations, next(iter(configurations.values())), resplit)
    except KitError as error:
        raise KitError(f"{path}: {error}") from None
    return Plan(configurations, tuple(seeds), resplit, frozenset(name for name, (_, apart) in parts.items() if apart))
