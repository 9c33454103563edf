"""The flags that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from empathy_kit.options import check_routes


def plugin_options(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``-o NAME VALUE``, any number of times, as the parameter ``options``: pairs of texts."""

    def checked(context: click.Context, parameter: click.Parameter, pairs: tuple[tuple[str, str], ...]) -> Any:
        # At once: of "-o loss.gamma=2 --loss focal" click would go on to complain of "focal".
        check_routes(route for route, _ in pairs)
        return pairs

    return click.option("-o", "--option", "options", nargs=2, multiple=True, metavar="NAME VALUE", callback=checked, help=text)


plugin_files = click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="a plugin that is one Python file, not installed; may be given several times",
)
"""The flag of every command that loads plugins."""
