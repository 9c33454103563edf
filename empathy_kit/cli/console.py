"""Rich's console for untrusted text: tables on stdout and progress on stderr."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from empathy_kit.errors import visible


class KitConsole(Console):
    """Prints as rich does, but interprets no text as markup, emoji or terminal commands."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print anything that rich renders; a `Text` must have one style and no line breaks."""
        super().print(*(Text(visible(each.plain), each.style) if isinstance(each, Text) else each for each in objects), **how)

    def print_line(self, text: str | Text) -> None:
        """Print one line, however long it is."""
        self.print(text, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **how: Any) -> Text:
        """Called for every string that is printed or shown in a table, before its width is measured."""
        return super().render_str(visible(text), **how)


def narrow_table(title: str, *headings: str) -> Table:
    """An empty table of numbers: the first column is what they are of."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table
