"""Kill a run or a comparison, at any moment or while it writes; then the same command again, and the bytes are compared."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.torture.commands import Started, call, cold, expect, start
from benchmarks.torture.trials import Experiment, Trial
from benchmarks.torture.world import CONTENT, World
from empathy_kit.files import LOCK

TRIES = 8  # to hit a process before it has ended
COLD = 20  # one of so many processes starts as a user's does
COLD_SECONDS = 8.0  # what importing torch adds to a run's time
EXPECTED = {  # negative: by the signal, before the command has begun to handle it
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (128 + signal.SIGTERM, -signal.SIGTERM),
    signal.SIGINT: (1, 130, -signal.SIGINT),
}
SURVIVED = "the same command ends with the bytes of an undisturbed one (but clocks), and nothing half-written counts as whole"


def _kill(what: str, number: signal.Signals, moment: Callable[[Started, Path, float, random.Random], None]) -> Trial:
    def trial(world: World, at: int, dice: random.Random) -> str:
        expected = world.run if what == "run" else world.comparison
        folder = world.fresh(f"{what}-{at}")
        out = folder / what
        command = world.run_command(out) if what == "run" else world.compare_command(out)
        if what == "run" and dice.random() < 0.5:
            command += ["--checkpoint-minutes", "0"]  # writes after every step
        is_cold = at % COLD == COLD - 1
        for turn in range(TRIES):
            process = (cold if is_cold else start)(command, folder / "log")
            seconds = world.times.setdefault(what, 3.0) + COLD_SECONDS * is_cold
            moment(process, out, seconds * 0.8**turn, dice)
            was_running = process.send(number)
            ended = process.wait()
            # Python prints and drops an interrupt that comes within a destructor; its own trace is no fault of the kit's.
            dropped = ended.code == 0 and "Exception ignored in" in ended.text and "KeyboardInterrupt" in ended.text
            own = ended.code == -signal.SIGINT or dropped
            expect(own or not ended.broken, f"a traceback: {ended.text[:1500]} ... {ended.text[-500:]}")
            if was_running and ended.code in EXPECTED[number]:
                break
            expect(ended.code == 0, f"exit code {ended.code}: {ended.text[-500:]}")
            shutil.rmtree(out)  # it was faster, as the first one compiles the loss
            world.times[what] = min(world.times[what], ended.seconds)
        else:
            expect(False, f"{TRIES} times it ended before the signal came")
        whole = CONTENT[what](expected)
        named = what == "run" and out.exists()
        if named:
            expect(CONTENT[what](out) == whole, "a folder with the run's name is not the whole run")
        else:
            again = call(command, folder / "log")
            expect(again.code == 0, f"the same command ended with {again.code}: {again.text[-500:]}")
        expect(CONTENT[what](out) == whole, f"{out} differs from the undisturbed one")
        left = sorted(path.name for path in folder.iterdir() if not (named and _held_nothing(path)))
        shutil.rmtree(folder)
        expect(left == sorted(["log", what]), f"left over: {', '.join(left)}")
        return "cold start, continued" if is_cold else "continued"

    return trial


def _held_nothing(path: Path) -> bool:
    """Whether it is the reservation of a run that was killed after it had its name, and before it gave the reservation up."""
    return path.suffix == ".partial" and {each.name for each in path.iterdir()} <= {LOCK}


def _at_random(process: Started, out: Path, seconds: float, dice: random.Random) -> None:
    time.sleep(dice.uniform(0, seconds))


def _while_writing(process: Started, out: Path, seconds: float, dice: random.Random) -> None:
    """Within milliseconds after the finished run's folder, or a checkpoint's, has appeared under its first name."""
    partial = out.with_name(f"{out.name}.partial")
    pattern = dice.choice(["result", "result", ".checkpoint-*", "checkpoint-*"])
    while process.is_running() and not any(partial.glob(pattern)):
        time.sleep(0.0005)
    time.sleep(dice.uniform(0, 0.05))


EXPERIMENTS = {
    "kill-run": Experiment(_kill("run", signal.SIGKILL, _at_random), 150, "SIGKILL of `run` at a random moment", SURVIVED),
    "kill-compare": Experiment(
        _kill("compare", signal.SIGKILL, _at_random), 50, "SIGKILL of `compare` at a random moment", SURVIVED, few=0
    ),
    "kill-writing": Experiment(_kill("run", signal.SIGKILL, _while_writing), 50, "SIGKILL of `run` while it writes", SURVIVED),
    "terminate": Experiment(_kill("run", signal.SIGTERM, _at_random), 50, "SIGTERM to `run`", SURVIVED, few=0),
    "interrupt": Experiment(_kill("run", signal.SIGINT, _at_random), 25, "SIGINT to `run`", SURVIVED),
}
