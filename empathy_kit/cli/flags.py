"""Flags that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from empathy_kit.errors import KitError
from empathy_kit.options import check_routes

LOCAL = "local"  # starts a cluster on this machine


class Number(click.Option):
    """An option with a number in plain digits. Python also reads `1_000` and digits of any script; click has nan in any range."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """As click does it.

        Raises:
            click.BadParameter: no number, or not one in plain digits.
        """
        if isinstance(value, str) and (not value.isascii() or "_" in value or "nan" in value.lower()):
            raise click.BadParameter(f"{value!r} is not a number in plain digits.", ctx, self)
        return super().type_cast_value(ctx, value)


def plugin_options(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``-o NAME VALUE``, any number of times, as the parameter ``options``: pairs of texts."""

    def checked(context: click.Context, parameter: click.Parameter, pairs: tuple[tuple[str, str], ...]) -> Any:
        # Checked here: given "-o loss.gamma=2 --loss focal", click would instead report "focal" as the error.
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


def refuse_without_ray(where: str, ray_address: str, workers: int | None) -> None:
    """Refuse the cluster's flags where no cluster is used.

    Raises:
        KitError: one was given.
    """
    given = {"--ray-address": ray_address != LOCAL, "--workers": workers is not None}
    for name, is_given in given.items():
        if is_given and where != "ray":
            raise KitError(f"{name}: of a cluster alone; add --on ray, or leave it out")


def refuse_of_other_models(model: str, exported: bool, *, threads: int | None, device: str | None) -> None:
    """Refuse a flag of the kind of model that this one is not.

    Raises:
        KitError: it was given.
    """
    if threads is not None and not exported:
        raise KitError(f"--threads: of an exported model alone, and {model} is a run's; leave it out, or export the run")
    if device is not None and exported:
        raise KitError(f"--device: of a run's model alone, and {model} is an exported one; leave it out")


def on_ray(command: Callable[..., None]) -> Callable[..., None]:
    """The flags of a command that can use more than one machine, as the parameters ``where``, ``ray_address``, ``workers``."""
    here = click.option(
        "--on", "where", type=click.Choice(["here", "ray"]), default="here", help="this machine, or a Ray cluster  [here]"
    )
    address = click.option(
        "--ray-address",
        default=LOCAL,
        metavar="ADDRESS",
        help="address of the Ray cluster; local starts one on this machine  [local]",
    )
    workers = click.option(
        "--workers", cls=Number, type=click.IntRange(1), metavar="N", help="cluster workers at once  [its cores]"
    )
    return here(address(workers(command)))
