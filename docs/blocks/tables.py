"""The tables of docs/comparison.md, and how its runs were made."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from blocks.reading import Comparison, comparison, count, table
from empathy_kit.comparison.pages.summary import Compared, Contrast, Summary
from empathy_kit.comparison.pages.words import (
    P_VALUES,
    batch_cell,
    gain,
    label_of,
    macro_gain,
    of_seeds,
    p_values,
    ranked_mean,
    score_cell,
    smallest,
)
from empathy_kit.comparison.plan import NOT_COMPARED
from empathy_kit.config import COMPARISON, RunConfig, flag, to_dict
from empathy_kit.runs.report import number

SHOWN = (("T1", "T3"), ("T1", "T2"), ("T3", "T4"), ("T2", "T4"), ("T1", "weighted"), ("T1", "response"))
OF_THE_PAPER = {"accuracy": 0, "weighted_f1": 1}  # the scores that its Table 1 has


def command(name: str) -> str:
    """The command that makes a committed comparison, from the settings that its plan holds."""
    plan = comparison(name).results.plan
    first, default = to_dict(next(iter(plan.configurations.values()))), to_dict(RunConfig())
    own = {key for settings in COMPARISON.values() for key in settings}
    skipped = {*NOT_COMPARED, *own, "schema", "tasks", "options", "data"}
    changed = [f" {flag(key)} {first[key]}" for key in default if key not in skipped and first[key] != default[key]]
    folder = f"benchmarks/results/{name}"
    resplit = " --resplit" if plan.resplit else ""
    seeds = len(plan.seeds) if plan.seeds == tuple(range(len(plan.seeds))) else ",".join(map(str, plan.seeds))
    make = f"empathy-kit compare {' '.join(plan.configurations)} --data {first['data']}{resplit} --seeds {seeds}"
    return f"```\n{make}{''.join(changed)} --out {folder}\nempathy-kit compare --figures-from {folder}\n```"


def time() -> str:
    """How long the runs took."""
    found = comparison("reddit-grouped")
    seconds = {
        name: [model.record.training["seconds"] for run in runs for model in run.models]
        for name, runs in found.results.runs.items()
    }
    every = sorted(value / 60 for several in seconds.values() for value in several)
    threads = {run.record.config["threads"] for runs in found.results.runs.values() for run in runs}
    on = f" on {count(next(iter(threads)))} thread" if threads == {1} else ""
    text = (
        f"The {len(every)} runs took {every[0]:.1f} to {every[-1]:.1f} minutes of training each{on}, half of them less than "
        f"{statistics.median(every):.1f}. Other work ran on the machine at the same time."
    )
    if "response" in seconds and "T1" in seconds:
        response, both = (statistics.median(seconds[name]) / 60 for name in ("response", "T1"))
        text += f" Without the seeker posts (`response`) the median is {response:.1f} minutes, with them (`T1`) {both:.1f}."
    return text


def scores(name: str, metric: str, names: Iterable[str] | None = None) -> str:
    """One score of every row, with the paper's where it has it and the agreement of labels."""
    found = comparison(name)
    summary = found.summary
    rows = summary.rows if names is None else found.rows(names)
    lines = [[_title(row, summary), *(score_cell(row, task, metric) for task in summary.names)] for row in rows]
    if names is None:
        lines += _beyond(summary, metric)
    return table(["", *summary.names], lines)


def titled(found: Comparison, name: str) -> str:
    """A configuration's name and title, as the tables have it."""
    row = found.row(name)
    return name if row is None else _title(row, found.summary)


def _title(row: Compared, summary: Summary) -> str:
    return f"{row.name}: {row.title}{'' if row.kind == 'yardstick' else of_seeds(row.seeds, summary)}"


def _beyond(summary: Summary, metric: str) -> Iterator[list[str]]:
    """Rows that are not of these runs: the paper's, and how often two labels of one pair agree."""
    for name, of_task in summary.paper.items():
        if metric in OF_THE_PAPER and name in [row.name for row in summary.ranked()]:
            cells = (number(of_task[task][OF_THE_PAPER[metric]]) for task in summary.names)
            yield [f"{name} in the paper: RoBERTa, its own split, one run", *cells]
    if metric == "accuracy" and summary.agreement is not None:
        agreed = (number(summary.agreement[task]) for task in summary.names)
        yield [f"agreement between labels ({summary.agreement_groups} pairs labelled more than once)", *agreed]


def shown(name: str) -> str:
    """The differences that docs/comparison.md writes about; the report has all, over which they are corrected."""
    return differences(name, [each for pair in SHOWN for each in comparison(name).contrasts(*pair)])


def differences(name: str, contrasts: Iterable[Contrast]) -> str:
    """Some differences of a comparison, a row each."""
    found = comparison(name)
    lines = [
        [
            f"{each.first} to {each.second}{of_seeds(each.seeds, found.summary)}",
            each.task,
            gain(each),
            macro_gain(each),
            *p_values(each),
            smallest(each),
        ]
        for each in contrasts
    ]
    return table(["", "task", "right answers", "macro F1", *P_VALUES, "smallest"], lines)


def rare_levels(name: str) -> str:
    """How often each model recalls the rarest level of each task, how often it predicts it, and its average precision."""
    found = comparison(name)
    rarest = rarest_levels(found.summary)
    header = ["", *(label_of(task, rarest[task.name]) for task in found.summary.tasks)]
    rows = [row for row in found.summary.rows if row.kind != "oracle" and row.name != "majority"]
    return table(header, [[_title(row, found.summary), *_recalls(found, row, rarest)] for row in rows])


def rarest_levels(summary: Summary) -> dict[str, int]:
    """Task to the level that the fewest pairs have."""
    return {task: min(range(len(counts)), key=counts.__getitem__) for task, counts in summary.class_counts.items()}


def recalled(row: Compared, task: str, level: int) -> tuple[int, int, int]:
    """Pairs of a level that a row's runs recall, how many there are, and how often the level is predicted."""
    confusion = row.cells[task].confusion
    return confusion[level][level], sum(confusion[level]), sum(line[level] for line in confusion)


def _recalls(found: Comparison, row: Compared, rarest: dict[str, int]) -> Iterator[str]:
    for task in found.summary.names:
        if task not in row.cells:
            yield "-"
            continue
        right, of, predicted = recalled(row, task, rarest[task])
        yield f"{right} of {of} ({predicted}), {ranked_mean(row, task, rarest[task])}"


def batch_macro_f1(name: str) -> str:
    """Macro F1 of every configuration as published figures of these data are computed, next to macro F1 over all pairs."""
    found = comparison(name)
    header = ["", *(f"{task}, {what}" for task in found.summary.names for what in ("mean over batches", "all pairs"))]
    return table(header, ([_title(row, found.summary), *_both_ways(row, found.summary.names)] for row in found.summary.ranked()))


def _both_ways(row: Compared, tasks: Sequence[str]) -> Iterator[str]:
    for task in tasks:
        yield batch_cell(row, task)
        yield number(row.cells[task].scores["macro_f1"].value) if task in row.cells else "-"
