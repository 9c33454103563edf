"""Invented tables with tasks of their own: two tasks of 2 and 4 labels with a fifth of the labels missing, and a single task.

Built from word lists, so that a label follows from the words of the response; nobody wrote these posts.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

WARMTH = ("no", "yes")
ADVICE = ("none at all", "a hint", "a suggestion", "a clear plan")
PACE = ("slow", "steady", "fast")

TWO_TASKS = """\
[[tasks]]
name = "warmth"
title = "warmth"
labels = ["no", "yes"]

[[tasks]]
name = "advice"
title = "how much advice"
column = "advice given"
labels = ["none at all", "a hint", "a suggestion", "a clear plan"]
"""

ONE_TASK = """\
[[tasks]]
name = "pace"
labels = ["slow", "steady", "fast"]
"""

_WHO = ("my sister", "my boss", "an old friend", "my landlord", "our neighbour", "my brother", "my teacher", "the whole team")
_WHAT = ("forgot me again", "will not answer", "shouted at me", "moved away", "laughed about it", "says it is my fault")
_WHEN = ("today", "last night", "since Monday", "for weeks now", "this morning")
_OPENING = ("Hello there.", "I read this twice.", "Thanks for posting.", "Right.", "Long day for everyone.")
_WARM = ("I am so sorry", "my heart goes out to you", "sending you a hug", "that must hurt")
_COOL = ("It happens", "These things are common", "Fine", "I see")
_ADVICE = (
    ("The weather is dull here", "Nothing more to say", "It rained here too"),
    ("maybe a walk helps some people", "maybe sleep matters", "maybe it passes with tea"),
    ("you could write a letter", "you could call the office", "you could ask a cousin"),
    ("First breathe, then list three steps", "First rest, then plan the week", "First eat, then sort the papers"),
)
_PACE = (("crawling along", "in no hurry"), ("day after day", "at an even step"), ("in a rush", "at full speed"))


def two_tasks(pairs: int = 120, *, seed: int = 0, missing: float = 0.2) -> list[dict[str, Any]]:
    """Rows with ``warmth`` (with spans) and ``advice given``; each label is missing in a share of the rows."""
    draw = random.Random(f"invented {seed}")  # or it would draw as a split of that seed does
    lacks = [set(draw.sample(range(pairs), round(missing * pairs))) for _ in range(2)]
    rows = []
    for number in range(pairs):
        warmth = WARMTH[draw.random() < 0.4]
        advice = draw.choices(range(len(ADVICE)), (40, 25, 20, 15))[0]
        evidence = draw.choice(_WARM if warmth == "yes" else _COOL)
        row = _posts(draw, number, f"{draw.choice(_OPENING)} {evidence}. {draw.choice(_ADVICE[advice])}.")
        row["warmth"] = None if number in lacks[0] else warmth
        row["advice given"] = None if number in lacks[1] else ADVICE[advice]
        row["warmth_spans"] = [evidence] if row["warmth"] == "yes" else []
        rows.append(row)
    return rows


def one_task(pairs: int = 90, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with ``pace``, every label given, without spans."""
    draw = random.Random(f"invented {seed}")  # or it would draw as a split of that seed does
    rows = []
    for number in range(pairs):
        pace = number % len(PACE)
        rows.append(
            _posts(draw, number, f"{draw.choice(_OPENING)} Here it goes {draw.choice(_PACE[pace])}.") | {"pace": PACE[pace]}
        )
    return rows


def _posts(draw: random.Random, number: int, response: str) -> dict[str, Any]:
    # Every fifth seeker wrote two posts; "case 7" keeps the posts apart, as no two of real people are alike.
    seeker = number - 1 if number % 5 == 4 else number
    post = f"{draw.choice(_WHO).capitalize()} {draw.choice(_WHAT)} {draw.choice(_WHEN)}, case {number}."
    return {"pair_id": f"p{number}", "seeker_id": f"s{seeker}", "seeker_post": post, "response_post": response}


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as CSV, JSON Lines or Parquet, by the path's suffix; in a CSV a missing label is an empty cell."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(rows[0])
            for row in rows:
                writer.writerow("|".join(cell) if isinstance(cell, list) else cell for cell in row.values())
    return path


def write_two_tasks(folder: Path, suffix: str = ".csv") -> tuple[Path, Path]:
    """The table of two tasks and its schema: ``--data`` and ``--schema``."""
    schema = folder / "two-tasks.toml"
    schema.write_text(TWO_TASKS, encoding="utf-8")
    return write_table(folder / f"two-tasks{suffix}", two_tasks()), schema


def write_one_task(folder: Path, suffix: str = ".csv") -> tuple[Path, Path]:
    """The table of one task and its schema: ``--data`` and ``--schema``."""
    schema = folder / "one-task.toml"
    schema.write_text(ONE_TASK, encoding="utf-8")
    return write_table(folder / f"one-task{suffix}", one_task()), schema
