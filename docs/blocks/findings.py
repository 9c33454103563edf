"""What came out on grouped splits, in sentences that follow from the numbers."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.reading import (
    Comparison,
    comparison,
    gains,
    listed,
    macro_gains,
    points,
    score,
    sentences,
    verdict,
    zero,
)
from blocks.tables import rarest_levels, recalled
from empathy_kit.comparison.pages.words import label_of
from empathy_kit.config import PAPER
from empathy_kit.runs.report import number

PAPERS_PAIRS = 464  # its accuracies are multiples of 1 / 464: the test part of a 70/15/15 split of 3,084 rows


def grouped() -> str:
    """All findings, as a list."""
    found = comparison("reddit-grouped")
    return "\n".join(f"- {text}" for text in _all(found))


def _all(found: Comparison) -> Iterator[str]:
    for make in (weighted, never_recalled, seeker, simpler):
        text = make(found)
        if text:
            yield text


def weighted(found: Comparison) -> str:
    """Cross-entropy to weighted cross-entropy."""
    contrasts = found.contrasts("T1", "weighted")
    if not contrasts:
        return ""
    return sentences(
        "**Weighted cross-entropy** weighs each class by 1 / frequency.",
        f"Against T1 its right answers change by {gains(contrasts)}.",
        verdict(contrasts),
        f"Macro F1 changes by {macro_gains(contrasts)}.",
        zero(contrasts),
    )


def never_recalled(found: Comparison) -> str:
    """Rare levels that no run of a configuration gets right."""
    rarest = rarest_levels(found.summary)
    told = []
    for task in found.summary.tasks:
        level = rarest[task.name]
        rows = [row for row in found.summary.ranked() if task.name in row.cells]
        without = [row.name for row in rows if not recalled(row, task.name, level)[0]]
        if without:
            told.append(f"{label_of(task, level)} is never recalled by {listed(without)}.")
    return sentences("**Levels that are never right.**", *told) if told else ""


def seeker(found: Comparison) -> str:
    """With other seeker posts, and without any."""
    own, swapped, contrasts = found.row("T1"), found.row("T1-swapped"), found.contrasts("T1", "response")
    told = []
    if own and swapped:
        cells = [number(row.cells[task].scores["accuracy"].value) for row in (swapped, own) for task in found.summary.names]
        size = len(found.summary.names)
        told.append(
            f"With each response next to another pair's seeker post, T1's accuracy is {listed(cells[:size])} "
            f"({', '.join(found.summary.names)}); with its own it is {listed(cells[size:])}."
        )
    if contrasts:
        told.append(
            f"In a model that is trained and tested without any (`response`), the right answers change by {gains(contrasts)}."
        )
        told.append(verdict(contrasts))
    return sentences("**Is the seeker post used?**", *told) if told else ""


def paper_gain(first: str, second: str, task: str) -> int:
    """A difference of two accuracies of the paper's Table 1, as pairs of its test part."""
    return round((PAPER[second][task][0] - PAPER[first][task][0]) * PAPERS_PAIRS)


def simpler(found: Comparison) -> str:
    """T1 and TF-IDF."""
    own, told = found.row("T1"), []
    for name, words in (
        ("tfidf", "TF-IDF + logistic regression on the responses"),
        ("tfidf-balanced", "the same, classes balanced"),
    ):
        row = found.row(name)
        if own and row:
            gaps = [
                f"{points(own.cells[task].scores['accuracy'].value - row.cells[task].scores['accuracy'].value)} ({task})"
                for task in own.cells
                if task in row.cells
            ]
            told.append(f"{listed(gaps)} points from {words}")
    return f"**Against simpler models.** T1's accuracy differs by {listed(told)}." if told else ""


def accuracy(found: Comparison, name: str) -> str:
    """A row's accuracy per task, with intervals."""
    row = found.row(name)
    if row is None:
        return ""
    return listed([score(cell.scores["accuracy"], number(cell.scores["accuracy"].value)) for cell in row.cells.values()])
