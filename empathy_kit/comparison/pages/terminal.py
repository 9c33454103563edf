"""The report's scores and differences as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from empathy_kit.comparison.pages.summary import METRICS, Summary
from empathy_kit.comparison.pages.words import chance, gain, of_seeds, score_cell

STYLES = {"run": None, "oracle": "red", "yardstick": "dim"}


def tables(summary: Summary) -> Iterator[Table]:
    """Accuracy, macro F1, and the differences."""
    for metric in ("accuracy", "macro_f1"):
        table = Table(title=f"{METRICS[metric]}, means over the seeds, 95 % intervals", title_justify="left")
        table.add_column("")
        for name in summary.names:
            table.add_column(name, justify="right")
        for row in summary.rows:
            cells = (score_cell(row, name, metric) for name in summary.names)
            table.add_row(f"{row.label}{of_seeds(row.seeds, summary)}", *cells, style=STYLES[row.kind])
        yield table
    if summary.contrasts:
        table = Table(title="Differences in accuracy, as pairs of a test part", title_justify="left")
        for heading in ("", "task", "pairs", "only second / only first right", "p, Holm"):
            table.add_column(heading, justify="left" if heading in ("", "task") else "right")
        for found in summary.contrasts:
            table.add_row(
                f"{found.first} -> {found.second}{of_seeds(found.seeds, summary)}",
                found.task,
                gain(found),
                f"{found.test.gained} / {found.test.lost}",
                chance(found.corrected),
            )
        yield table
