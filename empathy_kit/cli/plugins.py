"""`empathy-kit plugins`: what can be used by name."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from empathy_kit.plugins import Provided


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
            **_origin(entry),
            "summary": first_line(entry.spec.build),
            "options": [option.describe() for option in options_of(entry.spec.build).values()],
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


@plugins.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="print JSON in place of text")
def show(name: str, as_json: bool) -> None:
    """All about NAME: options, docstring, papers, and who provides it."""
    from empathy_kit.contracts import Rationale
    from empathy_kit.options import options_of
    from empathy_kit.plugins import load_registry

    entries = load_registry().named(name)
    rows = [
        {
            **_origin(entry),
            **({"gold": entry.spec.gold} if isinstance(entry.spec, Rationale) else {}),
            "options": [option.describe() for option in options_of(entry.spec.build).values()],
            "papers": _papers(entry),
            "docstring": inspect.getdoc(entry.spec.build) or "",
        }
        for entry in entries
    ]
    if as_json:
        click.echo(json.dumps({"plugins": rows}))
        return
    for row in rows:
        click.echo(f"{row['kind']} {row['name']}, from {row['distribution']} {row['version']}")
        if "gold" in row:
            click.echo(f"annotated spans: {row['gold']}")
        for option in row["options"]:
            click.echo(f"  -o {row['kind']}.{option}")
        for paper in row["papers"]:
            click.echo(f"  {paper}")
        click.echo(f"\n{row['docstring']}\n")


@plugins.command("check")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="the kit's own plugins too")
@click.option("--json", "as_json", is_flag=True, help="print JSON in place of lines")
def check(name: str | None, everything: bool, as_json: bool) -> None:
    """Run the conformance kit on what is installed, or on NAME alone (a plugin's or a distribution's name).

    Ends with exit code 1 where a promise is broken, or a plugin did not load.
    """
    from empathy_kit.plugins import OURS, load_registry
    from empathy_kit.testing import examine

    registry = load_registry()
    chosen = registry.provided if everything else tuple(entry for entry in registry.provided if entry.distribution != OURS)
    chosen = registry.named(name) if name else chosen
    failures = () if name else registry.failures
    rows = []
    broken = 0
    for outcome in examine(chosen):
        broken += outcome.failure is not None
        rows.append({**_origin(outcome.plugin), "check": outcome.check, "failure": outcome.failure})
        if not as_json:
            title = f"{outcome.plugin.kind} {outcome.plugin.spec.name} ({outcome.plugin.distribution} {outcome.plugin.version})"
            click.echo(f"{'ok    ' if outcome.failure is None else 'BROKEN'}  {title}: {outcome.promise}")
            if outcome.failure is not None:
                click.echo(outcome.traceback or outcome.failure)
    if as_json:
        click.echo(json.dumps({"checks": rows, "failures": [vars(failure) for failure in failures]}))
    else:
        for failure in failures:
            click.echo(f"BROKEN  not loaded: {failure}")
        if not chosen and not failures:
            click.echo("no plugin beside the kit's own is installed; --all checks those")
        else:
            click.echo(f"{len(rows)} promises of {len(chosen)} plugins checked, {broken} broken; {len(failures)} not loaded")
    if broken or failures:
        sys.exit(1)


@plugins.command("new")
@click.argument("name")
@click.option("--kind", required=True, metavar="loss|head|rationale", help="what the plugin will be")
@click.option("--into", type=click.Path(path_type=Path), default=Path(), help="the folder to write into  [.]")
def new(name: str, kind: str, into: Path) -> None:
    """Write a distribution empathy-kit-NAME that works, to be changed: code, tests, packaging."""
    from empathy_kit.plugins import load_registry
    from empathy_kit.scaffold import parse_kind, scaffold

    folder = scaffold(name, parse_kind(kind), into, load_registry())
    click.echo(f"written: {folder}")
    click.echo("next:")
    for step in (f"cd {folder}", "pip install --editable '.[test]'", f"empathy-kit plugins check {name}", "pytest"):
        click.echo(f"  {step}")


def _origin(entry: Provided) -> dict[str, str]:
    return {"kind": entry.kind, "name": entry.spec.name, "distribution": entry.distribution, "version": entry.version}


def _papers(entry: Provided) -> list[str]:
    """Links of the arXiv numbers in the docstring."""
    return [
        f"https://arxiv.org/abs/{number}" for number in re.findall(r"\b\d{4}\.\d{5}\b", inspect.getdoc(entry.spec.build) or "")
    ]
