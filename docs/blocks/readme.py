"""The README's first screen: whom it is about, the picture, and what came out."""

from __future__ import annotations

from blocks.claims import CLAIMS, unfinished
from blocks.findings import seeker
from blocks.picture import SCORES
from blocks.reading import Comparison, comparison, count, gains, listed, outcome, seeds_of
from blocks.recipe import in_short
from blocks.tables import rarest_levels, recalled
from empathy_kit.comparison.pages.words import COSTS, cost_cells, label_of, ranked_mean
from empathy_kit.runs.report import number

LOSSES = ("cross-entropy", "focal loss")  # of T1 and of T3


def picture() -> str:
    """The picture of the scores, for light and for dark pages, and what it shows."""
    found = comparison("reddit-grouped")
    many = len(found.summary.seeds) > 1
    split = ", each with a split of its own" if many and found.summary.resplit else ""
    lines = ". Lines are 95 % intervals over pairs and seeds; broken lines are over the pairs alone"
    sure = lines if many else "; one seed has no interval"
    shared = [run.record.split["leakage"]["test"]["seekers"] for runs in found.results.runs.values() for run in runs]
    unseen = "" if any(shared) else " No test pair's seeker post was seen in training."
    return f"""{SCORES.markdown("Accuracy and macro F1 of every model, with 95 % intervals", "docs/")}

Scores on the Reddit part of EPITOME: {"means" if many else "scores"} of {seeds_of(found)}{split}{sure}.{unseen}
[Every run, every difference, and how sure each is](docs/comparison.md)."""


def data() -> str:
    """How many pairs there are, and how rare the rare levels."""
    summary = comparison("reddit-grouped").summary
    rarest = rarest_levels(summary)
    shares = [
        f"{100 * counts[rarest[task.name]] / summary.pairs:.1f} % are {label_of(task, rarest[task.name])}"
        for task, counts in ((task, summary.class_counts[task.name]) for task in summary.tasks)
    ]
    return (
        f"The Reddit part of EPITOME has {summary.pairs:,} pairs. One level of each mechanism is rare, so the loss may "
        f"matter: of the pairs, {listed(shares)}."
    )


def main_findings() -> str:
    """The findings that a first reader should know."""
    found = comparison("reddit-grouped")
    focal, *_ = CLAIMS["focal"].answers or [[]]
    with_rationale = [each for side in CLAIMS["rationales"].answers for each in side]
    texts = (
        focal and f"**Focal loss** (T3) against cross-entropy (T1) changes the right answers by {gains(focal)}. {outcome(focal)}",
        rare(found),
        with_rationale and f"**Predicted rationales** (T2, T4). {outcome(with_rationale)}",
        one_or_three(),
        seeker(found),
        in_short(),
    )
    return "\n".join(f"- {text}" for text in texts if text)


def one_or_three() -> str:
    """One model for all tasks against one per task."""
    claim = CLAIMS["sharing"]
    contrasts = [each for side in claim.answers for each in side]
    if unfinished(claim.folder) or not contrasts:
        return ""
    costs = {name: dict(zip(COSTS, cost_cells(each), strict=True)) for name, each in claim.comparison.summary.costs.items()}
    one, three = (f"{costs[name]['training']} of training and {costs[name]['weights']}" for name in claim.pairs[0])
    changes = listed([f"by {gains(side)} with {words}" for side, words in zip(claim.answers, LOSSES, strict=True)])
    sizes = f"**One model for three tasks** takes {one}. One model per task takes {three} (T1)."
    return f"{sizes} From one model to one per task, the right answers change {changes}. {outcome(contrasts)}"


def rare(found: Comparison) -> str:
    """What T1 and T3 recall of the rarest levels."""
    rows = found.rows(("T1", "T3"))
    if len(rows) < 2:
        return ""
    rarest = rarest_levels(found.summary)
    told = []
    for task in found.summary.tasks:
        level = rarest[task.name]
        counts = [(row, *recalled(row, task.name, level)[:2]) for row in rows if task.name in row.cells]
        cells = [f"{right} of {of} ({row.name}, {ranked_mean(row, task.name, level)})" for row, right, of in counts]
        chance = number(found.summary.by_chance[task.name][level])
        told.append(f"{label_of(task, level)}: {listed(cells)}, by chance {chance}")
    parts = "one test part" if len(found.summary.seeds) == 1 else f"{count(len(found.summary.seeds))} test parts"
    return f"**Rare levels** that are recalled, over {parts}, with their average precision: {'; '.join(told)}."
