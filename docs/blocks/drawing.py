"""Pictures of committed results, drawn for light and for dark pages, with every number in words."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.reading import ROOT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Colours:
    """Of one kind of page."""

    ink: str
    faint: str
    model: str
    yardstick: str


COLOURS = {
    False: Colours("#1f2328", "#d1d9e0", "#0072b2", "#6e7781"),
    True: Colours("#f0f6fc", "#3d444d", "#56b4e9", "#9198a1"),
}


@dataclass(frozen=True)
class Picture:
    """A drawing in two files of docs, which are not made where there is nothing to show."""

    name: str
    described: Callable[[], str]  # every number of the picture, in words; empty where there is nothing to show
    figure: Callable[[Colours], Figure]

    @property
    def files(self) -> dict[Path, bool]:
        """Its files, and whether the page of each is dark."""
        return {ROOT / "docs" / f"{self.name}-{'dark' if dark else 'light'}.svg": dark for dark in (False, True)}

    def markdown(self, alt: str, folder: str = "") -> str:
        """The picture on a page that lies above or in docs; nothing where there is nothing to show."""
        if not self.described():
            return ""
        light, dark = (f"{folder}{path.name}" for path in self.files)
        return (
            f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
            f'  <img src="{light}" alt="{html.escape(alt)}">\n</picture>'
        )

    def draw(self, *, dark: bool) -> str:
        """The picture as SVG, with its numbers in words for those who cannot see it."""
        import matplotlib as mpl

        colours = COLOURS[dark]
        style: Any = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colours.ink)
        style |= {"svg.fonttype": "none", "svg.hashsalt": "empathy-kit", "font.size": 9, "font.family": "sans-serif"}
        with mpl.rc_context(style):
            buffer = io.StringIO()
            self.figure(colours).savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        lines = [line.rstrip() for line in text[text.index("<svg") :].splitlines()]
        at = next(place for place, line in enumerate(lines) if line.endswith(">"))
        return "\n".join([*lines[: at + 1], f" <desc>{html.escape(self.described())}</desc>", *lines[at + 1 :]]) + "\n"


def told(svg: str) -> str:
    """The words that a drawn picture holds."""
    found = re.search("<desc>(.*?)</desc>", svg, re.DOTALL)
    return html.unescape(found[1]) if found else ""


def tidy(panel: Axes, names: list[str], colours: Colours) -> None:
    """One row per name, from the top, and no frame."""
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.tick_params(length=0)
    panel.grid(axis="x", color=colours.faint, linewidth=0.6)
    panel.set_axisbelow(True)
    for side in panel.spines.values():
        side.set_visible(False)
