"""benchmarks/audit.py: labels are flipped only where there are any."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.schema import MISSING, Schema, TaskSchema

PACE = TaskSchema("pace", "pace", "pace", ("slow", "fast"))
WARMTH = TaskSchema("warmth", "warmth", "warmth", ("no", "a bit", "yes"))
TWO = Schema((PACE, WARMTH))


def test_a_share_of_the_labels_is_flipped_and_none_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    flip = importlib.import_module("audit").flip
    levels = [(row % 2, MISSING if row % 4 else row % 3) for row in range(40)]
    pairs = (Pair(row, f"p{row}", f"s{row}", "a post", "an answer", each) for row, each in enumerate(levels))
    corpus = Corpus("hand", tuple(pairs), {}, schema=TWO)
    flipped, true = flip(corpus, 0.5, 0)
    assert {name: len(rows) for name, rows in true.items()} == {"pace": 20, "warmth": 5}
    for at, task in enumerate(TWO.tasks):
        changed = {pair.row for pair, before in zip(flipped.pairs, levels, strict=True) if pair.levels[at] != before[at]}
        assert true[task.name] == {row: task.labels[levels[row][at]] for row in changed}
        assert all(levels[row][at] != MISSING for row in changed)
