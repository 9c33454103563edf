"""`empathy-kit predict`: apply a trained model to a table of any size, or to standard input."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from empathy_kit.cli import terminal
from empathy_kit.cli.flags import Number, on_ray, plugin_files, refuse_of_other_models, refuse_without_ray
from empathy_kit.errors import KitError

if TYPE_CHECKING:
    from empathy_kit.inference.model import EmpathyModel
    from empathy_kit.inference.scoring import Job, Write
    from empathy_kit.inference.tables import Columns


@click.command()
@click.argument("model")
@click.argument("source", metavar="INPUT")
@click.option("--out", type=click.Path(path_type=Path), help="a .csv, .jsonl or .parquet file, which must not exist")
@click.option("--seeker-column", default="seeker_post", metavar="NAME", help="column of the seeker posts  [seeker_post]")
@click.option("--response-column", default="response_post", metavar="NAME", help="column of the responses  [response_post]")
@click.option("--id-column", metavar="NAME", help="column that names the pairs, copied to the output")
@click.option("--keep", multiple=True, metavar="NAME|all", help="copy a column to the output, or all; may be given several times")
@click.option("--evidence", is_flag=True, help="add the evidence of each label, with its text")
@click.option("--errors", type=click.Choice(["stop", "skip"]), default="stop", help="on a row that is no valid pair  [stop]")
@click.option("--device", type=click.Choice(["auto", "cpu"]), help="device of a run's model  [as it was trained]")
@click.option("--threads", cls=Number, type=click.IntRange(1), metavar="N", help="CPU threads of an exported model  [all cores]")
@on_ray
@plugin_files
def predict(
    *,
    model: str,
    source: str,
    out: Path | None,
    seeker_column: str,
    response_column: str,
    id_column: str | None,
    keep: tuple[str, ...],
    evidence: bool,
    errors: str,
    device: Literal["auto", "cpu"] | None,
    threads: int | None,
    where: str,
    ray_address: str,
    workers: int | None,
    plugin_files: tuple[Path, ...],
) -> None:
    """Predict every pair of INPUT, a .csv, .jsonl or .parquet table, and write the predictions to --out in the same order.

    MODEL is a run's folder, an exported folder, or hub:user/name. An INPUT of - reads JSON Lines from standard input and writes
    the predictions to standard output. The same command continues a job that was stopped.
    """
    from empathy_kit.inference.scoring import Job, check_output
    from empathy_kit.runs.record import refuse_inside

    kept = tuple(name for name in (id_column, *keep) if name is not None and name != "all")
    if source == "-" and out is not None:
        raise KitError("--out: predictions of standard input go to standard output; leave --out away")
    refuse_without_ray(where, ray_address, workers)
    if threads is not None and where == "ray":
        raise KitError("--threads and --on ray: a cluster computes each part on one core; use only one of them")
    if source == "-" and where == "ray":
        raise KitError("--on ray: standard input is predicted here; leave --on away, or give a file")
    if source != "-" and out is None:
        raise KitError("--out FILE is missing: give a .csv, .jsonl or .parquet file for the predictions")
    if out is not None:
        check_output(out, skip_errors=errors == "skip")
        refuse_inside("--out", out, model)
    from empathy_kit.inference.graph import GraphEngine
    from empathy_kit.inference.model import load
    from empathy_kit.inference.tables import Columns
    from empathy_kit.runs.quiet import quiet_libraries

    quiet_libraries()
    loaded = load(model, device=device, threads=threads, plugins=plugin_files)
    refuse_of_other_models(model, isinstance(loaded.engine, GraphEngine), threads=threads, device=device)
    for warning in loaded.warnings:
        terminal.remark(f"warning: {warning}")
    if evidence and not loaded.marks_evidence:
        no = f"{model} marks no evidence, so its columns are empty; train a model with --rationale predicted or tag"
        terminal.remark(f"warning: --evidence: {no}")
    columns = Columns(seeker_column if loaded.reads_seekers else None, response_column, kept, "all" in keep)
    if out is None:
        _stream(columns, loaded, evidence, errors)
        return
    job = Job(Path(source), out, columns, evidence, errors == "skip")
    if where == "here":
        _table(job, loaded, None)
        return
    from empathy_kit.cluster import connected
    from empathy_kit.inference.cluster import write_on_ray

    with connected(ray_address, workers) as count:
        _table(job, loaded, write_on_ray(job, loaded, model, count, plugin_files, device))


def _stream(columns: Columns, model: EmpathyModel, evidence: bool, errors: str) -> None:
    from empathy_kit.inference.scoring import predict_stream
    from empathy_kit.inference.tables import Bad, PairTable

    if sys.stdin is None:
        raise KitError("standard input: closed, expected JSON Lines; pipe them to the command, or give a file")
    table = PairTable(None, columns, io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False)))
    skipped = 0

    def bad(row: Bad) -> None:
        nonlocal skipped
        if errors == "stop":
            raise row.error(table.name)
        terminal.remark(f"skipped: {row.error(table.name)}")
        skipped += 1

    for text in predict_stream(table, model, evidence=evidence, bad=bad):
        terminal.utf8(text)
    if skipped:
        terminal.remark(f"{_counted(skipped, 'row')} skipped")
    if warning := table.placeholders.warning:
        terminal.remark(f"warning: {warning}")


def _table(job: Job, model: EmpathyModel, write: Write | None) -> None:
    import time

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from empathy_kit.cli.console import KitConsole
    from empathy_kit.inference.scoring import predict_table

    console = KitConsole(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    started, state = time.perf_counter(), None
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as bar:
        task = bar.add_task("reading", total=1.0)
        for state in predict_table(job, model, write):
            speed = (state.rows - state.reused) / (time.perf_counter() - started)
            bar.update(task, description=f"{state.rows:,} pairs, {speed:.0f} pairs/s", completed=state.fraction)
    if state is None:
        console.print_line(f"{job.out}: already complete")
        return
    predicted = f"{_counted(state.rows - state.bad, 'pair')} predicted"
    again = f", {state.reused:,} of them by an earlier call" if state.reused else ""
    console.print_line(f"{predicted}{again}: {job.out}")
    if state.bad:
        console.print_line(f"{_counted(state.bad, 'row')} skipped: {job.skipped}")
    if state.swallowed:
        lines = _counted(state.swallowed, "more line")
        console.print_line(f"{lines} skipped, because a quote is not closed and makes them part of a bad row; close it")
    if state.warning:
        console.print_line(f"warning: {state.warning}")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
