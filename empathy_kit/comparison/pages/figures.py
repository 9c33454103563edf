"""The report's pictures as inline SVG: they print, take the page's colours, and have a text description."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from empathy_kit.comparison.pages.summary import Compared, Summary
from empathy_kit.comparison.pages.words import label_of
from empathy_kit.comparison.statistics import SeedEstimate
from empathy_kit.core.calibration import BINS
from empathy_kit.data.schema import Schema
from empathy_kit.runs.picture import draw_classes, literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour
ACCENT = "#0072B2"  # Okabe and Ito: distinct with any colour vision, on light and dark
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
COLOURS = {"run": ACCENT, "oracle": "#D55E00", "yardstick": "#888888"}
BROKEN = (0, (1.5, 0.6))  # the line of an interval of the pairs alone
ABREAST = 4  # panels per row, where there are many
LONGEST = 28  # characters of a name in a picture


def figures(summary: Summary) -> dict[str, str]:
    """Every picture by its name."""
    import matplotlib as mpl

    style: Any = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    style |= {"svg.fonttype": "none", "svg.hashsalt": "empathy-kit", "font.size": 9, "font.family": "sans-serif"}
    drawn = {
        "scores": (_scores, f"Scores of every configuration, with 95 % intervals and every run: {_describe_scores(summary)}"),
        "curves": (_curves, "Validation macro F1 by epoch, one line per run; the table of settings names the recipe"),
        "calibration": (
            _calibration,
            f"Reliability diagrams: how often the likeliest label is right, by its probability. {_describe_calibration(summary)}",
        ),
        "classes": (_classes, _describe_classes(summary)),
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # The browser draws the letters in its own fonts; matplotlib's are only used to measure them.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        return {name: _svg(name, draw(summary), description) for name, (draw, description) in drawn.items()}


def _describe_scores(summary: Summary) -> str:
    return "; ".join(
        f"{row.label} {name} accuracy {cell.scores['accuracy'].value:.3f}, macro F1 {cell.scores['macro_f1'].value:.3f}"
        for row in summary.rows
        for name, cell in row.cells.items()
    )


def _describe_calibration(summary: Summary) -> str:
    return "; ".join(
        f"{name} {task} ECE {_errors(summary, name, task)}" for name, by_task in summary.calibrations.items() for task in by_task
    )


def _errors(summary: Summary, configuration: str, task: str) -> str:
    """The expected calibration error without temperatures, and with them where all runs have some."""
    after = summary.tempered[configuration].get(task)
    return f"{summary.calibrations[configuration][task].ece:.3f}{'' if after is None else f', {after:.3f}'}"


def _describe_classes(summary: Summary) -> str:
    counts = "; ".join(
        f"{label_of(task, level)}: {count}"
        for task in summary.tasks
        for level, count in enumerate(summary.class_counts[task.name])
    )
    return f"Pairs with each label in the data: {counts}"


def _svg(name: str, figure: Figure, description: str) -> str:
    """Reproducible SVG in the page's text colour, with a text description for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'<svg ([^>]*?)width="[^"]+" height="[^"]+"', r"<svg \1", text.replace("\n", " ", 3), count=1)
    # Ids are shared by all pictures of a page: without a prefix each would draw the first one's shapes.
    text = re.sub(r'((?:\bid="|href="#|url\(#))', rf"\g<1>{name}-", text)
    escaped = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1)


def _new(wanted: Sequence[bool], abreast: int, height: float, **how: Any) -> tuple[Figure, list[Any]]:
    """A figure of panels, ``abreast`` per row; unused places stay empty."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(wanted) / abreast)
    figure = Figure(figsize=(9.6, height * rows), layout="constrained")
    grid = figure.subplots(rows, abreast, squeeze=False, **how).ravel()
    for at, panel in enumerate(grid):
        panel.set_visible(at < len(wanted) and wanted[at])
        panel.spines[["top", "right"]].set_visible(False)
    return figure, [panel for panel, shown in zip(grid, wanted, strict=False) if shown]


def _tall(names: int) -> float:
    """The height of a panel whose legend has so many names, in inches."""
    return 3.2 + 0.14 * max(0, names - 12)


def _shown(name: str) -> str:
    return literal(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")


def _scores(summary: Summary) -> Figure:
    rows, tasks = summary.rows, summary.names
    cells = [(name, metric) for metric in ("accuracy", "macro_f1") for name in tasks]
    # Up to three tasks fit into one row, accuracy left and macro F1 right; with more, each score starts a new row.
    abreast = len(cells) if len(tasks) <= 3 else ABREAST
    unused = 0 if len(tasks) <= 3 else -len(tasks) % ABREAST
    wanted = [*[True] * len(tasks), *[False] * unused] * 2
    figure, panels = _new(wanted, abreast, 0.9 + 0.32 * len(rows), sharey=True)
    for panel, (name, metric) in zip(panels, cells, strict=True):
        for place, row in enumerate(rows):
            if name in row.cells:
                _draw_score(panel, place, row, name, metric)
            if metric == "accuracy" and row.name in summary.paper and row.kind == "run":
                panel.plot([summary.paper[row.name][name][0]], [place], "x", color=INK, markersize=6)
        panel.set_title(f"{_shown(name)}, {metric.replace('_f1', ' F1')}", fontsize=9)
        panel.set_yticks(range(len(rows)), [_shown(row.label) for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(axis="x", color=INK, alpha=0.15)
    return figure


def _draw_score(panel: Any, place: int, row: Compared, name: str, metric: str) -> None:
    cell, colour = row.cells[name], COLOURS[row.kind]
    panel.plot(cell.runs[metric], [place] * len(cell.runs[metric]), "|", color=colour, markersize=7)
    draw_estimate(panel, place, cell.scores[metric], colour)  # over the runs: its interval has their colour, and hides none


def draw_estimate(panel: Any, place: int, found: SeedEstimate, colour: str, factor: float = 1.0) -> None:
    """A point with its interval, which is broken where it is that of the pairs alone."""
    if found.low is not None and found.high is not None:
        style: Any = {"linestyle": BROKEN if found.by == "pairs" else "-", "solid_capstyle": "butt", "dash_capstyle": "butt"}
        ends = [factor * found.low, factor * found.high]
        panel.plot(ends, [place, place], color=colour, linewidth=3, alpha=0.5, **style)
    panel.plot([factor * found.value], [place], "o", color=colour, markersize=4.5)


def _curves(summary: Summary) -> Figure:
    figure, (panel,) = _new([True], 1, _tall(len(summary.curves)))
    for number, (name, runs) in enumerate(summary.curves.items()):
        for turn, points in enumerate(runs):
            panel.plot(
                range(1, len(points) + 1),
                [f1 for _, f1 in points],
                color=LINES[number % len(LINES)],
                marker=MARKS[number % len(MARKS)],
                markersize=4,
                linewidth=1,
                alpha=0.8,
                label=_shown(name) if turn == 0 else None,
            )
    longest = max(len(points) for runs in summary.curves.values() for points in runs)
    panel.set_xticks(range(1, longest + 1, math.ceil(longest / 20)))
    panel.set_xlabel("epoch")
    panel.set_ylabel("validation macro F1")
    panel.legend(frameon=False, ncols=2, fontsize=8)
    return figure


def _calibration(summary: Summary) -> Figure:
    tasks = summary.tasks
    height = _tall(len(summary.calibrations))
    figure, panels = _new([True] * len(tasks), min(len(tasks), ABREAST - 1), height, sharey=True)
    for panel, task in zip(panels, tasks, strict=True):
        panel.plot([0, 1], [0, 1], color=INK, alpha=0.3, linewidth=1)
        for number, (configuration, by_task) in enumerate(summary.calibrations.items()):
            found = by_task.get(task.name)
            if found is None:
                continue
            full = [at for at in range(BINS) if found.counts[at]]
            panel.plot(
                [found.confidence[at] for at in full],
                [found.accuracy[at] for at in full],
                color=LINES[number % len(LINES)],
                marker=MARKS[number % len(MARKS)],
                markersize=4,
                linewidth=1,
                label=f"{_shown(configuration)}, ECE {_errors(summary, configuration, task.name)}",
            )
        panel.set_title(_shown(task.name), fontsize=9)
        panel.set_xlim(math.floor(10 / len(task.labels)) / 10, 1.0)  # of C labels, the likeliest has at least 1 / C
        panel.set_ylim(0.0, 1.02)
        panel.set_xlabel("confidence")
        panel.legend(frameon=False, fontsize=6.5)
    return figure


def _classes(summary: Summary) -> Figure:
    figure, (panel,) = _new([True], 1, 2.8)
    draw_classes(panel, summary.class_counts, Schema(tuple(summary.tasks)))
    return figure
