"""`empathy-kit cache`: what the kit keeps to save time, how much of it there is, and how to delete it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from empathy_kit.cli import terminal
from empathy_kit.errors import KitError, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from empathy_kit.cache import Entry


@click.group()
def cache() -> None:
    """Show or clear what the kit keeps to save time. Everything in it can be fetched or computed again."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of text")
def show(as_json: bool) -> None:
    """Show where the cache is, what is in it, and how large it is."""
    from empathy_kit.cache import KINDS, cache_folder, own_entries, states_limit
    from empathy_kit.runs.inventory import amount

    sizes = {kind: _counted(own_entries([kind])) for kind in KINDS}
    limit = states_limit()
    if as_json:
        kinds = {kind: {"files": files, "bytes": size} for kind, (files, size) in sizes.items()}
        terminal.content({"folder": str(cache_folder()), "states_limit": limit, "kinds": kinds})
        return
    terminal.line(f"folder: {cache_folder()}")
    for kind, (files, size) in sizes.items():
        terminal.line(f"{kind}: {amount(size)} in {files} file{'s' * (files != 1)}; {KINDS[kind][0]}")
    if sizes["states"][0]:
        terminal.line("states are as sensitive as the posts, which can be recovered from them: guard them as you guard those")
    terminal.line(f"states are kept up to {amount(limit)}, the least recently used go first; EMPATHY_KIT_STATES_LIMIT changes it")
    terminal.line("models and encoders from the Hugging Face hub are in the hub client's own cache: `hf cache`")


@cache.command()
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("--all", "everything", is_flag=True, help="clear every kind")
@click.option("--yes", is_flag=True, help="do not ask")
def clear(kinds: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Delete the files of each KIND (states, epitome-reddit, encoders, kernels), or of all; asks first.

    Only files that the kit has written are deleted, and none that a run is using.
    """
    from empathy_kit.cache import KINDS, cache_folder, own_entries
    from empathy_kit.cache import clear as delete
    from empathy_kit.runs.inventory import amount

    unknown = next((kind for kind in kinds if kind not in KINDS), None)
    if unknown is not None or everything == bool(kinds):
        problem = f"{unknown}: no such kind" if unknown is not None else "which?"
        raise KitError(f"cache clear {problem}; expected {', '.join(KINDS)}, or --all")
    wanted = tuple(KINDS) if everything else kinds
    files, size = _counted(own_entries(wanted))
    if not files:
        terminal.line("nothing to delete")
        return
    if not yes:
        what = f"{amount(size)} in {files} file{'s' * (files != 1)} of {', '.join(wanted)} in {cache_folder()}"
        click.confirm(visible(f"Delete {what}?"), abort=True, err=True)
    gone, left = delete(wanted)
    deleted, freed = _counted(gone)
    terminal.line(f"deleted: {deleted} file{'s' * (deleted != 1)}, {amount(freed)}")
    for entry in left:
        terminal.remark(f"left alone, in use or not to be deleted: {entry.path}")


def _counted(found: Iterable[Entry]) -> tuple[int, int]:
    """How many files, and their bytes."""
    sizes = [entry.size for entry in found]
    return len(sizes), sum(sizes)
