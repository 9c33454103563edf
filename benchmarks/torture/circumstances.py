"""A clock that jumps, folders that cannot be written, and two processes that do the same at once."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.torture.commands import call, expect, start
from benchmarks.torture.trials import Experiment
from benchmarks.torture.world import CONTENT, World

YEAR = 365 * 86_400.0
VERSION, OVERRIDE = 0x20080522, 1 << 1  # of Linux's capabilities, and the one by which root writes everywhere
JUMPS = (-50 * YEAR, -YEAR, -3600.0, -1.0, 1.0, 3600.0, YEAR, 50 * YEAR)
# What each command makes, by its name in the world, where it is made when it is first asked for.
MADE = {"run": "run", "compare": "comparison", "predict": "predictions", "export": "exported"}


def _jumping(dice: random.Random) -> Callable[[], None]:
    real, offset = time.time, [0.0]

    def jump() -> float:
        if dice.random() < 0.2:
            offset[0] = dice.choice(JUMPS)
        return max(0.0, real() + offset[0])

    def before() -> None:
        time.time = jump

    return before


def _clock(world: World, number: int, dice: random.Random) -> str:
    """A command whose clock jumps, stopped once where it is a run, over leftovers from the future and the past."""
    what = ("predict", "run", "run", "compare")[number % 4]
    expected: Path = getattr(world, MADE[what])
    folder = world.fresh(f"clock-{number}")
    out = folder / expected.name
    command = {"run": world.run_command, "predict": world.predict_command, "compare": world.compare_command}[what](out)
    log = folder.with_name(f"{folder.name}.log")
    if what == "run":
        process = start(command, log, before=_jumping(dice))
        time.sleep(dice.uniform(0, world.times.get("run", 3.0)))
        process.send(dice.choice([signal.SIGKILL, signal.SIGTERM]))
        process.wait()
        for path in folder.rglob("*"):
            then = max(0.0, time.time() + dice.choice(JUMPS))
            os.utime(path, (then, then))
    ended = call(command, log, before=_jumping(dice)) if not (what == "run" and out.exists()) else None
    expect(ended is None or ended.code == 0, f"{what}: exit code {ended and ended.code}: {ended and ended.text[-400:]}")
    expect(CONTENT[what](out) == CONTENT[what](expected), f"{what}: other bytes")
    expect([path.name for path in folder.iterdir()] == [out.name], f"{what}: something is left over")
    shutil.rmtree(folder)
    return what


def _read_only(world: World, number: int, dice: random.Random) -> str:
    """A command of a user who may only read, in a folder that holds everything it reads."""
    name, arguments, writes = _cases(world)[number]
    folder = world.fresh(f"read-only-{number}")
    log = folder.with_name(f"{folder.name}.log")
    before = _tree(world.folder)

    def prepare() -> None:
        os.chdir(folder)
        if not os.getuid():
            _obey_permissions()

    ended = call(arguments, log, before=prepare)
    expect(not ended.broken, f"{name}: a traceback: {ended.text[-600:]}")
    if writes:
        expect(ended.refused, f"{name}: exit code {ended.code}, expected one line: {ended.text[-300:]}")
    else:
        expect(ended.code == 0, f"{name}: exit code {ended.code}: {ended.text[-300:]}")
    expect(_tree(world.folder) == before, f"{name}: something was changed")
    return "one line" if writes else "works"


def _obey_permissions() -> None:
    """Take from this process, which is root's, the right to write where a folder's permissions do not let it."""
    library = ctypes.CDLL(None, use_errno=True)
    header, rights = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    for call_, at in ((library.capget, ()), (library.capset, (0, 1))):
        for index in at:  # effective and permitted
            rights[index] &= ~OVERRIDE
        if call_(header, rights):
            raise OSError(ctypes.get_errno(), "root keeps its rights")


def _tree(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob("*") if "trials" not in path.parts and path.suffix != ".log"}


def _cases(world: World) -> list[tuple[str, list[str], bool]]:
    there = world.folder / "read-only"
    if not there.exists():
        made = [world.run] if world.few else [world.run, world.exported, world.comparison]
        there.mkdir()
        for path in made:
            shutil.copytree(path, there / path.name)
        for path in (there, *there.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
    run, out = str(there / "run"), there / "new"
    cases = [
        ("runs prune", ["runs", "prune", run, "--yes"], True),
        ("runs verify", ["runs", "verify", run], False),
        ("run", world.run_command(out), True),
        ("run, a new folder", world.run_command(there / "a" / "b"), True),
        ("run, frozen layers", [*world.run_command(out), "--freeze-layers", "1"], True),
        ("compare", world.compare_command(out), True),
        ("compare, continued", world.compare_command(there / "comparison"), True),
        ("compare --figures-from", ["compare", "--figures-from", str(there / "comparison")], True),
        ("predict", ["predict", run, str(world.table), "--out", str(there / "new.csv")], True),
        ("export", ["export", run, "--out", str(out), "--no-scores"], True),
        ("publish --dry-run", ["publish", run, "me/model", "--dry-run", str(out)], True),
        ("data describe --picture", ["data", "describe", "--encoder", str(world.encoder), "--picture", f"{out}.svg"], True),
        ("plugins new", ["plugins", "new", "mine", "--kind", "loss", "--into", str(there)], True),
        ("runs list", ["runs", "list", str(there)], False),
        ("runs show", ["runs", "show", run], False),
        ("runs diff", ["runs", "diff", run, run], False),
        ("evaluate", ["evaluate", run, "sample"], False),
        ("evaluate, exported", ["evaluate", str(there / "exported"), "sample"], False),
        ("cache show", ["cache", "show"], False),
        ("data check", ["data", "check"], False),
    ]
    return cases[:3] if world.few else cases


def _two(world: World, number: int, dice: random.Random) -> str:
    """One output, two processes: one of them makes it, and the other has one line."""
    what = ("predict", "run", "compare", "export", "predict", "run")[number % 6]
    expected: Path = getattr(world, MADE[what])
    folder = world.fresh(f"two-{number}")
    out = folder / expected.name
    make = {"run": world.run_command, "compare": world.compare_command, "predict": world.predict_command}
    command = make.get(what, world.export_command)(out)
    logs = [folder.with_name(f"{folder.name}-{which}.log") for which in (1, 2)]
    started = []
    for log in logs:
        started.append(start(command, log))
        time.sleep(dice.choice([0.0, dice.uniform(0, 0.1), dice.uniform(0, 1.0)]))
    ended = [process.wait() for process in started]
    for each in ended:
        expect(not each.broken, f"{what}: a traceback: {each.text[-600:]}")
        expect(each.code == 0 or each.refused, f"{what}: exit code {each.code}: {each.text[-300:]}")
    won = [each.code for each in ended].count(0)
    expect(won == 1 or (what == "compare" and won == 2), f"{what}: {won} of two have written it")
    expect(CONTENT[what](out) == CONTENT[what](expected), f"{what}: other bytes")
    expect([path.name for path in folder.iterdir()] == [out.name], f"{what}: something is left over")
    shutil.rmtree(folder)
    return what if won == 1 else "compare, one after the other"


EXPERIMENTS = {
    "clock": Experiment(
        _clock, 40, "a clock that jumps by up to 50 years", "the bytes of an undisturbed command, and nothing left over"
    ),
    "read-only": Experiment(
        _read_only,
        20,
        "a user who may only read",
        "what writes ends with one line, what reads works, and nothing is changed",
        few=3,
        limit=lambda world: len(_cases(world)),
    ),
    "two-at-once": Experiment(
        _two, 48, "two processes with one output", "one of them writes it, undisturbed; the other ends with one line"
    ),
}
