"""The report's scores, labels and differences as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from empathy_kit.comparison.pages.summary import METRICS, Summary
from empathy_kit.comparison.pages.words import (
    COST,
    COSTS,
    INTERVALS,
    P_VALUES,
    cost_cells,
    family,
    gain,
    of_seeds,
    p_values,
    ranked_mean,
    recall_cell,
    score_cell,
)
from empathy_kit.runs.report import number

STYLES = {"run": None, "oracle": "red", "yardstick": "dim"}


def tables(summary: Summary) -> Iterator[Table]:
    """Accuracy, macro F1, recall next to average precision by label, size and time, and the differences."""
    for metric in ("accuracy", "macro_f1"):
        table = _table(f"{METRICS[metric]}, means over the seeds, 95 % intervals", INTERVALS)
        table.add_column("")
        for name in summary.names:
            table.add_column(name, justify="right")
        for row in summary.rows:
            cells = (score_cell(row, name, metric) for name in summary.names)
            table.add_row(f"{row.label}{of_seeds(row.seeds, summary)}", *cells, style=STYLES[row.kind])
        yield table
    for task in summary.tasks:
        table = _table(f"{task.name} by label: recall / average precision, means over the seeds")
        table.add_column("")
        for label in task.labels:
            table.add_column(label, justify="right")
        for row in summary.rows:
            levels = range(len(task.labels))
            cells = (f"{recall_cell(row, task.name, level)} / {ranked_mean(row, task.name, level)}" for level in levels)
            table.add_row(row.label, *cells, style=STYLES[row.kind])
        table.add_row("a random ranking", *(f"- / {number(value)}" for value in summary.by_chance[task.name]), style="dim")
        yield table
    table = _table("Size and time", COST)
    for heading in ("", *COSTS):
        table.add_column(heading, justify="right" if heading else "left")
    for row in summary.rows:
        if row.name in summary.costs:
            table.add_row(row.label, *cost_cells(summary.costs[row.name]), style=STYLES[row.kind])
    yield table
    if summary.contrasts:
        table = _table("Differences in accuracy, as pairs of a test part", family(summary))
        for heading in ("", "task", "pairs", "only second / only first right", *P_VALUES):
            table.add_column(heading, justify="left" if heading in ("", "task") else "right")
        for found in summary.contrasts:
            table.add_row(
                f"{found.first} -> {found.second}{of_seeds(found.seeds, summary)}",
                found.task,
                gain(found),
                f"{found.test.gained} / {found.test.lost}",
                *p_values(found),
            )
        yield table


def _table(title: str, caption: str | None = None) -> Table:
    return Table(title=title, title_justify="left", caption=caption, caption_justify="left")
