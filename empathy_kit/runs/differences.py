"""How two runs differ: in settings, in what they were made of, and in their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empathy_kit.config import RunConfig, configure, flag, settings
from empathy_kit.runs.inventory import Found
from empathy_kit.runs.machine import PARTS, way
from empathy_kit.runs.record import Record

Both = tuple[Any, Any]  # the first run's value and the second's; None where one has none


def shown_setting(config: RunConfig, setting: str) -> Any:
    """A setting's value; of a schema only tasks and labels, because titles and columns do not change a run."""
    if setting == "schema":
        return "; ".join(f"{task.name}: {', '.join(task.labels)}" for task in config.schema.tasks)
    if setting == "tasks":
        return ",".join(config.schema.select(config.tasks).names)  # none, and all by name, are the same
    return getattr(config, setting)


def as_given(config: RunConfig) -> dict[str, Any]:
    """Every setting by its flag and every option by its route, for comparing and showing."""
    plain = {flag(name): shown_setting(config, name) for name in settings()}
    return {**plain, **{f"-o {route}": value for route, value in config.options.items()}}


def differing_settings(one: Record, other: Record) -> dict[str, Both]:
    """Settings and options that differ, by their flags; the options of different plugins are not compared."""
    found = _differing(*(as_given(configure(RunConfig(), each.config)) for each in (one, other)))
    return {
        name: both
        for name, both in found.items()
        if f"--{name.removeprefix('-o ').partition('.')[0]}" not in found or name.startswith("--")
    }


def differing_origins(one: Record, other: Record) -> dict[str, Both]:
    """What the runs were made of, where it differs: data, split, encoder, versions, plugins, machine."""
    return _differing(*map(_origins, (one, other)))


def score_pairs(one: Found, other: Found) -> dict[str, dict[str, Both]]:
    """Task to its headline scores in both runs; tasks that only one of them has are left out."""
    left, right = one.scores, other.scores
    return {
        task: {name: (value, right[task][name]) for name, value in scores.items()}
        for task, scores in left.items()
        if task in right
    }


def same_test_pairs(one: Record, other: Record) -> bool:
    """Whether both were tested on the same pairs: a difference of scores is the models' only then."""
    return all(
        (left := getattr(one, part).get("sha256")) is not None and left == getattr(other, part).get("sha256")
        for part in ("data", "split")
    )


def _origins(found: Record) -> dict[str, Any]:
    plugins = {
        f"plugin {kind}": " ".join(
            str(entry[part])[:40] for part in ("name", "distribution", "version", "sha256") if part in entry
        )
        for kind, entry in found.plugins.items()
    }
    hashes = {part: str(getattr(found, part).get("sha256"))[:12] for part in ("data", "split", "encoder")}
    return {
        "kit": found.kit,
        **{f"{part} sha256": value for part, value in hashes.items()},
        **plugins,
        **{f"version of {name}": value for name, value in found.versions.items()},
        **{name: way(str(value)) if name == "losses" else value for name, value in found.machine.items() if name in PARTS},
    }


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Both]:
    return {name: (left.get(name), right.get(name)) for name in {**left, **right} if left.get(name) != right.get(name)}
