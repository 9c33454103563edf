"""The page on runs names every column of a run's predictions, and its code finds the rows that they are of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from run_world import read_predictions

from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split

PAGE = (Path(__file__).parents[2] / "docs" / "runs.md").read_text("utf-8")


def test_the_page_names_every_column_in_order(first: tuple[Path, list[Any]]) -> None:
    (section,) = re.findall(r"^## What a run predicted\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
    named = [name for line in re.findall(r"^- (.+?):", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)]
    for file, left_out in (("predictions.csv", set()), ("validation.csv", {"ER_swapped"})):
        columns = list(read_predictions(first[0], file)[0])
        assert [name for name in columns if name == "id" or name.startswith("ER_")] == [
            *(name for name in named if name not in left_out),
            "ER_p2",
        ]


def test_the_pages_code_lists_the_wrong_predictions_by_their_rows(
    first: tuple[Path, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```python wrong.py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(code.replace("runs/sample-focal-none-0", str(first[0])), "runs.md", "exec"), {})
    corpus = load_corpus("sample")
    expected = [
        f"{corpus.pairs[at].row} {task} {corpus.pairs[at].levels[number]} predicted as {line[f'{task}_predicted']}"
        for at, line in zip(make_split(corpus, "grouped", 0).test, read_predictions(first[0]), strict=True)
        for number, task in enumerate(corpus.schema.names)
        if int(line[f"{task}_predicted"]) != corpus.pairs[at].levels[number]
    ]
    assert capsys.readouterr().out.splitlines() == expected != []
