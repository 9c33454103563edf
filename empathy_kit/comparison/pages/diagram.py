"""A drawing of a comparison's model: posts, encoder, injector, trunk, and one head per task."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import escape

from empathy_kit.comparison.pages.summary import Summary
from empathy_kit.comparison.pages.words import model
from empathy_kit.data.schema import TaskSchema

MOST_HEADS = 6  # drawn; of more, the last box has their number
PITCH, BOX = 48, 30  # from head to head, and a head's height
LONGEST = 34  # characters of a head's text


def diagram(summary: Summary) -> str:
    """The drawing as SVG in the page's own colours, with a text description for screen readers."""
    heads = list(_heads(summary.tasks))
    height = max(170, PITCH * len(heads) + 26)
    middle = height / 2
    trunk = "GRU" if summary.trunks == ["gru"] else "trunk"
    texts = [
        (70, middle - 36, "seeker post"),
        (70, middle + 34, "response post"),
        (230, middle - 1, "encoder"),
        (390, middle + 39, "rationale"),
        (390, middle + 55, "injector"),
        (530, middle - 1, trunk),
    ]
    boxes = [(10, -60, 120, 38), (10, 10, 120, 38), (180, -40, 100, 68), (340, 20, 100, 46), (490, -40, 80, 68)]
    lines = ["M130 {:g} L180 {:g}", "M130 {:g} L180 {:g}", "M280 {:g} L490 {:g}", "M280 {:g} L340 {:g}", "M440 {:g} L490 {:g}"]
    ends = [(-41, -19), (29, 7), (-15, -15), (11, 37), (37, 11)]
    paths = [line.format(middle + start, middle + end) for line, (start, end) in zip(lines, ends, strict=True)]
    rects = [(x, middle + y, width, tall) for x, y, width, tall in boxes]
    for at, text in enumerate(heads):
        centre = middle + (at - (len(heads) - 1) / 2) * PITCH
        rects.append((630, centre - BOX / 2, 270, BOX))
        texts.append((765, centre + 5, text))
        paths.append(f"M570 {middle - 6 + 9 * (at - (len(heads) - 1) / 2) / max(1, len(heads) - 1):g} L630 {centre:g}")
    return "".join(
        (
            f'<svg role="img" aria-label="{escape(model(summary))}" viewBox="0 0 910 {height}" fill="none" stroke="currentColor" '
            'font-size="13">\n<g fill="currentColor" stroke="none" text-anchor="middle">\n',
            *(f'<text x="{x:g}" y="{y:g}">{escape(text)}</text>' for x, y, text in texts),
            "</g>\n",
            *(f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{tall}" rx="4"/>' for x, y, width, tall in rects),
            f'\n<path d="{" ".join(paths)}"/>\n</svg>',
        )
    )


def _heads(tasks: list[TaskSchema]) -> Iterator[str]:
    """``ER: 0, 1, 2``, shortened to fit the box."""
    for task in tasks[:MOST_HEADS]:
        text = f"{task.name}: {', '.join(task.labels)}"
        yield text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    if len(tasks) > MOST_HEADS:
        yield f"and {len(tasks) - MOST_HEADS} more"
