"""How two runs differ: in settings, in what they were made of, and in their scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from empathy_kit.config import RunConfig, flag
from empathy_kit.data.schema import Schema
from empathy_kit.runs.inventory import Found
from empathy_kit.runs.machine import PARTS, way
from empathy_kit.runs.record import Record

Both = tuple[Any, Any]  # the first run's value and the second's; None where one has none
MOST_TOLD = 6
_OPTION = "-o "


def as_given(settings: RunConfig | Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Every setting by its flag and every option by its route, for comparing and showing.

    Args:
        settings: a configuration, or recorded settings. These may be of another version of the kit and are not checked.
        without: settings that are left out.
    """
    values = vars(settings) if isinstance(settings, RunConfig) else settings
    plain = {flag(name): _shown(values, name) for name in values if name not in ("options", *without)}
    return {**plain, **{f"{_OPTION}{route}": value for route, value in values["options"].items()}}


def _shown(values: Mapping[str, Any], name: str) -> Any:
    """A setting's value; of a schema only tasks and labels, because titles and columns do not change a run."""
    if name not in ("schema", "tasks"):
        return values[name]
    schema = values["schema"] if isinstance(values["schema"], Schema) else Schema.from_dict(values["schema"])
    if name == "tasks":
        return ",".join(schema.select(values["tasks"]).names)  # none, and all by name, are the same
    return "; ".join(f"{task.name}: {', '.join(task.labels)}" for task in schema.tasks)


def differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Both]:
    """What differs between two of `as_given`, by its flag or route; the options of different plugins are not compared."""
    found = _differing(left, right)
    return {name: both for name, both in found.items() if _plugin_of(name) not in found}


def _plugin_of(name: str) -> str | None:
    """The flag that names the plugin of an option: ``-o loss.ER.gamma`` -> ``--loss``; None for a setting."""
    return f"--{name.removeprefix(_OPTION).partition('.')[0]}" if name.startswith(_OPTION) else None


def sentences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """What differs between two of `as_given`, in words: ``--epochs 1, not 2``."""
    return [f"{name} {_told(left, name)}, not {_told(right, name)}" for name in differing(left, right)]


def _told(given: Mapping[str, Any], name: str) -> Any:
    value = given.get(name, "its default")
    return "none" if value is None else value


def listed(found: Sequence[str]) -> str:
    """Sentences in one line, the first few of many."""
    return "; ".join(found[:MOST_TOLD]) + (f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else "")


def differing_settings(one: Record, other: Record) -> dict[str, Both]:
    """Settings and options of two runs that differ, by their flags and routes."""
    return differing(as_given(one.config), as_given(other.config))


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
    return all(getattr(one, part)["sha256"] == getattr(other, part)["sha256"] for part in ("data", "split"))


def _origins(found: Record) -> dict[str, Any]:
    plugins = {
        f"plugin {kind}": " ".join(
            str(entry[part])[:40] for part in ("name", "distribution", "version", "sha256") if part in entry
        )
        for kind, entry in found.plugins.items()
    }
    hashes = {part: getattr(found, part)["sha256"][:12] for part in ("data", "split", "encoder")}
    return {
        "kit": found.kit,
        **{f"{part} sha256": value for part, value in hashes.items()},
        **plugins,
        **{f"version of {name}": value for name, value in found.versions.items()},
        **{name: way(str(value)) if name == "losses" else value for name, value in found.machine.items() if name in PARTS},
    }


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Both]:
    return {name: (left.get(name), right.get(name)) for name in {**left, **right} if left.get(name) != right.get(name)}
