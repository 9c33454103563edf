"""`empathy-kit evaluate`: the scores of a trained model on any labelled table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from empathy_kit.cli import terminal
from empathy_kit.cli.flags import plugin_files
from empathy_kit.config import RunConfig, configure
from empathy_kit.runs.quiet import quiet_libraries

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from empathy_kit.inference.evaluate import Evaluation


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("--schema", metavar="FILE.toml", help="DATA's tasks and labels  [the model's, as far as DATA has them]")
@click.option("--unseen", is_flag=True, help="leave out pairs whose seeker post the model was trained or validated on")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of tables")
@plugin_files
def evaluate(model: str, data: str, *, schema: str | None, unseen: bool, as_json: bool, plugin_files: tuple[Path, ...]) -> None:
    """Score MODEL on the labelled pairs of DATA, with intervals.

    MODEL is a run's folder, an exported folder or hub:user/name. DATA is sample, reddit, a folder with the three EPITOME files,
    or a .csv, .jsonl or .parquet table. Pairs that the model was trained on are counted; --unseen leaves them out.
    """
    from empathy_kit.cli.console import KitConsole

    tasks = configure(RunConfig(), {"schema": schema}).schema if schema else None
    quiet_libraries()
    progress = KitConsole(stderr=True)
    with progress.status("loading") if progress.is_interactive else nullcontext() as status:
        from empathy_kit.inference import evaluate as scoring
        from empathy_kit.inference.model import load

        loaded = load(model, plugins=plugin_files)
        corpus = scoring.read_labelled(loaded, data, tasks)
        if status is not None:
            status.update(f"scoring {len(corpus):,} pairs")
        found = scoring.evaluate(loaded, corpus, unseen=unseen)
    for warning in found.warnings:
        progress.print(f"warning: {warning}", style="bold yellow", highlight=False, soft_wrap=True)
    if as_json:
        terminal.content(asdict(found))
        return
    console = KitConsole()
    for line in _lines(found):
        console.print_line(line)
    for table in _tables(found):
        console.print(table)
    for text in _cautions(found):
        console.print(text, soft_wrap=True)


def _lines(found: Evaluation) -> Iterator[str]:
    """What was scored, and how much of it the model has seen."""
    yield f"model {found.model}, sha256 {found.digest[:12]}; data {found.data}: {found.pairs:,} pairs, sha256 {found.sha256[:12]}"
    if found.seen is None:
        yield "the model has no hashes of its training posts, so pairs that it was trained on cannot be found"
    else:
        for part, name in (("train", "trained"), ("validation", "validated")):
            pairs, seekers = found.seen.pairs[part], found.seen.seekers[part]
            yield f"{name} on: both posts of {pairs:,} of these pairs, the seeker post of {seekers:,}"
        yield f"unseen: {found.unseen:,}; scored: {found.scored:,}"
    if found.left_out:
        yield f"no label in these pairs: {', '.join(found.left_out)}"


def _tables(found: Evaluation) -> Iterator[Table]:
    from empathy_kit.cli.console import narrow_table
    from empathy_kit.runs.report import DASH, HEADLINE, add_caution, estimate, majority_row, number, score_row, too_sure

    title = f"{found.model} on {found.data}"
    sizes = {name: task.scores.n for name, task in found.tasks.items()}
    same = len(set(sizes.values())) == 1
    pairs = (
        f"{next(iter(sizes.values())):,} pairs" if same else "pairs " + ", ".join(f"{name} {n:,}" for name, n in sizes.items())
    )
    headings = [heading for _, heading in HEADLINE]
    table = narrow_table(f"{title}: {pairs}, 95 % bootstrap intervals, quadratic kappa", "", *headings, "kappa")
    for name, task in found.tasks.items():
        scores = asdict(task.scores)
        table.add_row(*score_row(name, scores))
        table.add_row(*majority_row(scores), style="dim")
    add_caution(table, too_sure((name, task.labels, task.scores.confusion) for name, task in found.tasks.items()))
    yield table

    table = narrow_table("By label", "", "", "pairs", "predicted", "precision", "recall", "average precision")
    for name, task in found.tasks.items():
        scores = asdict(task.scores)
        for level, label in enumerate(task.labels):
            row = scores["confusion"][level]
            ranked = scores["average_precision"][level]
            counts = (f"{sum(row):,}", f"{sum(each[level] for each in scores['confusion']):,}")
            rates = (estimate(scores["precision"][level]), estimate(scores["recall"][level]) if sum(row) else DASH)
            last = level == len(task.labels) - 1
            table.add_row("" if level else name, label, *counts, *rates, estimate(ranked) if ranked else "", end_section=last)
    yield table

    table = narrow_table("Expected calibration error", "", "as it is", "at the model's temperature", "temperature")
    for name, task in found.tasks.items():
        table.add_row(name, number(task.ece_before), number(task.ece_after), f"{task.temperature:.2f}")
    yield table

    if any(task.spans for task in found.tasks.values()):
        table = narrow_table("Evidence", "", "pairs", "token F1", "IOU F1")
        for name, task in found.tasks.items():
            if task.spans is not None:
                spans = asdict(task.spans)
                table.add_row(name, f"{spans['pairs']:,}", estimate(spans["token_f1"]), estimate(spans["iou_f1"]))
        yield table


def _cautions(found: Evaluation) -> Iterator[Text]:
    """What a reader of the scores must not overlook."""
    from rich.text import Text

    from empathy_kit.runs.report import have_it

    if found.oracle:
        yield Text("ORACLE: the model was trained to see annotated spans at inference; here it saw none.", "bold red")
    if found.unseen is not None and found.unseen < found.scored:
        known = found.scored - found.unseen
        yield Text(
            f"{known:,} of these pairs are not new to the model, which scores better on seen ones; --unseen leaves them out",
            "bold red",
        )
    for name, task in found.tasks.items():
        if absent := [label for label, row in zip(task.labels, task.scores.confusion, strict=True) if not sum(row)]:
            yield Text(f"{name}: no pair has the label {', '.join(absent)}, whose F1 counts as 0 in macro F1", "bold red")
        for level in task.scores.never_predicted:
            pairs = have_it(sum(task.scores.confusion[level]), "pair")
            yield Text(f"{name} {task.labels[level]} was never predicted ({pairs})", "bold red")
