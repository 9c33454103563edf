"""Damage one file of what the kit has written - a bit, the end, zeros, another file's bytes - and see whether it is noticed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.torture.commands import call, expect, in_child, told
from benchmarks.torture.trials import Experiment
from benchmarks.torture.world import World

FOUND, HARMLESS = "found", "harmless"
SURVIVED = "found, in one line; or harmless: the same answers"
Change = Callable[[bytearray, random.Random, World], bytes]


def _flip(data: bytearray, dice: random.Random, world: World) -> bytes:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def _other(data: bytearray, dice: random.Random, world: World) -> bytes:
    """A truncation, zeros, two blocks exchanged, or another file."""
    start, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    kind = dice.randrange(4)
    if kind == 0:
        return bytes(data[:start])
    if kind == 1:
        return bytes(data[:start] + bytes(end - start) + data[end:])
    if kind == 2:
        return bytes(data[end:] + data[start:end] + data[:start])
    return dice.choice([path for path in sorted(world.run.rglob("*")) if path.is_file()]).read_bytes()


def _damage(change: Change) -> Callable[[World, int, random.Random], str]:
    def trial(world: World, number: int, dice: random.Random) -> str:
        kinds = _kinds(world)
        kind = kinds[number % len(kinds)]
        make, look = KINDS[kind]
        original = make(world)
        copy = world.folder / f"damaged-{os.getpid()}" / kind
        if not copy.exists():
            shutil.copytree(original, copy)
        path = dice.choice([each for each in sorted(copy.rglob("*")) if each.is_file() and each.name != ".lock"])
        before = path.read_bytes()
        after = change(bytearray(before), dice, world)
        if after == before:
            return HARMLESS
        path.write_bytes(after)
        try:
            ended = look(world, copy)
        except Exception as error:
            raise RuntimeError(f"{kind}, {path.relative_to(copy)}: {type(error).__name__}: {error}") from error
        finally:
            path.write_bytes(before)
            for each in set(copy.rglob("*")) - {copy / name.relative_to(original) for name in original.rglob("*")}:
                if each.is_file():
                    each.unlink()
        return f"{kind}: {ended}"

    return trial


def _answers(model: Any, world: World) -> Any:
    pairs = [json.loads(line) for line in world.table.read_text().splitlines()[:4]]
    return [repr(each) for each in model.predict([(pair["seeker_post"], pair["response_post"]) for pair in pairs])]


_known: dict[str, Any] = {}


def _same(what: str, found: Callable[[Path], Any], good: Path, copy: Path) -> str:
    """Whether the damage is found, or what is read is still the same."""
    from empathy_kit.errors import KitError

    if what not in _known:
        _known[what] = found(good)
    try:
        now = found(copy)
    except KitError as error:
        expect("\n" not in str(error), f"more than one line: {error}")
        return FOUND
    expect(now == _known[what], "it is not found, and what is read has changed")
    return HARMLESS


def _run(world: World, copy: Path) -> str:
    """`runs verify`, and predictions."""
    from empathy_kit.inference.model import load

    ended = told(["runs", "verify", str(copy)])
    expect(not ended.broken and ended.code in (0, 1, 2), f"runs verify: {ended.code}: {ended.text[-300:]}")
    loads = _same("run", lambda path: _answers(load(path), world), world.run, copy)
    expect(loads == HARMLESS or ended.code, "runs verify calls it whole, and it cannot be loaded")
    return FOUND if ended.code else loads


def _exported(world: World, copy: Path) -> str:
    from empathy_kit.inference.model import load

    return _same("exported", lambda path: _answers(load(path, threads=1), world), world.exported, copy)


def _comparison(world: World, copy: Path) -> str:
    """The report, made anew from the finished runs; a run that is said to be missing counts as found."""
    from empathy_kit.comparison import pages
    from empathy_kit.comparison.finished import read_finished
    from empathy_kit.errors import KitError

    def figures(path: Path) -> Any:
        results = read_finished(path)
        if results.missing or results.left_out:
            raise KitError("something is missing")
        return pages.to_json(pages.summarise(results))

    return _same("comparison", figures, world.comparison, copy)


def _stopped(world: World) -> Path:
    """The folder of a run that was stopped after some steps."""
    path = world.folder / "stopped.partial"
    if not path.exists():
        expect(in_child(lambda: _stop(world)) == 0, "no run could be stopped")
    return path


def _stop(world: World) -> None:
    from itertools import islice

    from empathy_kit.config import RunConfig, configure
    from empathy_kit.plugins import load_registry
    from empathy_kit.runs.train import run

    settings = {"epochs": 2, "threads": 1, "max_tokens": 16, "batch_size": 64, "encoder": str(world.encoder)}
    going = run(configure(RunConfig(), settings), load_registry(), world.folder / "stopped", minutes=0)
    list(islice(going, 4))
    going.close()


def _partial(world: World, copy: Path) -> str:
    """The newest checkpoint that is taken: another than the newest only with a warning."""
    from empathy_kit.errors import KitError
    from empathy_kit.runs import checkpoints

    def state(path: Path) -> Any:
        found, faults = checkpoints.newest(path)
        if faults:
            raise KitError(faults[0])
        assert found is not None
        return found.identity, repr(found.packed), repr(found.state())

    return _same("partial", state, _stopped(world), copy)


def _caches(world: World) -> Path:
    """The cache of a run with frozen layers."""
    folder = world.folder / "cache"
    if not (folder / "states").exists():
        out = world.folder / "frozen"
        ended = call([*world.run_command(out), "--freeze-layers", "1"], world.folder / "frozen.log")
        expect(ended.code == 0, f"a run with frozen layers failed: {ended.text[-300:]}")
    return folder


def _cached(world: World, copy: Path) -> str:
    """Frozen layers' states, and the compiled loss: either is made anew, or is what it was."""
    import numpy as np

    from empathy_kit.core import frozen
    from empathy_kit.core.kernels import build

    for path in sorted((copy / "states").iterdir()):
        whole = np.load(_caches(world) / "states" / path.name)
        states = object.__new__(frozen.FrozenStates)
        states.path = path
        read = states._open(whole.shape)
        if read is None:
            return FOUND
        expect(np.array_equal(read, whole), "other states are read")
    for path in sorted((copy / "kernels").glob("*.so")):
        if not path.name.endswith(f"-{build._digest(path.read_bytes())}.so"):
            return FOUND
    return HARMLESS


KINDS: dict[str, tuple[Callable[[World], Path], Callable[[World, Path], str]]] = {
    "run": (lambda world: world.run, _run),
    "partial": (_stopped, _partial),
    "comparison": (lambda world: world.comparison, _comparison),
    "caches": (_caches, _cached),
    "exported model": (lambda world: world.exported, _exported),
}


def _kinds(world: World) -> list[str]:
    return ["run", "partial"] if world.few else list(KINDS)


def _prepared(world: World) -> int:
    """Make all of it before children share it."""
    for kind in _kinds(world):
        KINDS[kind][0](world)
    _ = world.table
    return 10**9


EXPERIMENTS = {
    "flip": Experiment(_damage(_flip), 1000, "one bit flipped in a file", SURVIVED, inside=True, few=10, limit=_prepared),
    "damage": Experiment(
        _damage(_other), 200, "a file cut, zeroed, swapped or replaced", SURVIVED, inside=True, few=6, limit=_prepared
    ),
}
