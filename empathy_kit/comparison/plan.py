"""The plan of a comparison: its configurations and seeds, written to its folder, read back, and extended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from empathy_kit.comparison.yardsticks import is_yardstick
from empathy_kit.config import RunConfig, configure, flag, to_dict, upgrade
from empathy_kit.contracts import NAME_PATTERN
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.schema import Schema
from empathy_kit.data.splits import Split, make_split
from empathy_kit.errors import KitError
from empathy_kit.files import write_whole
from empathy_kit.reading import read_regular
from empathy_kit.runs import inventory
from empathy_kit.runs.differences import as_given, shown_setting

FORMAT = 2
PLAN, RUNS = inventory.PLAN, inventory.RUNS
NOT_COMPARED = ("seed", "split_seed", "device", "fused", "threads")  # may differ between runs of one configuration
SAME = ("data", "schema", "split")  # all configurations must share these, to be tested on the same pairs
SAME_PAIRS = "all that is compared must be tested on the same pairs; use another --out"
MOST_SEEDS, LONGEST_NAME, MOST_TOLD = 10_000, 100, 6


@dataclass(frozen=True)
class Plan:
    """The configurations and seeds to compare."""

    configurations: Mapping[str, RunConfig]  # by name, in the order of the tables; the others are compared with the first
    seeds: tuple[int, ...]
    resplit: bool  # each seed draws a new split

    def config(self, name: str, seed: int) -> RunConfig:
        """One run's configuration."""
        base = self.configurations[name]
        return replace(base, seed=seed, split_seed=seed if self.resplit else base.split_seed)

    def runs(self) -> list[tuple[str, int]]:
        """Every run: all configurations of a seed before the next seed, so that an interrupted comparison is balanced."""
        return [(name, seed) for seed in self.seeds for name in self.configurations]

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


def run_folder(out: Path, name: str, seed: int) -> Path:
    """The folder of a run in a comparison's folder."""
    return out / RUNS / f"{name}-{seed}"


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
    for setting in (*SAME, *(() if resplit else ("split_seed",))):
        theirs = shown_setting(first, setting)
        for name, config in configurations.items():
            if shown_setting(config, setting) != theirs:
                found = shown_setting(config, setting)
                raise KitError(f"compare {name}: {flag(setting)} is {found}, but {theirs} {before}; {SAME_PAIRS}")


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Settings of ``one`` that differ in ``other``, as flags: ``--epochs 1, not 2``."""
    left, right = as_given(one), as_given(other)
    names = [name for name in {**left, **right} if name not in map(flag, NOT_COMPARED) and left.get(name) != right.get(name)]
    return [
        f"{name} {left.get(name, 'its default')}, not {right.get(name, 'its default')}"
        for name in names
        if f"--{name.removeprefix('-o ').partition('.')[0]}" not in names  # the options of different plugins are not compared
    ]


def listed(changed: Sequence[str]) -> str:
    """Differences in one line, the first few of many."""
    return "; ".join(changed[:MOST_TOLD]) + (f"; and {len(changed) - MOST_TOLD} more" if len(changed) > MOST_TOLD else "")


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
        if changed:
            raise KitError(
                f"compare {name}: {out} has it with {listed(changed)}; use the same settings, another name or another --out"
            )
    check_same(now.configurations, next(iter(before.configurations.values())), now.resplit, f"in {out}")
    configurations = {**before.configurations, **now.configurations}
    check_names(configurations)
    seeds = (*before.seeds, *(seed for seed in now.seeds if seed not in set(before.seeds)))
    check_seeds(seeds, f"--out {out}")
    return Plan(configurations, seeds, now.resplit)


def write_plan(plan: Plan, folder: Path) -> None:
    """Write a plan into a comparison's folder.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "configurations": {name: to_dict(config) for name, config in plan.configurations.items()},
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
    if number not in (1, FORMAT):
        raise KitError(f"{path}: format {number!r} found, expected {FORMAT}")
    if not isinstance(given, dict) or not given or not all(isinstance(changes, dict) for changes in given.values()):
        raise KitError(f"{path}: configurations: expected at least one name with its settings")
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds) or not isinstance(resplit, bool):
        raise KitError(f"{path}: expected seeds as a list of whole numbers, and resplit as true or false")
    check_seeds(seeds, f"{path}: seeds")
    try:
        check_names(given)
        configurations = {
            name: configure(RunConfig(), upgrade(changes) if number == 1 else changes) for name, changes in given.items()
        }
        for config in configurations.values():
            config.schema.select(config.tasks)
        check_same(configurations, next(iter(configurations.values())), resplit)
    except KitError as error:
        raise KitError(f"{path}: {error}") from None
    return Plan(configurations, tuple(seeds), resplit)
