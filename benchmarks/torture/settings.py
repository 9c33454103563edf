"""Mutated settings - a run.json, a TOML file - and comparison plans: read as they are written, or refused in one line."""

from __future__ import annotations

import json
import os
import random
from typing import Any

from benchmarks.torture.commands import Ended, expect, told
from benchmarks.torture.tables import mutated
from benchmarks.torture.trials import Experiment
from benchmarks.torture.world import World

ESCAPE = "\x1b[2J\x1b]0;owned\x07"
SCRIPT = "<script>alert(1)</script>"
LINK = "[x](javascript:alert(1))\n\n# Owned\n"
HOSTILE: list[Any] = [
    ESCAPE, SCRIPT, LINK, "../../../x", "/dev/zero", "/", "\u202egnp", "\ud800", "\0", "a" * 100_000, "| a | b |",
    "{0.__class__}", "%s%n", "none", "nan", "", " ", "focal", "ER,EX", -1, 0, 1, 2**31, 2**63, 10**400, 0.5, 1e308,
    float("nan"), float("inf"), True, False, None, [], {}, [[]], {"a": {"b": [1]}}, ["ER", "ER"], ["loss"], {"loss.gamma": "x"},
    {"../x": 1},
]  # fmt: skip
TOKENS = [each.encode() for each in ('"', "{", "}", "[", "]", ",", ":", "\n", "\\", "null", "1e999", "-")]
TOKENS += [b"NaN", b"\0", b"=", b"#", b"'''", b"[" * 200_000, b"9" * 5000, b"\xff", b"\\ud800", b"\xef\xbb\xbf"]
ACCEPTED = "these settings are accepted"


def spoiled(content: Any, dice: random.Random) -> Any:
    """A JSON value with one of its parts replaced, left out, or put under another name."""
    if isinstance(content, dict) and content and dice.random() < 0.9:
        name = dice.choice(list(content))
        kind = dice.randrange(8)
        if kind == 0:
            return {key: value for key, value in content.items() if key != name}
        if kind == 1:
            other = dice.choice([each for each in HOSTILE if isinstance(each, str)])
            return {(other if key == name else key): value for key, value in content.items()}
        return {**content, name: spoiled(content[name], dice)}
    if isinstance(content, list) and content and dice.random() < 0.7:
        at = dice.randrange(len(content))
        return [*content[:at], spoiled(content[at], dice), *content[at + dice.randrange(2) :]]
    return dice.choice(HOSTILE)


def as_bytes(content: Any, dice: random.Random) -> bytes:
    """The value as JSON; in a third of all cases its bytes are mutated too."""
    data = json.dumps(content).encode()
    return mutated(data, dice, TOKENS) if dice.random() < 0.3 else data


def check_told(ended: Ended) -> None:
    """No traceback, and nothing that a terminal would obey."""
    expect(not ended.broken, f"a traceback: {ended.text[-700:]}")
    expect(ended.code in (0, 1, 2), f"exit code {ended.code}: {ended.text[-300:]}")
    bad = next((line for line in ended.text.split("\n") if not line.isprintable()), None)
    expect(bad is None, f"unprintable: {bad!r}"[:300])


def _settings(world: World, number: int, dice: random.Random) -> str:
    _stop_before_training()
    folder = world.folder / f"settings-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    record = json.loads((world.run / "run.json").read_text())
    as_toml = dice.random() < 0.3
    if as_toml:
        given = _table(spoiled({name: value for name, value in record["config"].items() if not isinstance(value, dict)}, dice))
        data = "".join(f"{json.dumps(name)} = {_toml(value)}\n" for name, value in given.items() if value is not None).encode()
        data = mutated(data, dice, TOKENS) if dice.random() < 0.3 else data
    else:
        config = spoiled(record["config"], dice)
        data = as_bytes(dice.choice([{**record, "config": config}, config, spoiled(record, dice)]), dice)
    path = folder / ("run.toml" if as_toml else "run.json")
    path.write_bytes(data)
    _accepted.clear()
    ended = told(["run", "--config", str(path), "--out", str(folder / "out")])
    check_told(ended)
    expect(ended.refused, f"exit code {ended.code}: {ended.text[-300:]}")
    expect(sorted(each.name for each in folder.iterdir()) == [path.name], "something was written")
    path.unlink()
    if ACCEPTED not in ended.text:
        return "refused"
    _check_read(_given(data, as_toml))
    return "read"


def _given(data: bytes, as_toml: bool) -> dict[str, Any]:
    """The settings as another reader sees them."""
    import tomllib

    found = tomllib.loads(data.decode("utf-8-sig")) if as_toml else json.loads(data.decode("utf-8-sig"))
    return dict(found.get("config", found))


def _check_read(given: dict[str, Any]) -> None:
    read = _accepted[0]
    for name, value in given.items():
        if name in ("data", "encoder", "schema", "options", "format"):  # paths are found elsewhere; options are the plugins' own
            continue
        expect(name in read, f"{name!r} is ignored"[:200])
        found = read[name]
        same = found == value and isinstance(found, bool) == isinstance(value, bool)
        expect(same or _text(found) == _text(value), f"{name} {value!r} is read as {found!r}"[:300])


def _text(value: Any) -> str:
    """A value as a flag has it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, str):
        text = ",".join(part.strip() for part in value.split(",")).lower()
        try:
            return str(float(text))
        except ValueError:
            return text
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(float(value))


def _toml(value: Any) -> str:
    if isinstance(value, float) and value != value:
        return "nan"
    text = json.dumps(value)
    return {"Infinity": "inf", "-Infinity": "-inf"}.get(text, text)


_accepted: list[dict[str, Any]] = []


def _stop_before_training() -> None:
    """Replace training by the check of plugins and options, which comes first in it."""
    from empathy_kit.config import RunConfig, to_dict
    from empathy_kit.errors import KitError
    from empathy_kit.runs import train
    from empathy_kit.runs.choose import all_options, choose_plugins

    def stop(config: RunConfig, registry: Any, *_: Any, **__: Any) -> Any:
        all_options(choose_plugins(config, registry))
        config.schema.select(config.tasks)
        _accepted.append(to_dict(config))
        yield from ()  # a generator, as it is replaced
        raise KitError(ACCEPTED)

    train.run = stop


def _plan(world: World, number: int, dice: random.Random) -> str:
    """A comparison's plan, or a file of configurations."""
    from empathy_kit.comparison.parse import parse_configurations
    from empathy_kit.comparison.plan import PLAN, Plan, read_plan, write_plan
    from empathy_kit.config import COMPARISON, FOUR, RunConfig, configure
    from empathy_kit.errors import KitError

    folder = world.folder / f"plans-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    write_plan(Plan({name: configure(RunConfig(), COMPARISON[name]) for name in FOUR}, (0, 1), False), folder)
    plan = json.loads((folder / PLAN).read_text())
    try:
        if dice.random() < 0.6:
            data = as_bytes(spoiled(plan, dice), dice)
            (folder / PLAN).write_bytes(data)
            read = read_plan(folder)
            write_plan(read, folder)
            expect(read_plan(folder) == read, "written again, the plan is another")
            theirs = json.loads(data.decode("utf-8-sig"))
            expect(list(theirs["configurations"]) == list(read.configurations), "other configurations")
            expect(tuple(theirs["seeds"]) == read.seeds and theirs["resplit"] is read.resplit, "other seeds")
        else:
            settings = {"loss": "focal", "epochs": 3, "lr": 0.1, "tasks": ["ER"], "rationale": "none"}
            tables = {name: _table(spoiled(settings, dice)) for name in dice.sample(["a", "b", ESCAPE, SCRIPT, "../x", "T1"], 2)}
            lines = [f"[{json.dumps(name)}]\n" + "".join(_toml_lines(table)) for name, table in tables.items()]
            data = "".join(lines).encode("utf-8", "surrogatepass")
            (folder / "plan.toml").write_bytes(mutated(data, dice, TOKENS) if dice.random() < 0.3 else data)
            parse_configurations((), folder / "plan.toml", RunConfig())
    except KitError as error:
        from empathy_kit.errors import visible

        expect(len(str(error)) < 2000 or len(visible(str(error)).split("\n")) == 1, f"more than a line: {str(error)[:200]!r}")
        return "refused"
    return "read"


def _table(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {"x": content}


def _toml_lines(table: dict[str, Any]) -> list[str]:
    return [f"{json.dumps(name)} = {_toml(value)}\n" for name, value in table.items() if value is not None]


EXPERIMENTS = {
    "settings": Experiment(
        _settings,
        2000,
        "mutated settings: run.json and TOML given as --config",
        "every setting is read as it is written, or the file is refused in one line",
        inside=True,
        few=30,
        limit=lambda world: 10**9 * bool(world.run),  # made before children share it
    ),
    "plans": Experiment(
        _plan,
        500,
        "mutated plans of comparisons, and files of configurations",
        "read as it is written, or refused in one line",
        inside=True,
        few=30,
    ),
}
