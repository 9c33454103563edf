"""A picture per claim: its differences with their intervals, next to 0; and everyone's agreement with the experts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from blocks.claims import CLAIMS
from blocks.drawing import Colours, Picture, tidy
from blocks.reading import measured
from empathy_kit.comparison.pages.figures import draw_estimate
from empathy_kit.comparison.pages.summary import Contrast
from empathy_kit.comparison.pages.words import gain, macro_gain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERTS = "experts"
MEDIAN = "experts' median"


def _named(contrast: Contrast) -> str:
    return f"{contrast.first} to {contrast.second}"


def _described(name: str) -> str:
    return "; ".join(
        f"{_named(side[0])}: "
        + ", ".join(f"{each.task} {gain(each)} right answers and {macro_gain(each)} macro F1" for each in side)
        for side in CLAIMS[name].contrasts
    )


def _figure(name: str, colours: Colours) -> Figure:
    from matplotlib.figure import Figure

    contrasts = CLAIMS[name].contrasts
    tasks = list(dict.fromkeys(each.task for side in contrasts for each in side))
    figure = Figure(figsize=(9.6, 1.2 + 0.5 * len(contrasts)), layout="constrained")
    for line, metric in zip(
        figure.subplots(2, len(tasks), sharex="row", sharey=True, squeeze=False), ("right answers", "macro F1"), strict=True
    ):
        for task, panel in zip(tasks, line, strict=True):
            panel.axvline(0, color=colours.yardstick, linewidth=0.8)
            for place, side in enumerate(contrasts):
                for each in side:
                    if each.task == task and metric == "macro F1":
                        draw_estimate(panel, place, each.macro_f1, colours.model)
                    elif each.task == task:
                        draw_estimate(panel, place, each.accuracy, colours.model, each.test_pairs)
            tidy(panel, [_named(side[0]) for side in contrasts], colours)
            panel.set_title(f"{task}, {metric}", fontsize=9)
    return figure


def _experts() -> dict[str, Any]:
    """Task to rater to its kappa with the experts' median."""
    agreement = measured(EXPERTS)["agreement"]
    return {task: {rater: scores["kappa"] for rater, scores in of[MEDIAN].items()} for task, of in agreement.items()}


def _experts_described() -> str:
    return "; ".join(
        f"{task}: " + ", ".join(f"{rater} {each['value']} [{each['low']}, {each['high']}]" for rater, each in raters.items())
        for task, raters in _experts().items()
    )


def _experts_figure(colours: Colours) -> Figure:
    from matplotlib.figure import Figure

    found = _experts()
    raters = list(next(iter(found.values())))
    figure = Figure(figsize=(9.6, 0.8 + 0.25 * len(raters)), layout="constrained")
    for (task, of_task), panel in zip(
        found.items(), figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0], strict=True
    ):
        for place, each in enumerate(of_task.values()):
            if each["value"] is not None:
                panel.plot([each["low"], each["high"]], [place, place], color=colours.model, linewidth=3, alpha=0.5)
                panel.plot([each["value"]], [place], "o", color=colours.model, markersize=4.5)
        tidy(panel, raters, colours)
        panel.set_title(f"{task}, kappa with the {MEDIAN}", fontsize=9)
    return figure


CLAIM_PICTURES = {name: Picture(f"claim-{name}", partial(_described, name), partial(_figure, name)) for name in CLAIMS}
EXPERTS_PICTURE = Picture("claim-experts", _experts_described, _experts_figure)
