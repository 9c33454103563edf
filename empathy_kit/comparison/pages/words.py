"""The report's numbers and sentences as text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from empathy_kit.comparison.pages.summary import METRICS, Cell, Compared, Contrast, Cost, Summary
from empathy_kit.comparison.statistics import SeedEstimate
from empathy_kit.core.metrics import BATCH
from empathy_kit.data.schema import TaskSchema
from empathy_kit.runs.inventory import amount
from empathy_kit.runs.report import DASH, number

KINDS = {"seeds": "s", "pairs": "p"}  # of intervals
INTERVALS = "s: Student's interval over the seeds; p: the interval over the pairs alone, where it is the wider of the two"
AGREEMENT = (
    "Agreement between labels is that of pairs labelled more than once. It is no upper limit for a model: the best possible "
    "score on these pairs is higher, because a prediction can equal one label where two differ."
)
BATCHES = (
    f"The mean of macro F1 over batches of {BATCH} consecutive test pairs, and over the seeds. It does not estimate macro F1 "
    "over all pairs, because a batch without a rare label leaves that label out. Published figures of the EPITOME data are "
    "computed in this way."
)
RANKED = (
    "Average precision is that of the pairs ranked by a label's probability, and needs no threshold. The expected average "
    "precision of a random ranking is the label's share of the pairs, or somewhat more where there are few pairs."
)
P_VALUES = ("p, models", "p, recipes", "p, macro F1")
CORRECTED = (
    "Each p is after Holm's correction. Of the models: the exact test, which takes the trained models as given. Of the recipes: "
    "the larger of that test's p and the interval's, which is over other seeds too. Of macro F1: the interval's."
)
COSTS = ("models", "training", "parameters", "trained", "weights", "pairs/s")
COST = (
    "All models of a configuration together, means over the seeds. Training: with validation. Weights: as they are saved. "
    "Pairs/s: the test part's pairs per second, each through all models; on a CPU mostly without frozen layers, whose states are "
    "computed once. Times of different machines, or of one with other work on it, are not comparable."
)
MOST_LABELS = 12  # listed in a note


def interval(estimate: SeedEstimate) -> str:
    """``[.79, .86] s``; nothing where there is one seed alone."""
    if estimate.low is None or estimate.high is None or estimate.by is None:
        return ""
    return f"[{_short(estimate.low)}, {_short(estimate.high)}] {KINDS[estimate.by]}"


def _short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)


def score_cell(row: Compared, task: str, metric: str) -> str:
    """``.832 [.79, .86] s``."""
    cell = row.cells.get(task)
    if cell is None:
        return DASH
    text = f"{number(cell.scores[metric].value)} {interval(cell.scores[metric])}".rstrip()
    # A yardstick has a task on the seeds alone on which some configuration has it.
    return text if len(cell.seeds) == len(row.seeds) else f"{text} ({len(cell.seeds)} of these)"


def recall_cell(row: Compared, task: str, level: int) -> str:
    """``.324``."""
    cell = row.cells.get(task)
    return DASH if cell is None else number(cell.recall[level].value)


def ranked_mean(row: Compared, task: str, level: int) -> str:
    """Average precision, the mean over the seeds: ``.463``."""
    cell = row.cells.get(task)
    return DASH if cell is None or cell.average_precision is None else number(cell.average_precision[level].value)


def ranked_cell(row: Compared, task: str, level: int) -> str:
    """Average precision with the lowest and highest run: ``.463 (.38 to .55)``."""
    mean, cell = ranked_mean(row, task, level), row.cells.get(task)
    if mean == DASH or cell is None or cell.average_precision is None or len(cell.average_precision[level].runs) < 2:
        return mean
    runs = cell.average_precision[level].runs
    return f"{mean} ({_short(min(runs))} to {_short(max(runs))})"


def batch_cell(row: Compared, task: str) -> str:
    """The mean of macro F1 over batches: ``.680``."""
    cell = row.cells.get(task)
    return DASH if cell is None else number(cell.batch_macro_f1)


def never(row: Compared, task: str, level: int) -> int:
    """How many runs of a configuration never predicted a label that their test parts have."""
    cell = row.cells.get(task)
    return 0 if cell is None or row.kind == "yardstick" else cell.never[level]


def run_cell(row: Compared, task: str, at: int) -> str:
    """All scores of one run."""
    cell = row.cells.get(task)
    return DASH if cell is None else " / ".join(number(cell.runs[metric][at]) for metric in METRICS)


def mean_cell(row: Compared, task: str) -> str:
    """Mean and standard deviation of all runs, per score: ``.792 ± .015 / ...``."""
    cell = row.cells.get(task)
    return DASH if cell is None else " / ".join(_mean(cell, metric) for metric in METRICS)


def _mean(cell: Cell, metric: str) -> str:
    mean = number(cell.scores[metric].value)
    return mean if cell.deviation is None or mean == DASH else f"{mean} ± {number(cell.deviation[metric])}"


def cost_cells(cost: Cost) -> list[str]:
    """The size and time of a configuration, in the order of ``COSTS``; a dash where it is not known."""
    speed = DASH if cost.pairs_per_second is None else f"{cost.pairs_per_second:,.1f}"
    parameters, trained = (DASH if count is None else f"{count:,.0f}" for count in (cost.parameters, cost.trained))
    weights = DASH if cost.bytes is None else amount(cost.bytes)
    return [str(cost.models), f"{cost.seconds:,.0f} s", parameters, trained, weights, speed]


def gain(contrast: Contrast) -> str:
    """A difference of accuracy as pairs of a test part: ``+4.3 of 463 [-2.1, +10.7] s``."""
    size = contrast.test_pairs
    found = contrast.accuracy
    text = f"{found.value * size:+z.1f} of {size:.0f}"
    if found.low is None or found.high is None or found.by is None:
        return text
    return f"{text} [{found.low * size:+.1f}, {found.high * size:+.1f}] {KINDS[found.by]}"


def gains(contrast: Contrast) -> str:
    """The differences of accuracy per seed, in pairs: ``+7, 0, -2``."""
    return ", ".join(f"{pairs:+d}" if pairs else "0" for pairs in contrast.gains)


def macro_gain(contrast: Contrast) -> str:
    """A difference of macro F1: ``+0.031 [-.01, .07] s``."""
    return f"{contrast.macro_f1.value:+z.3f} {interval(contrast.macro_f1)}".rstrip()


def smallest(contrast: Contrast) -> str:
    """The smallest difference of accuracy that this design would find with 80 % power, in pairs."""
    found = contrast.accuracy.smallest
    return "not known" if found is None else f"{found * contrast.test_pairs:.1f} of {contrast.test_pairs:.0f}"


def p_values(contrast: Contrast) -> list[str]:
    """The cells of `P_VALUES`."""
    found = contrast.corrected
    return [chance(found.models), chance(found.recipes), chance(found.macro_f1)]


def family(summary: Summary) -> str:
    """The family of tests that Holm's correction covers."""
    count = len({(found.first, found.second) for found in summary.contrasts})
    rows = len(summary.contrasts)
    return (
        f"{CORRECTED} The correction is over all {rows} rows of this table: {count} contrast{'s' * (count != 1)}, each on every "
        "task that both have. These are all contrasts in the folder; another configuration in it makes the correction stricter."
    )


def agreement_row(summary: Summary) -> str:
    """The title of the row of agreement between labels."""
    return f"agreement between labels ({summary.agreement_groups} pairs labelled more than once)"


def chance(p: float | None) -> str:
    """A p-value: ``.034``, ``< .001``; a dash where there is none."""
    if p is None:
        return DASH
    return "< .001" if p < 0.001 else number(p) if p < 0.9995 else "1"


def of_seeds(seeds: list[int], summary: Summary) -> str:
    """`` (3 of 5 seeds)``, where some are missing."""
    return "" if len(seeds) == len(summary.seeds) else f" ({len(seeds)} of {len(summary.seeds)} seeds)"


def label_of(task: TaskSchema, level: int) -> str:
    """A label with its task: ``IP 1``, ``advice "a clear plan"``."""
    label = task.labels[level]
    return f"{task.name} {label}" if re.fullmatch(r"\d+", label) else f'{task.name} "{label}"'


def test_part(summary: Summary) -> str:
    """``463 test pairs``, with how many of them have a label where some do not."""
    whole = f"{summary.test_pairs:.0f} test pairs"
    if all(count == summary.test_pairs for count in summary.labelled.values()):
        return whole
    return f"{whole}, labelled: {', '.join(f'{name} {count:.0f}' for name, count in summary.labelled.items())}"


def unlabelled(summary: Summary, task: str) -> int:
    """How many pairs of the data have no label of a task."""
    return summary.pairs - sum(summary.class_counts[task])


def model(summary: Summary) -> str:
    """A description of all models in a few sentences."""
    posts = "Seeker post and response post go through"
    heads = "One head reads" if len(summary.tasks) == 1 else "One head per task reads"
    injector = "A rationale injector may add states to the response's."
    several = [name for name, cost in summary.costs.items() if cost.models > 1]
    apart = f" {', '.join(several)}: one such model per task, with one head." if several else ""
    tasks = f"{', '.join(summary.names)}.{apart}"
    if summary.trunks == ["gru"]:
        return f"{posts} one shared encoder. {injector} One GRU reads all of it. {heads} its output: {tasks}"
    trunks = " or ".join(summary.trunks)
    return f"{posts} the encoder and the trunk ({trunks}). {injector} {heads} the trunk's output: {tasks}"


def nothing(summary: Summary) -> str:
    """Why no two configurations are compared."""
    ranked, oracles = len(summary.ranked()), sum(row.kind == "oracle" for row in summary.rows)
    if any(pair.lacking == "seed" for pair in summary.apart):
        why = "No two configurations have a seed in common"
    elif summary.apart:
        why = "No two configurations have a task in common"
    elif ranked + oracles == 1:
        why = "There is one configuration"
    else:
        why = "Every configuration is an ORACLE" if not ranked else "Every configuration but one is an ORACLE"
    return f"{why}: nothing to compare."


def notes(summary: Summary) -> Iterator[str]:
    """Warnings that belong next to the results."""
    oracles = [row.name for row in summary.rows if row.kind == "oracle"]
    if oracles:
        yield f"ORACLE: {', '.join(oracles)} saw annotated spans at test time, which reveal the label. Not compared."
    alone = [row.name for row in summary.rows if len(row.seeds) < 2 and row.kind != "yardstick"]
    alone += [f"{found.first} to {found.second}" for found in summary.contrasts if len(found.seeds) < 2]
    if alone:
        whose = "" if len(summary.seeds) < 2 else f" of {', '.join(dict.fromkeys(alone))}"
        yield f"One seed{whose}: there is no interval, because one seed does not show how much another would change."
    if summary.missing:
        shown = ", ".join(summary.missing[:6]) + (f" and {len(summary.missing) - 6} more" if len(summary.missing) > 6 else "")
        yield f"Missing runs: {shown}."
    if summary.uneven:
        other = "seeds and splits" if summary.resplit else "seeds"
        yield f"Means are not all over the same {other}. Each difference is over the seeds that both configurations have."
    for pair in summary.apart:
        yield f"{pair.first} and {pair.second} have no {pair.lacking} in common, and are not compared."
    for row in summary.rows:
        yield from _never(row, summary)
    for name, used in summary.plugins.items():
        for plugin in used:
            yield f"{name}: {plugin}."
    for name in summary.mixed:
        yield f"{name}: its runs have plugins of different versions, whose numbers may differ."
    yield from summary.left_out


def _never(row: Compared, summary: Summary) -> Iterator[str]:
    counts = [
        (label_of(task, level), never(row, task.name, level)) for task in summary.tasks for level in range(len(task.labels))
    ]
    never_given = [f"{label} in {count} of {len(row.seeds)} runs" for label, count in counts if count]
    if never_given:
        more = f", and {len(never_given) - MOST_LABELS} more labels in some" if len(never_given) > MOST_LABELS else ""
        yield f"{row.name} never predicted {', '.join(never_given[:MOST_LABELS])}{more}."


def markdown(text: str) -> str:
    """Untrusted text escaped for Markdown."""
    # Also what GitHub turns into links: https://..., www...., somebody@...
    return re.sub(r"([\\`*_\[\]<>|~$&#@]|:(?=//)|(?<=www)\.)", r"\\\1", text, flags=re.IGNORECASE)


def code(text: str) -> str:
    """Text as Markdown code, between more backticks than it has in a row."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}"
