"""`empathy-kit compare`: configurations x seeds, their runs, and the report on them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from empathy_kit.cli import terminal
from empathy_kit.cli.flags import Number, on_ray, plugin_files, plugin_options, refuse_without_ray
from empathy_kit.cli.run import setting_flags
from empathy_kit.config import PRESETS, RunConfig, configure, preset
from empathy_kit.errors import KitError
from empathy_kit.runs.quiet import quiet_libraries

if TYPE_CHECKING:
    from rich.table import Table

    from empathy_kit.comparison.plan import Plan
    from empathy_kit.comparison.worker import Done, Failed, Progress, Warned

MOST_JOBS = 4  # by default: each run takes its own memory


@click.command()
@click.argument("configurations", nargs=-1, metavar="[NAME | NAME=FLAGS]...")
@click.option("--file", type=click.Path(path_type=Path), help="a TOML file with a table of settings per configuration")
@click.option("--seeds", default="5", metavar="N|LIST", help="how many, or a list such as 0,1,7  [5]")
@click.option("--resplit", is_flag=True, help="draw a new split for each seed, so that intervals include the noise of the split")
@click.option("--jobs", cls=Number, type=int, default=None, help="runs at once; they share the cores  [cores, at most 4]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="the comparison's folder; an existing one is continued  [comparisons/...]"
)
@click.option("--keep-models", is_flag=True, help="leave every run's model in its folder")
@click.option(
    "--preset", "preset_name", default=None, metavar="|".join(PRESETS), help="the recipe that the flags change  [small]"
)
@plugin_options("a plugin's option, for every configuration")
@plugin_files
@click.option(
    "--figures-from",
    "figures_from",
    type=click.Path(path_type=Path),
    help="rebuild the report of finished runs, without training",
)
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON instead of tables")
@on_ray
@setting_flags(without=("seed", "loss", "rationale", "head", "posts"))
def compare(
    *,
    configurations: tuple[str, ...],
    file: Path | None,
    seeds: str,
    resplit: bool,
    jobs: int | None,
    out: Path | None,
    keep_models: bool,
    preset_name: str | None,
    options: tuple[tuple[str, str], ...],
    plugin_files: tuple[Path, ...],
    figures_from: Path | None,
    as_json: bool,
    where: str,
    ray_address: str,
    workers: int | None,
    **values: str | None,
) -> None:
    """Run every configuration with every seed and report the results: T1 to T4 of the paper, or any others.

    A configuration is one of the kit's names (T1, T2, T3, T4; T2g and T4g see gold spans at test time; T2t and T4t in training
    only; weighted; response: the response post only; T1s and T3s: T1 and T3 with one model per task), or a name with its flags:
    "mine=--loss mine -o loss.alpha 3". With --separate among the flags, each task has a model of its own.
    All others are compared with the first. The same command continues a comparison that was stopped; give
    it the same --plugin files again.
    """
    from empathy_kit.comparison import yardsticks
    from empathy_kit.comparison.execute import alone, execute, prepare
    from empathy_kit.comparison.parse import parse_configurations, parse_seeds
    from empathy_kit.comparison.plan import Plan
    from empathy_kit.plugins import load_registry
    from empathy_kit.processor import cores

    changes = {name: value for name, value in values.items() if value is not None}
    if figures_from is not None:
        _refuse_without_effect(click.get_current_context())
        _write_report(figures_from, as_json)
        return
    if jobs is not None and jobs < 1:
        raise KitError(f"--jobs {jobs}: expected 1 or more")
    base = configure(RunConfig() if preset_name is None else preset(preset_name), changes)
    known, separate = parse_configurations(configurations, file, base, dict(options))
    plan = Plan(known, parse_seeds(seeds), resplit, separate)
    folder = out or Path("comparisons") / f"{Path(base.data).stem}-{base.split}{'-resplit' if resplit else ''}"
    quiet_libraries()
    registry = load_registry(plugin_files)
    refuse_without_ray(where, ray_address, workers)
    if jobs is not None and where == "ray":
        raise KitError("--jobs and --on ray: a cluster runs as many at once as --workers allows; use only one of them")
    with alone(folder), ExitStack() as stack:
        prepared = prepare(plan, folder, registry)
        for text in prepared.warnings():
            terminal.remark(text)
        parallel = jobs or min(cores(), MOST_JOBS)
        how: dict[str, Any] = {}
        if where == "ray":
            from empathy_kit.cluster import connected
            from empathy_kit.comparison.cluster import RayWorker

            parallel = stack.enter_context(connected(ray_address, workers))
            how = {"worker": RayWorker, "threads": 1}
        events = execute(prepared, folder, registry, jobs=parallel, keep_models=keep_models, files=plugin_files, **how)
        with closing(events):  # stops its processes before the folder's lock is released
            failures = _watch(events, prepared.plan, parallel)
        yardsticks.measure(prepared.corpus, prepared.splits.values(), folder)
        _write_report(folder, as_json)
    if failures:
        raise SystemExit(1)


def _refuse_without_effect(context: click.Context) -> None:
    """Check that nothing is given that would have no effect next to --figures-from."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in ("figures_from", "as_json") or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if value != ():  # click counts no configurations at all as given
            other = value[0] if isinstance(parameter, click.Argument) else parameter.opts[0]
            raise KitError(
                f"--figures-from and {other}: both given, and nothing is run with --figures-from; use only one of them"
            )


def _write_report(folder: Path, as_json: bool) -> None:
    from empathy_kit.cli.console import KitConsole
    from empathy_kit.comparison import pages
    from empathy_kit.comparison.finished import read_finished
    from empathy_kit.comparison.pages.terminal import tables

    summary = pages.summarise(read_finished(folder))
    paths = pages.write(summary, folder)
    with terminal.kept(f"the comparison is in {folder}"):
        if as_json:
            terminal.content(pages.to_json(summary))
            return
        console = KitConsole()
        for table in tables(summary):
            console.print(table)
        for line in pages.notes(summary):
            console.print(line, highlight=False)
        for path in paths:
            console.print_line(f"report: {path}")


@dataclass
class _State:
    """The state of one run."""

    text: str = "waiting"
    share: float = 0.0
    seconds: float = 0.0
    spent: float | None = None  # seconds of a run that finished now


def _watch(events: Iterable[Progress | Warned | Done | Failed], plan: Plan, jobs: int) -> list[Failed]:
    """Draw all runs in one live table on stderr; where stderr is not a terminal, print one line per finished run.

    A warning is printed at once, with the first run that has it; the others that have it too do not repeat it.
    """
    from rich.live import Live
    from rich.text import Text

    from empathy_kit.cli.console import KitConsole
    from empathy_kit.comparison.worker import Done, Failed, Progress, Warned

    console = KitConsole(stderr=True)
    rows = {run: _State() for run in plan.runs()}
    failures = []
    told: set[str] = set()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        for event in events:
            row = rows[event.name, event.seed]
            if isinstance(event, Progress):
                row.text, row.share, row.seconds = event.text, event.share, event.seconds
            elif isinstance(event, Warned):
                if event.text not in told:
                    told.add(event.text)
                    line = f"warning: {event.text} (first in {event.name}, seed {event.seed})"
                    console.print_line(Text(line, "bold yellow"))
            elif isinstance(event, Done):
                row.text, row.share = "found finished" if event.found else "done", 1.0
                row.spent = None if event.found else event.seconds
                console.print_line(f"{event.name}, seed {event.seed}: {row.text}")
            elif isinstance(event, Failed):
                row.text, row.share = "failed", 1.0
                failures.append(event)
                console.print_line(f"{event.name}, seed {event.seed}: failed: {event.reason}")
            if console.is_interactive:
                live.update(_live_table(rows, jobs), refresh=True)
    return failures


def _live_table(rows: dict[tuple[str, int], _State], jobs: int) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{sum(row.share == 1 for row in rows.values())} of {len(rows)} runs, {_left(rows, jobs)}", title_justify="left"
    )
    for heading in ("run", "done", "", "left"):
        table.add_column(heading, justify="right" if heading in ("done", "left") else "left")
    for (name, seed), row in rows.items():
        going = 0 < row.share < 1
        left = _minutes(row.seconds * (1 - row.share) / row.share) if going else ""
        table.add_row(f"{name} {seed}", f"{100 * row.share:.0f} %" if row.share else "", row.text, left)
    return table


def _left(rows: dict[tuple[str, int], _State], jobs: int) -> str:
    """The time left, estimated from the runs that have finished."""
    known: list[float] = [row.spent for row in rows.values() if row.spent]
    known += [row.seconds / row.share for row in rows.values() if 0.05 < row.share < 1]
    if not known:
        return "time left not known yet"
    undone = sum(1 - row.share for row in rows.values())
    return f"about {_minutes(undone * sum(known) / len(known) / jobs)} left"


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
