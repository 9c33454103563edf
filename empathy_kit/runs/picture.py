"""Class counts as a bar chart (the paper's Fig. 2), for any schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empathy_kit.data.schema import Schema
from empathy_kit.errors import KitError

# One colour per level, told apart by readers with any colour vision (Okabe and Ito); the hatch does the same in print.
COLOURS = ("#999999", "#56B4E9", "#D55E00", "#009E73", "#E69F00", "#0072B2", "#CC79A7")
HATCHES = ("", "//", "xx", "..", "\\\\", "++", "oo")


def draw_classes(axes: Any, counts: Mapping[str, Sequence[int]], schema: Schema) -> None:
    """Bars of all labels, grouped by task; each bar is labelled where the tasks have different labels."""
    shared = len({task.labels for task in schema.tasks}) == 1
    most = max(len(task.labels) for task in schema.tasks)
    width = 0.8 / most
    handles = []
    for level in range(most):
        having = [(at, task) for at, task in enumerate(schema.tasks) if level < len(task.labels)]
        numbers = [counts[task.name][level] for _, task in having]
        names = ["" if shared else f"\n{literal(task.labels[level])}" for _, task in having]
        bars = axes.bar(
            [at + (level - (len(task.labels) - 1) / 2) * width for at, task in having],
            numbers,
            0.92 * width,
            color=COLOURS[level % len(COLOURS)],
            hatch=HATCHES[level % len(HATCHES)],
            edgecolor="white",
        )
        handles.append(bars)
        axes.bar_label(bars, labels=[f"{number}{name}" for number, name in zip(numbers, names, strict=True)], fontsize="small")
    titles = [task.name if task.title == task.name else f"{task.name}\n{task.title}" for task in schema.tasks]
    axes.set_xticks(range(len(schema)), [literal(title) for title in titles])
    axes.set_ylabel("pairs")
    axes.margins(y=0.15)
    if shared:
        legend = axes.legend(handles, map(str, range(most)), frameon=False, title="label")
        for text, label in zip(legend.get_texts(), schema.tasks[0].labels, strict=True):
            text.set_text(literal(label))  # given as a label, text that starts with "_" would not be shown
    axes.spines[["top", "right"]].set_visible(False)


def literal(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def class_picture(counts: Mapping[str, Any], schema: Schema, title: str, path: Path) -> None:
    """Class counts per task and label as a bar chart: .svg, .png or .pdf.

    Raises:
        KitError: the suffix is another one, or the file cannot be written.
    """
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise KitError(f"--picture {path}: a {path.suffix or 'nameless'} file, expected .svg, .png or .pdf")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7, 2.2 * len(schema)), 3.5), layout="constrained")
    axes = figure.subplots()
    draw_classes(axes, counts, schema)
    axes.set_title(title, parse_math=False)  # a dollar sign in a file's name is no formula
    try:
        figure.savefig(path)
    except OSError as error:
        raise KitError(f"--picture {path}: cannot be written: {error.strerror}") from None
