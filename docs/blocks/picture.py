"""The README's picture: the scores with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks.drawing import Colours, Picture, tidy
from blocks.reading import comparison, score
from empathy_kit.comparison.pages.figures import draw_estimate
from empathy_kit.comparison.pages.summary import Compared
from empathy_kit.runs.report import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def _rows() -> list[Compared]:
    return comparison("reddit-grouped").rows(NAMES)


def _described() -> str:
    parts = [
        f"{NAMES[row.name]}, {METRICS[metric]}: "
        + ", ".join(f"{task} {score(cell.scores[metric], number(cell.scores[metric].value))}" for task, cell in row.cells.items())
        for metric in METRICS
        for row in _rows()
    ]
    return "; ".join(parts)


def _figure(colours: Colours) -> Figure:
    from matplotlib.figure import Figure

    rows, tasks = _rows(), comparison("reddit-grouped").summary.tasks
    figure = Figure(figsize=(9.6, 0.6 + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(len(METRICS), len(tasks), sharey=True, squeeze=False)
    for metric, line in zip(METRICS, panels, strict=True):
        for task, panel in zip(tasks, line, strict=True):
            for place, row in enumerate(rows):
                if task.name not in row.cells:
                    continue
                found, colour = (
                    row.cells[task.name].scores[metric],
                    colours.yardstick if row.kind == "yardstick" else colours.model,
                )
                draw_estimate(panel, place, found, colour)
                across = panel.get_yaxis_transform()
                panel.text(1.02, place, number(found.value), transform=across, va="center", fontsize=8, color=colour)
            tidy(panel, [NAMES[row.name] for row in rows], colours)
            panel.set_title(f"{task.title}, {METRICS[metric]}", fontsize=9)
    return figure


SCORES = Picture("scores", _described, _figure)
