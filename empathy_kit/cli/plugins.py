"""`empathy-kit plugins`: what can be used by name."""

from __future__ import annotations

import json

import click


@click.group()
def plugins() -> None:
    """Losses, rationale injectors and heads, the kit's own and installed ones."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="print JSON in place of tables")
def list_plugins(as_json: bool) -> None:
    """What loaded, with its options; and what did not, and why."""
    from empathy_kit.contracts import first_line
    from empathy_kit.options import options_of
    from empathy_kit.plugins import KINDS, load_registry

    registry = load_registry()
    rows = [
        {
            "kind": kind,
            "name": entry.spec.name,
            "summary": first_line(entry.spec.build),
            "options": [option.describe() for option in options_of(entry.spec.build).values()],
            "distribution": entry.distribution,
            "version": entry.version,
        }
        for kind in KINDS
        for entry in registry.of(kind)
    ]
    if as_json:
        failures = [vars(failure) for failure in registry.failures]
        click.echo(json.dumps({"plugins": rows, "failures": failures}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("kind", "name", "what it is", "options", "from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        provider = f"{row['distribution']} {row['version']}"
        table.add_row(str(row["kind"]), str(row["name"]), str(row["summary"]), "\n".join(row["options"]), provider)
    Console(markup=False, emoji=False).print(table)  # `tuple[float, ...]` looks like markup
    for failure in registry.failures:
        click.echo(f"not loaded: {failure}", err=True)
