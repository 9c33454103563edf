"""Trials of an experiment: each draws from a seed of its own, so that any of them can be repeated alone; and their count."""

from __future__ import annotations

import json
import os
import random
import resource
import select
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.torture.world import World

SECONDS = 5  # of processor time that a trial of hostile input may take
PATIENCE = 180.0  # seconds by the clock, for one that waits without computing
BATCH = 100  # trials per child


class LostError(Exception):
    """A trial that was not survived."""


Trial = Callable[[World, int, random.Random], str]  # the trial's number and dice -> in a word, how it ended


@dataclass(frozen=True)
class Experiment:
    """One row of the table."""

    trial: Trial
    count: int  # of the nightly size
    what: str
    survived: str  # what that means
    inside: bool = False  # many trials share a child process, each with limits of time
    few: int = 1  # of the small part that belongs to the tests; 0 leaves it out
    preload: bool = False  # needs the library that makes calls of the system fail
    limit: Callable[[World], int] | None = None  # how many trials there can be


@dataclass
class Count:
    """How an experiment's trials ended."""

    tried: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def add(self, number: int, ending: str, lost: bool) -> None:
        """Count one trial."""
        self.tried += 1
        if lost:
            self.lost.append(f"trial {number}: {ending}")
        else:
            self.endings[ending] += 1

    def as_value(self) -> dict[str, Any]:
        """The count as JSON has it."""
        survived = self.tried - len(self.lost)
        return {"tried": self.tried, "survived": survived, "endings": dict(sorted(self.endings.items())), "lost": self.lost}


def conduct(name: str, experiment: Experiment, world: World, seed: int, numbers: range) -> Iterator[tuple[int, str, bool]]:
    """Every trial's number, how it ended, and whether that is a loss."""

    def one(number: int) -> tuple[str, bool]:
        dice = random.Random(f"{name} {seed} {number}")  # seeded with text: alike on every machine
        try:
            return experiment.trial(world, number, dice), False
        except LostError as lost:
            return str(lost), True
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})", True

    if not experiment.inside:
        for number in numbers:
            yield (number, *one(number))
        return
    waiting = list(numbers)
    while waiting:
        for number, ending, lost in _in_child(one, waiting[:BATCH]):
            waiting.remove(number)
            yield number, ending, lost


def _in_child(one: Callable[[int], tuple[str, bool]], numbers: list[int]) -> Iterator[tuple[int, str, bool]]:
    """Trials in one forked process, until one of them ends it: that one is lost, and the rest wait for another child."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        _work(one, numbers, theirs)
    os.close(theirs)
    answered = 0
    with os.fdopen(ours, "rb") as stream:
        while answered < len(numbers):
            if not select.select([stream], [], [], PATIENCE)[0]:
                os.kill(child, signal.SIGKILL)
            line = stream.readline()
            if not line.endswith(b"\n"):
                break
            ending, lost = json.loads(line)
            yield numbers[answered], ending, lost
            answered += 1
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if answered < len(numbers):
        why = {-signal.SIGKILL: "it waits for ever", -signal.SIGXCPU: f"it computes for more than {SECONDS} s"}
        yield numbers[answered], why.get(code, f"its process ended with {code}"), True


def _work(one: Callable[[int], tuple[str, bool]], numbers: list[int], pipe: int) -> None:
    """Of the child; it does not return."""
    with suppress(BaseException):
        for number in numbers:
            used = resource.getrusage(resource.RUSAGE_SELF)
            resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS + 1, resource.RLIM_INFINITY))
            os.write(pipe, json.dumps(one(number)).encode() + b"\n")
        os._exit(0)
    os._exit(99)
