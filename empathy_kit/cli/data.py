"""`empathy-kit data`: what is in the data, how it splits, what a length limit costs; `data audit` has a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from empathy_kit.cli import terminal
from empathy_kit.cli.audit import audit
from empathy_kit.config import RunConfig, configure
from empathy_kit.errors import KitError

if TYPE_CHECKING:
    from empathy_kit.data.pairs import Corpus

_data = click.option("--data", "source", default="sample", metavar="DATA", help="sample, reddit, a folder or a table  [sample]")
_schema = click.option("--schema", default="epitome", metavar="FILE.toml", help="the table's tasks and labels  [epitome]")
_json = click.option("--json", "as_json", is_flag=True, help="print JSON instead of tables")


@click.group()
def data() -> None:
    """Look at the data before training on it."""


data.add_command(audit)


@data.command()
@_data
@_schema
def check(source: str, schema: str) -> None:
    """Read everything and list the rows that cannot be used; exit code 2 if a span is not found in its response."""
    from empathy_kit.data.pairs import placeholders
    from empathy_kit.runs.describe import describe_data
    from empathy_kit.runs.report import data_lines

    corpus = _load(source, schema)
    for line in data_lines(describe_data(corpus, most_rows=None)):
        terminal.line(line)
    empty: dict[str, list[str]] = {}
    for row, column in placeholders(corpus.pairs):
        empty.setdefault(column, []).append(str(row))
    for column, rows in empty.items():
        terminal.line(f"placeholders such as [removed] in place of a post: {column} row{'s' * (len(rows) > 1)} {', '.join(rows)}")
    for row, task in corpus.placement.lost:
        file, column = corpus.span_columns[task]
        terminal.remark(f"{file}, row {row}, column {column!r}: the span is not in its response; use words of the response")
    if corpus.placement.lost:
        raise KitError(f"{corpus.name}: {len(corpus.placement.lost)} spans are not in their responses (listed above)")


@data.command()
@_data
@_schema
@click.option("--picture", type=click.Path(path_type=Path), help="also draw the class counts: .svg, .png or .pdf")
@click.option("--encoder", default="minilm", help="the encoder whose tokenizer counts the tokens  [minilm]")
@click.option("--max-tokens", default="64", help="the length limit  [64]")
@_json
def describe(source: str, schema: str, picture: Path | None, encoder: str, max_tokens: str, as_json: bool) -> None:
    """Class counts (the paper's Fig. 2), duplicates and their agreement, and what truncation takes away."""
    from empathy_kit.cli.console import KitConsole
    from empathy_kit.runs import report
    from empathy_kit.runs.describe import describe_data, describe_truncation
    from empathy_kit.runs.picture import class_picture

    configs = [
        configure(RunConfig(), {"encoder": encoder, "max_tokens": max_tokens, "truncate": how}) for how in ("head", "head-tail")
    ]
    corpus = _load(source, schema)
    found = describe_data(corpus, most_rows=None) if as_json else describe_data(corpus)
    found["truncation"] = {config.truncate: describe_truncation(config, corpus) for config in configs}
    title = f"{corpus.name}: pairs of each label"
    if picture:
        class_picture(found["class_counts"], corpus.schema, title, picture)
    if as_json:
        terminal.content(found)
        return
    console = KitConsole()
    for line in report.data_lines(found):
        terminal.line(line)
    console.print(report.count_table(found["class_counts"], corpus.schema, title))
    for how, truncation in found["truncation"].items():
        for line in report.truncation_lines(truncation, how, len(corpus), corpus.schema.names):
            terminal.line(line)


@data.command()
@_data
@_schema
@click.option("--tasks", default="none", metavar="ER,IP", help="the tasks of which every part must have all labels  [all]")
@click.option("--split", "kind", default="grouped", metavar="grouped|paper", help="how  [grouped]")
@click.option("--split-seed", default="0", help="which  [0]")
@_json
def split(source: str, schema: str, tasks: str, kind: str, split_seed: str, as_json: bool) -> None:
    """Sizes of the parts, their class counts, and what they share with the training part."""
    from empathy_kit.cli.console import KitConsole
    from empathy_kit.data.splits import make_split
    from empathy_kit.runs import report
    from empathy_kit.runs.describe import describe_split

    config = configure(RunConfig(), {"split": kind, "split_seed": split_seed, "tasks": tasks})
    corpus = _load(source, schema)
    parts = make_split(corpus, config.split, config.split_seed, corpus.schema.select(config.tasks))
    found: dict[str, Any] = describe_split(corpus, parts)
    for line in report.split_warnings(found):
        terminal.remark(line)
    if as_json:
        terminal.content(found)
        return
    for line in report.split_lines(found):
        terminal.line(line)
    KitConsole().print(report.part_table(found, corpus.schema))


@data.command()
def fetch() -> None:
    """Fetch the Reddit part of EPITOME from its authors, once, and check its sha256."""
    from empathy_kit.data.sources import fetch_reddit

    terminal.line(str(fetch_reddit()))


def _load(source: str, schema: str) -> Corpus:
    from empathy_kit.data.sources import load_corpus

    return load_corpus(source, configure(RunConfig(), {"schema": schema}).schema)
