"""What came out on random splits, as the paper has one."""

from __future__ import annotations

import math
from collections.abc import Iterator

from blocks.findings import PAPERS_PAIRS, accuracy, paper_gain
from blocks.reading import Comparison, comparison, listed, points, sentences
from empathy_kit.comparison.pages.words import gains as seed_by_seed
from empathy_kit.config import PAPER

OF_A_SCORE = 1.96  # standard errors to either side that make a 95 % interval


def findings() -> str:
    """All findings, as a list."""
    found = comparison("reddit-paper")
    texts = (distance(found), gains_of_one_run(found), split_itself(found))
    return "\n".join(f"- {text}" for text in texts if text)


def distance(found: Comparison) -> str:
    """How far our accuracies are from the paper's, next to how sure those are."""
    rows = found.rows(PAPER)
    if not rows:
        return ""
    gaps = {
        row.name: {task: cell.scores["accuracy"].value - PAPER[row.name][task][0] for task, cell in row.cells.items()}
        for row in rows
    }
    told = [f"{name} by {listed([f'{points(gap)} ({task})' for task, gap in of_task.items()])}" for name, of_task in gaps.items()]
    every = [(name, task, gap) for name, of_task in gaps.items() for task, gap in of_task.items()]
    inside = sum(abs(gap) <= _reach(PAPER[name][task][0]) for name, task, gap in every)
    widths = sorted(_reach(PAPER[name][task][0]) for name, task, _ in every)
    return sentences(
        f"**How far from the paper's table?** In points of accuracy, {listed(told)}.",
        f"One accuracy p on {PAPERS_PAIRS} pairs is uncertain by itself, by {OF_A_SCORE} sqrt(p (1 - p) / {PAPERS_PAIRS}): "
        f"{100 * widths[0]:.1f} to {100 * widths[-1]:.1f} points here.",
        f"{inside} of the {len(every)} differences are within that.",
    )


def _reach(share: float) -> float:
    return OF_A_SCORE * math.sqrt(share * (1 - share) / PAPERS_PAIRS)


def gains_of_one_run(found: Comparison) -> str:
    """The paper's gains next to those of single seeds."""
    contrasts = found.contrasts("T1", "T3")
    if not contrasts:
        return ""
    theirs = [f"{paper_gain('T1', 'T3', each.task):+d} ({each.task})" for each in contrasts]
    ours = [f"{seed_by_seed(each)} ({each.task})" for each in contrasts]
    return sentences(
        f"**How much does one run show?** From T1 to T3 the paper gains {listed(theirs)} pairs, in one run each.",
        f"Here the gains are, seed by seed, {'; '.join(ours)}.",
    )


def split_itself(found: Comparison) -> str:
    """The same models on both kinds of split."""
    return sentences("**The split itself.**", *_on_both(found, comparison("reddit-grouped")))


def _on_both(here: Comparison, there: Comparison) -> Iterator[str]:
    for name, words in (("tfidf", "TF-IDF"), ("T1", "T1")):
        if here.row(name) and there.row(name):
            yield f"The accuracy of {words} is {accuracy(here, name)} here, and {accuracy(there, name)} on grouped splits."
