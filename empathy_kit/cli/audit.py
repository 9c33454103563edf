"""`empathy-kit data audit`: which labels are probably wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from empathy_kit.cli import terminal
from empathy_kit.cli.flags import Number, plugin_files, plugin_options
from empathy_kit.cli.run import setting_flags
from empathy_kit.config import RunConfig, configure, flag
from empathy_kit.errors import KitError, written_to
from empathy_kit.files import refuse_existing, write_whole
from empathy_kit.runs.quiet import quiet_libraries

if TYPE_CHECKING:
    from rich.table import Table

    from empathy_kit.comparison.audit import Audit
    from empathy_kit.comparison.out_of_fold import Fold, OutOfFold
    from empathy_kit.data.pairs import Corpus

FOLDS = 5
SHOWN = 5  # rows per task on the screen; the file has all
OF_DATA = ("data", "schema", "tasks")  # settings that say what is judged; the others say how models are trained


@click.command()
@click.option(
    "--runs",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="judge by the test parts of finished runs on the same data; nothing is trained",
)
@click.option(
    "--folds", cls=Number, type=int, metavar="N", help=f"without --runs: train N models, each without one part  [{FOLDS}]"
)
@click.option("--out", type=click.Path(path_type=Path), help="also write all of them to this CSV file, without text or ids")
@plugin_options("a plugin's option: -o loss.gamma 1.5")
@plugin_files
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of tables")
@setting_flags(without=("split", "split_seed", "train_share"))
def audit(
    *,
    folder: Path | None,
    folds: int | None,
    out: Path | None,
    options: tuple[tuple[str, str], ...],
    plugin_files: tuple[Path, ...],
    as_json: bool,
    **values: str | None,
) -> None:
    """List the labels that are probably wrong, by models that were not trained on their pairs.

    The models are those of finished runs (--runs), or are trained here, one per fold, by a run's settings. The rule is confident
    learning (Northcutt et al., JAIR 2021). A listed label is one to look at again, not one to replace.
    """
    from empathy_kit.comparison.audit import as_csv
    from empathy_kit.comparison.audit import audit as judge
    from empathy_kit.comparison.out_of_fold import from_runs
    from empathy_kit.data.sources import load_corpus

    given = {name: value for name, value in values.items() if value is not None}
    _check_source(folder, folds, [*given, *(["-o"] if options else []), *(["--plugin"] if plugin_files else [])])
    config = configure(RunConfig(), {**given, "options": dict(options)})
    if out is not None:
        with written_to("--out", out, exists="use another --out"):  # known before the work, not after it
            refuse_existing(out)
            tempfile.TemporaryFile(dir=out.parent).close()
    corpus = load_corpus(config.data, config.schema)
    tasks = corpus.schema.select(config.tasks)
    if folder is None:
        found = _trained(config, corpus, FOLDS if folds is None else folds, plugin_files)
    else:
        found = from_runs(folder, corpus, tasks)
    for text in found.remarks:
        terminal.remark(text)
    judged = judge(corpus, found)
    try:
        if out is not None:
            with written_to("--out", out, exists="use another --out"):
                refuse_existing(out)
                write_whole(out, as_csv(judged))
    finally:  # what was found is not lost with the file
        _print(judged, out, by_runs=folder is not None, as_json=as_json)


def _check_source(folder: Path | None, folds: int | None, given: Iterable[str]) -> None:
    """Check that nothing is given that would have no effect."""
    names = [name if name.startswith("-") else flag(name) for name in given if name not in OF_DATA]
    if folder is not None and (folds is not None or names):
        other = "--folds" if folds is not None else names[0]
        raise KitError(f"--runs and {other}: both given, and nothing is trained with --runs; use only one of them")


def _trained(config: RunConfig, corpus: Corpus, count: int, plugin_files: tuple[Path, ...]) -> OutOfFold:
    """Train and predict fold by fold, and report each on stderr."""
    from rich.text import Text

    from empathy_kit.cli.console import KitConsole
    from empathy_kit.comparison.out_of_fold import cross_validate, from_folds
    from empathy_kit.plugins import load_registry

    quiet_libraries()
    console = KitConsole(stderr=True)
    done: list[Fold] = []
    spinner = console.status(f"training {count} models") if console.is_interactive else nullcontext()

    def warn(text: str) -> None:
        console.print_line(Text(text, "bold yellow"))

    with closing(cross_validate(config, load_registry(plugin_files), corpus, count, warn=warn)) as folds, spinner:
        for fold in folds:
            for warning in fold.warnings:
                if all(warning not in other.warnings for other in done):
                    warn(f"warning: {warning}")
            done.append(fold)
            console.print_line(
                f"fold {len(done)} of {count}: trained on {fold.trained:,} pairs, the epoch chosen by "
                f"{f'{fold.validated:,} others' if fold.validated else 'the same'}, {len(fold.positions):,} predicted"
            )
    return from_folds(corpus, done)


def _print(found: Audit, out: Path | None, *, by_runs: bool, as_json: bool) -> None:
    from empathy_kit.cli.console import KitConsole

    if as_json:
        terminal.content(asdict(found))
        return
    console = KitConsole()
    console.print_line(f"data {found.data}: {found.pairs:,} pairs, sha256 {found.sha256[:12]}; judged by {found.source}")
    if found.covered < found.pairs:
        others = "the others have no label" + (", or are in no run's test part" if by_runs else "")
        console.print_line(f"judged: {found.covered:,} of the {found.pairs:,} pairs; {others}")
    for table in _tables(found):
        console.print(table)
    console.print_line(
        "Margin: the label's probability less the largest other one. These are labels to look at again, not to replace: where a "
        "level is subtle, the models may be what is wrong."
    )
    if out is not None and out.exists():
        console.print_line(f"all of them: {out}")


def _tables(found: Audit) -> Iterator[Table]:
    from empathy_kit.cli.console import narrow_table

    table = narrow_table("Labels that are probably wrong", "", "labelled", "judged", "probably wrong")
    for name, task in found.tasks.items():
        table.add_row(name, f"{task.labelled:,}", f"{task.judged:,}", f"{len(task.faults):,}")
    yield table
    table = narrow_table(
        f"The least believed, at most {SHOWN} per task, by data row",
        *("", "row", "label", "suggested", "its probability", "the label's", "margin"),
    )
    for name, task in found.tasks.items():
        for fault in task.faults[:SHOWN]:
            shares = (f"{value:.2f}" for value in (fault.suggested_probability, fault.label_probability, fault.margin))
            table.add_row(name, str(fault.row), fault.label, fault.suggested, *shares)
    if table.row_count:
        yield table
