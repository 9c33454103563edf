"""`empathy-kit data`: what is in the data, how it splits, what a length limit costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from empathy_kit.config import RunConfig, configure
from empathy_kit.errors import KitError

if TYPE_CHECKING:
    from rich.console import Console

_data = click.option("--data", "source", default="sample", metavar="DATA", help="sample, reddit, a folder or a table  [sample]")
_json = click.option("--json", "as_json", is_flag=True, help="print JSON in place of tables")


@click.group()
def data() -> None:
    """Look at the data before training on it."""


@data.command()
@_data
def check(source: str) -> None:
    """Read everything, and list by row what cannot be used; exit code 2 where a span is not in its response."""
    from empathy_kit.data.sources import load_corpus
    from empathy_kit.recipes import describe_data
    from empathy_kit.report import data_lines

    corpus = load_corpus(source)
    for line in data_lines(describe_data(corpus)):
        click.echo(line)
    for row, mechanism in corpus.placement.lost:
        file, column = corpus.span_columns[mechanism]
        click.echo(f"{file}, row {row}, column {column!r}: a span is not in its response, expected its words", err=True)
    if corpus.placement.lost:
        raise KitError(f"{corpus.name}: {len(corpus.placement.lost)} spans are not in their responses (listed above)")


@data.command()
@_data
@click.option("--picture", type=click.Path(path_type=Path), help="also draw the class counts: .svg, .png or .pdf")
@click.option("--encoder", default="minilm", help="whose tokens are counted  [minilm]")
@click.option("--max-tokens", default="64", help="the length limit  [64]")
@_json
def describe(source: str, picture: Path | None, encoder: str, max_tokens: str, as_json: bool) -> None:
    """Class counts (the paper's Fig. 2), duplicates and their agreement, and what truncation takes away."""
    from empathy_kit import report
    from empathy_kit.data.sources import load_corpus
    from empathy_kit.recipes import describe_data, describe_truncation

    configs = [
        configure(RunConfig(), {"encoder": encoder, "max_tokens": max_tokens, "truncate": how}) for how in ("head", "head-tail")
    ]
    corpus = load_corpus(source)
    found = describe_data(corpus)
    found["truncation"] = {config.truncate: describe_truncation(config, corpus) for config in configs}
    title = f"{corpus.name}: pairs of each level"
    if picture:
        report.class_picture(found["class_counts"], title, picture)
    if as_json:
        click.echo(json.dumps(found))
        return
    console = _console()
    for line in report.data_lines(found):
        click.echo(line)
    console.print(report.count_table(found["class_counts"], title))
    for how, truncation in found["truncation"].items():
        for line in report.truncation_lines(truncation, how, len(corpus)):
            click.echo(line)


@data.command()
@_data
@click.option("--split", "kind", default="grouped", metavar="grouped|paper", help="how  [grouped]")
@click.option("--split-seed", default="0", help="which  [0]")
@_json
def split(source: str, kind: str, split_seed: str, as_json: bool) -> None:
    """Sizes of the parts, their levels, and what they share with the training part."""
    from empathy_kit import report
    from empathy_kit.data.sources import load_corpus
    from empathy_kit.data.splits import make_split
    from empathy_kit.recipes import describe_split

    config = configure(RunConfig(), {"split": kind, "split_seed": split_seed})
    corpus = load_corpus(source)
    found: dict[str, Any] = describe_split(corpus, make_split(corpus, config.split, config.split_seed))
    if as_json:
        click.echo(json.dumps(found))
        return
    for line in report.split_lines(found):
        click.echo(line)
    _console().print(report.part_table(found))


@data.command()
def fetch() -> None:
    """Fetch the Reddit part of EPITOME from its authors, once, and check its sha256."""
    from empathy_kit.data.sources import fetch_reddit

    click.echo(str(fetch_reddit()))


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, emoji=False)  # a file's name may look like either
