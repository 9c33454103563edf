"""The report's pictures, as SVG that stands in the page: they print, take the page's colours, and can be read out."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from empathy_kit.data.pairs import LEVELS, MECHANISM_TITLES, MECHANISMS
from empathy_kit.pages.summary import Summary
from empathy_kit.report import LEVEL_COLOURS, LEVEL_HATCHES
from empathy_kit.statistics import BINS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour
ACCENT = "#0072B2"  # Okabe and Ito: told apart with any colour vision, on light and on dark
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")


def figures(summary: Summary) -> dict[str, str]:
    """Every picture by its name."""
    import matplotlib as mpl

    style: Any = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    style |= {"svg.fonttype": "none", "svg.hashsalt": "empathy-kit", "font.size": 9, "font.family": "sans-serif"}
    with mpl.rc_context(style):
        return {
            "scores": _svg(
                "scores", _scores(summary), f"Scores of every configuration, with 95 % intervals and every run: {_told(summary)}"
            ),
            "curves": _svg(
                "curves", _curves(summary), "Validation macro F1 by epoch, a line a run; the table of settings names the recipe"
            ),
            "calibration": _svg(
                "calibration",
                _calibration(summary),
                "Reliability diagrams: how often the likeliest level is right, by how sure the model is. "
                + "; ".join(
                    f"{name} {mechanism} ECE {found.ece:.3f}"
                    for name, by_mechanism in summary.calibrations.items()
                    for mechanism, found in by_mechanism.items()
                ),
            ),
            "classes": _svg("classes", _classes(summary), _told_classes(summary)),
        }


def _told(summary: Summary) -> str:
    return "; ".join(
        f"{row.name} {name} accuracy {cell.scores['accuracy'].value:.3f}, macro F1 {cell.scores['macro_f1'].value:.3f}"
        for row in summary.rows
        for name, cell in row.cells.items()
    )


def _told_classes(summary: Summary) -> str:
    counts = "; ".join(f"{name} {', '.join(map(str, summary.class_counts[name]))}" for name in MECHANISMS)
    return f"Pairs of each level (0, 1, 2) in the data: {counts}"


def _svg(name: str, figure: Figure, told: str) -> str:
    """SVG without what changes from call to call, in the page's ink, told in words for those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'<svg ([^>]*?)width="[^"]+" height="[^"]+"', r"<svg \1", text.replace("\n", " ", 3), count=1)
    # Pictures in one page share one set of ids, and each would draw with the first one's shapes.
    text = re.sub(r'((?:\bid="|href="#|url\(#))', rf"\g<1>{name}-", text)
    escaped = told.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1)


def _new(columns: int, height: float, **how: Any) -> tuple[Figure, Iterable[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, height), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False, **how)[0]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _scores(summary: Summary) -> Figure:
    rows = summary.rows
    figure, panels = _new(len(MECHANISMS) * 2, 0.9 + 0.32 * len(rows), sharey=True)
    cells = [(name, metric) for metric in ("accuracy", "macro_f1") for name in MECHANISMS]
    for panel, (name, metric) in zip(panels, cells, strict=True):
        for place, row in enumerate(rows):
            cell = row.cells[name]
            score = cell.scores[metric]
            colour = {"run": ACCENT, "oracle": "#D55E00", "yardstick": "#888888"}[row.kind]
            if score.low is not None and score.high is not None:
                panel.plot([score.low, score.high], [place, place], color=colour, linewidth=3, alpha=0.5, solid_capstyle="butt")
            panel.plot(cell.runs[metric], [place] * len(cell.runs[metric]), "|", color=colour, markersize=7)
            panel.plot([score.value], [place], "o", color=colour, markersize=5)
            if metric == "accuracy" and row.name in summary.paper and row.kind == "run":
                panel.plot([summary.paper[row.name][name][0]], [place], "x", color=INK, markersize=6)
        panel.set_title(f"{name}, {metric.replace('_f1', ' F1')}", fontsize=9)
        panel.set_yticks(range(len(rows)), [row.name for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(axis="x", color=INK, alpha=0.15)
    return figure


def _curves(summary: Summary) -> Figure:
    figure, (panel,) = _new(1, 3.2)
    for number, (name, runs) in enumerate(summary.curves.items()):
        colour, mark = LINES[number % len(LINES)], MARKS[number % len(MARKS)]
        for turn, points in enumerate(runs):
            epochs = range(1, len(points) + 1)
            label = name if turn == 0 else None
            panel.plot(
                epochs, [f1 for _, f1 in points], color=colour, marker=mark, markersize=4, linewidth=1, alpha=0.8, label=label
            )
    longest = max(len(points) for runs in summary.curves.values() for points in runs)
    panel.set_xticks(range(1, longest + 1))
    panel.set_xlabel("epoch")
    panel.set_ylabel("validation macro F1, mean of ER, EX, IP")
    panel.legend(frameon=False, ncols=2, fontsize=8)
    return figure


def _calibration(summary: Summary) -> Figure:
    figure, panels = _new(len(MECHANISMS), 3.2, sharey=True)
    for panel, name in zip(panels, MECHANISMS, strict=True):
        panel.plot([0, 1], [0, 1], color=INK, alpha=0.3, linewidth=1)
        for number, (configuration, by_mechanism) in enumerate(summary.calibrations.items()):
            found = by_mechanism[name]
            full = [at for at in range(BINS) if found.counts[at]]
            panel.plot(
                [found.confidence[at] for at in full],
                [found.accuracy[at] for at in full],
                color=LINES[number % len(LINES)],
                marker=MARKS[number % len(MARKS)],
                markersize=4,
                linewidth=1,
                label=f"{configuration}, ECE {found.ece:.3f}",
            )
        panel.set_title(name, fontsize=9)
        panel.set_xlim(0.3, 1.0)
        panel.set_ylim(0.0, 1.02)
        panel.set_xlabel("confidence")
        panel.legend(frameon=False, fontsize=6.5)
    return figure


def _classes(summary: Summary) -> Figure:
    figure, (panel,) = _new(1, 2.8)
    for level, label in enumerate(LEVELS):
        bars = panel.bar(
            [index + (level - 1) * 0.27 for index in range(len(MECHANISMS))],
            [summary.class_counts[name][level] for name in MECHANISMS],
            0.25,
            label=f"level {label}",
            color=LEVEL_COLOURS[level],
            hatch=LEVEL_HATCHES[level],
            edgecolor="white",
        )
        panel.bar_label(bars)
    panel.set_xticks(range(len(MECHANISMS)), [f"{name}\n{MECHANISM_TITLES[name]}" for name in MECHANISMS])
    panel.set_ylabel("pairs")
    panel.legend(frameon=False)
    return figure
