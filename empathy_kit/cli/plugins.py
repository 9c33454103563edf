"""`empathy-kit plugins`: what can be used by name."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from empathy_kit.cli import terminal
from empathy_kit.cli.flags import plugin_files, plugin_options
from empathy_kit.errors import KitError

if TYPE_CHECKING:
    from empathy_kit.plugins import Kind, Provided, Registry
    from empathy_kit.testing import Outcome

KINDS = {
    "loss": ("losses", "what each task learns from"),
    "rationale": ("rationale injectors", "what is read once more as evidence"),
    "head": ("heads", "from the trunk's output to a task's logits"),
    "sampler": ("samplers", "which training pairs an epoch shows"),
    "trunk": ("trunks", "from both posts to what the heads read"),
}


@click.group()
def plugins() -> None:
    """Losses, rationale injectors, heads, samplers and trunks: the kit's own and installed ones."""


@plugins.command("list")
@plugin_files
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of text")
def list_plugins(plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """List the plugins with their options, and those that could not be loaded with the reason."""
    from empathy_kit.contracts import first_line
    from empathy_kit.plugins import OURS, load_registry

    registry = load_registry(plugin_files)
    if as_json:
        rows = [
            {**_origin(entry), "summary": first_line(entry.spec.build), "options": _options(entry)} for entry in registry.provided
        ]
        failures = [vars(failure) for failure in registry.failures]
        terminal.content({"plugins": rows, "failures": failures, "warnings": registry.warnings})
        return
    for kind, (title, purpose) in KINDS.items():
        entries = [entry for entry in registry.provided if entry.kind == kind]
        terminal.wrapped(f"{title}: {purpose}; --{kind} NAME", "")
        widest = max(len(entry.spec.name) for entry in entries)
        for entry in entries:
            lead = " " * (widest + 4)
            summary = first_line(entry.spec.build).replace("`", "")  # a docstring may quote code
            terminal.wrapped(f"  {entry.spec.name:<{widest}}  {summary}", lead)
            for option in _options(entry):
                terminal.wrapped(f"{lead}-o {kind}.{option}", f"{lead}   ")
            if entry.distribution != OURS:
                terminal.wrapped(f"{lead}from {entry.distribution} {entry.version}", lead)
        terminal.line("")
    _report(registry)


@plugins.command("show")
@click.argument("name")
@plugin_files
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of text")
def show(name: str, plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """Show NAME's options, docstring, papers and provider."""
    from empathy_kit.contracts import Rationale
    from empathy_kit.plugins import load_registry

    entries = load_registry(plugin_files).named(name)
    rows: list[dict[str, Any]] = [
        {
            **_origin(entry),
            **({"gold": entry.spec.gold} if isinstance(entry.spec, Rationale) else {}),
            "options": _options(entry),
            "papers": _papers(entry),
            "docstring": _docstring(entry),
        }
        for entry in entries
    ]
    if as_json:
        terminal.content({"plugins": rows})
        return
    for row in rows:
        terminal.line(f"{row['kind']} {row['name']}, from {row['distribution']} {row['version']}")
        if "gold" in row:
            terminal.line(f"annotated spans: {row['gold']}")
        for option in row["options"]:
            terminal.line(f"  -o {row['kind']}.{option}")
        for paper in row["papers"]:
            terminal.line(f"  {paper}")
        terminal.lines("\n" + row["docstring"] + "\n")


@plugins.command("check")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="check the kit's own plugins too")
@plugin_options("check with -o loss.gamma 1.5")
@plugin_files
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of lines")
def check(
    name: str | None, everything: bool, options: tuple[tuple[str, str], ...], plugin_files: tuple[Path, ...], as_json: bool
) -> None:
    """Run the conformance kit on what is installed, or on NAME alone (a plugin's or a distribution's name).

    The exit code is 1 if a promise is broken or a plugin could not be loaded.
    """
    from empathy_kit.plugins import OURS, load_registry
    from empathy_kit.testing import examine

    registry = load_registry(plugin_files)
    chosen = registry.provided if everything else tuple(entry for entry in registry.provided if entry.distribution != OURS)
    chosen = registry.named(name) if name else chosen
    failures = tuple(failure for failure in registry.failures if name is None or failure.concerns(name))
    outcomes: list[Outcome] = []
    for outcome in examine(chosen, _routed(options, chosen), registry):
        if not as_json:
            if not outcomes or outcomes[-1].plugin is not outcome.plugin:
                terminal.line(_title(outcome.plugin))
            _print_outcome(outcome)
        outcomes.append(outcome)
    broken = sum(outcome.failure is not None for outcome in outcomes)
    if as_json:
        rows = [
            {**_origin(end.plugin), "check": end.check, "failure": end.failure, "not_judged": end.unjudged} for end in outcomes
        ]
        terminal.content({"checks": rows, "failures": [vars(failure) for failure in failures]})
    else:
        for failure in failures:
            terminal.line(f"not loaded: {failure}")
        for warning in registry.warnings:
            if any(warning.startswith(f"{entry.distribution} {entry.version} ") for entry in chosen):
                terminal.line(f"slow: {warning}")
        if not chosen and not failures:
            terminal.line("no plugins are installed other than the kit's own; --all checks those")
        else:
            unjudged = sum(outcome.unjudged is not None for outcome in outcomes)
            terminal.line(
                f"{_count(len(outcomes), 'promise')} of {_count(len(chosen), 'plugin')}: {len(outcomes) - broken - unjudged} "
                f"kept, {broken} broken, {unjudged} not judged; {len(failures)} not loaded"
            )
    if broken or failures:
        sys.exit(1)


@plugins.command("new")
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(tuple(KINDS)), help="what the plugin will be")
@click.option("--into", type=click.Path(path_type=Path), default=Path(), help="the folder to write into  [.]")
def new(name: str, kind: Kind, into: Path) -> None:
    """Write a working distribution empathy-kit-NAME to start from: code, tests, packaging."""
    from empathy_kit.plugins import load_registry
    from empathy_kit.scaffold import scaffold

    folder = scaffold(name, kind, into, load_registry())
    terminal.line(f"written: {folder}")
    terminal.line("next:")
    for step in (
        f"cd {shlex.quote(str(folder))}",
        "pip install --editable '.[test]'",
        f"empathy-kit plugins check {name}",
        "pytest",
    ):
        terminal.line(f"  {step}")


def _title(entry: Provided) -> str:
    return f"{entry.kind} {entry.spec.name}, from {entry.distribution} {entry.version}"


def _print_outcome(outcome: Outcome) -> None:
    end = "BROKEN" if outcome.failure is not None else "ok" if outcome.unjudged is None else "not judged"
    text = outcome.promise if outcome.unjudged is None else outcome.unjudged
    terminal.wrapped(f"  {end:<10}  {outcome.check}: {text}", " " * 14)
    if outcome.failure is not None:
        terminal.lines(outcome.traceback or outcome.failure)


def _report(registry: Registry) -> None:
    for failure in registry.failures:
        terminal.remark(f"not loaded: {failure}")
    for warning in registry.warnings:
        terminal.remark(f"slow: {warning}")


def _routed(options: Iterable[tuple[str, str]], chosen: Sequence[Provided]) -> dict[Kind, dict[str, str]]:
    """``loss.gamma`` -> the losses that are checked with it."""
    kinds = {entry.kind for entry in chosen}
    routed: dict[Kind, dict[str, str]] = {kind: {} for kind in kinds}
    for route, value in options:
        kind, _, option = route.partition(".")
        if kind not in kinds or not option:
            there_are = ", ".join(f"{each}.OPTION" for each in KINDS if each in kinds) or "no plugin to check"
            raise KitError(f"-o {route}: unknown, expected {there_are}")
        routed[kind][option] = value
    return routed


def _origin(entry: Provided) -> dict[str, str]:
    return {"kind": entry.kind, "name": entry.spec.name, "distribution": entry.distribution, "version": entry.version}


def _options(entry: Provided) -> list[str]:
    from empathy_kit.options import options_of

    return [option.describe() for option in options_of(entry.spec.build).values()]


def _papers(entry: Provided) -> list[str]:
    """Links of the arXiv numbers in the docstring."""
    return [f"https://arxiv.org/abs/{number}" for number in re.findall(r"\b\d{4}\.\d{5}\b", _docstring(entry))]


def _docstring(entry: Provided) -> str:
    from empathy_kit.contracts import written

    return inspect.getdoc(written(entry.spec.build)) or ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
