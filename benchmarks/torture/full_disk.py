"""A disk that is full at the n-th call that writes, for every n: of Python, of safetensors, of tokenizers, of Arrow alike."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.torture.commands import Ended, call, expect
from benchmarks.torture.trials import Experiment
from benchmarks.torture.world import CONTENT, World

SOURCE = Path(__file__).with_name("fault.c")
NEVER = 10**9
SURVIVED = (
    "one line and exit code 2, or a complete result; with room again, the same command ends with the bytes of an undisturbed one"
)


def preload() -> None:
    """Start this process again with the library that makes calls fail, unless it is loaded."""
    if "fault.so" in os.environ.get("LD_PRELOAD", ""):
        return
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise SystemExit("a full disk needs Linux and a C compiler, to make the calls of the system fail")
    library = Path(tempfile.gettempdir()) / f"torture-{os.getuid()}" / "fault.so"
    library.parent.mkdir(exist_ok=True, mode=0o700)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    os.environ["LD_PRELOAD"] = str(library)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _arm(folder: Path, first: int, last: int) -> Callable[[], None]:
    def arm() -> None:
        ctypes.CDLL(None).torture_arm(str(folder).encode(), ctypes.c_long(first), ctypes.c_long(last))

    return arm


def _calls(world: World, what: str) -> int:
    """How many calls of an undisturbed command write."""
    counted = world.folder / f"calls-{what}"
    if not counted.exists():
        folder = world.fresh(f"counted-{what}")
        library = ctypes.CDLL(None)
        library.torture_calls.restype = ctypes.c_long
        ended = call(
            COMMANDS[what](world, folder / what),
            folder.with_name("counted.log"),
            before=_arm(folder, 0, 0),
            after=lambda: counted.write_text(str(library.torture_calls())),
        )
        expect(ended.code == 0, f"{what} failed: {ended.text[-300:]}")
        shutil.rmtree(folder)
    return int(counted.read_text())


def _full(world: World, number: int, dice: random.Random) -> str:
    trials = _trials(world)
    what, at, last = trials[number % len(trials)]
    folder = world.fresh(f"full-{number}")
    out = folder / what
    elsewhere = world.fresh(f"temporary-{number}")

    def before() -> None:
        tempfile.tempdir = str(elsewhere)
        _arm(folder, at, last)()

    command = COMMANDS[what](world, out)
    ended = call(command, elsewhere / "log", before=before)
    ending = _judged(what, ended, out, world)
    if not (ended.code == 0 and out.exists()):
        again = call(command, elsewhere / "log")
        expect(again.code == 0, f"{what}, call {at}: with room again {again.code}: {again.text[-400:]}")
    whole = CONTENT[_kind(what)](_expected(what, world))
    expect(CONTENT[_kind(what)](out) == whole, f"{what}, call {at}: other bytes in the end")
    left = sorted(path.name for path in folder.iterdir())
    expect(left == [out.name], f"{what}, call {at}: left over: {', '.join(left)}")
    shutil.rmtree(folder)
    shutil.rmtree(elsewhere)
    return f"{what}: {ending}"


def _judged(what: str, ended: Ended, out: Path, world: World) -> str:
    expect(not ended.broken, f"{what}: a traceback: {ended.text[-600:]}")
    whole = CONTENT[_kind(what)](_expected(what, world))
    if ended.code == 0:
        expect(CONTENT[_kind(what)](out) == whole, f"{what}: it is said to be complete, and is not")
        return "complete"
    if what == "compare":  # a run that fails is a line of its own
        expect(ended.code == 1 or ended.refused, f"{what}: exit code {ended.code}: {ended.text[-300:]}")
        return "one line"
    expect(ended.refused, f"{what}: exit code {ended.code}: {ended.text[-300:]}")
    if out.exists():
        expect(CONTENT[_kind(what)](out) == whole, f"{what}: half of it has its name")
    _, found, kept = ended.text.strip().rpartition("the finished run is in ")
    if found and not kept.endswith("without its model"):
        inside = CONTENT["run"](Path(kept))
        expect(inside == whole, f"{what}: what was kept elsewhere is not whole")
        shutil.rmtree(kept)
        return "one line, and kept elsewhere"
    if found:
        shutil.rmtree(kept.partition(", without")[0])
    return "one line"


def _kind(what: str) -> str:
    return what.partition(".")[0]


def _expected(what: str, world: World) -> Path:
    if _kind(what) != "predict":
        return {"run": world.run, "compare": world.comparison, "export": world.exported}[what]
    path = world.folder / "expected" / what
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        ended = call(world.predict_command(path), world.folder / "expected.log")
        expect(ended.code == 0, f"predict failed: {ended.text[-300:]}")
    return path


COMMANDS: dict[str, Callable[[World, Path], list[str]]] = {
    "run": World.run_command,
    "compare": World.compare_command,
    "predict.csv": World.predict_command,
    "predict.parquet": World.predict_command,
    "export": World.export_command,
}


def _trials(world: World) -> list[tuple[str, int, int]]:
    """Every call of every command, from which on the disk is full, or which fails alone; in a mixed order."""
    found = []
    for what in ["predict.csv"] if world.few else COMMANDS:
        # A comparison's runs are processes of their own, of which each counts its own calls.
        calls = max(_calls(world, what), _calls(world, "run") if what == "compare" else 0)
        found += [(what, at, last) for at in range(1, calls + 1) for last in (NEVER, at)]
    random.Random(0).shuffle(found)
    return found


EXPERIMENTS = {
    "full-disk": Experiment(
        _full,
        1000,
        "the disk is full at the n-th call that writes, by `run`, `compare`, `predict` and `export`",
        SURVIVED,
        few=3,
        preload=True,
        limit=lambda world: len(_trials(world)),
    ),
}
