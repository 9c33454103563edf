"""The scores with their intervals, drawn for light and for dark pages."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

from blocks.reading import ROOT, comparison, score
from empathy_kit.comparison.pages.figures import BROKEN
from empathy_kit.comparison.pages.summary import Row
from empathy_kit.runs.report import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILES = {ROOT / "docs" / "scores-light.svg": False, ROOT / "docs" / "scores-dark.svg": True}  # file to whether its page is dark
METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1"}
NAMES = {  # rows that are shown, from the top, and how a first reader knows them
    "majority": "majority class",
    "tfidf-balanced": "TF-IDF, balanced",
    "T1": "T1: cross-entropy",
    "T2": "T2: T1 + predicted rationale",
    "T3": "T3: focal loss",
    "T4": "T4: T3 + predicted rationale",
    "weighted": "weighted cross-entropy",
    "response": "T1 without the seeker post",
}
INK, FAINT, MODEL, YARDSTICK = range(4)
COLOURS = {False: ("#1f2328", "#d1d9e0", "#0072b2", "#6e7781"), True: ("#f0f6fc", "#3d444d", "#56b4e9", "#9198a1")}


def _rows() -> list[Row]:
    return comparison("reddit-grouped").rows(NAMES)


def described() -> str:
    """Every number of the picture, in words."""
    parts = [
        f"{NAMES[row.name]}, {METRICS[metric]}: "
        + ", ".join(f"{task} {score(cell.scores[metric], number(cell.scores[metric].value))}" for task, cell in row.cells.items())
        for metric in METRICS
        for row in _rows()
    ]
    return "; ".join(parts)


def told(svg: str) -> str:
    """The words that a drawn picture holds."""
    found = re.search("<desc>(.*?)</desc>", svg, re.DOTALL)
    return html.unescape(found[1]) if found else ""


def draw(*, dark: bool) -> str:
    """The picture as SVG, with its numbers in words for those who cannot see it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = COLOURS[dark]
    rows, tasks = _rows(), comparison("reddit-grouped").summary.tasks
    style: Any = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colours[INK])
    style |= {"svg.fonttype": "none", "svg.hashsalt": "empathy-kit", "font.size": 9, "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.6, 0.6 + 0.5 * len(rows)), layout="constrained")
        panels = figure.subplots(len(METRICS), len(tasks), sharey=True, squeeze=False)
        for metric, line in zip(METRICS, panels, strict=True):
            for task, panel in zip(tasks, line, strict=True):
                _draw_panel(panel, rows, task.name, metric, colours)
                panel.set_title(f"{task.title}, {METRICS[metric]}", fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    lines = [line.rstrip() for line in text[text.index("<svg") :].splitlines()]
    at = next(place for place, line in enumerate(lines) if line.endswith(">"))
    return "\n".join([*lines[: at + 1], f" <desc>{html.escape(described())}</desc>", *lines[at + 1 :]]) + "\n"


def _draw_panel(panel: Axes, rows: list[Row], task: str, metric: str, colours: tuple[str, ...]) -> None:
    for place, row in enumerate(rows):
        if task not in row.cells:
            continue
        found, colour = row.cells[task].scores[metric], colours[YARDSTICK if row.kind == "yardstick" else MODEL]
        if found.low is not None and found.high is not None:
            kind: Any = {"linestyle": BROKEN if found.by == "pairs" else "-", "solid_capstyle": "butt", "dash_capstyle": "butt"}
            panel.plot([found.low, found.high], [place, place], color=colour, linewidth=3, alpha=0.5, **kind)
        panel.plot([found.value], [place], "o", color=colour, markersize=4.5)
        panel.text(1.02, place, number(found.value), transform=panel.get_yaxis_transform(), va="center", fontsize=8, color=colour)
    panel.set_yticks(range(len(rows)), [NAMES[row.name] for row in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.tick_params(length=0)
    panel.grid(axis="x", color=colours[FAINT], linewidth=0.6)
    panel.set_axisbelow(True)
    for side in panel.spines.values():
        side.set_visible(False)
