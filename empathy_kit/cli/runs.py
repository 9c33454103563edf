"""`empathy-kit runs`: finished and unfinished runs, how two differ, what is damaged, and what takes how much disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from empathy_kit.cli import terminal
from empathy_kit.cli.flags import Number
from empathy_kit.errors import KitError

if TYPE_CHECKING:
    from empathy_kit.runs.inventory import Found
    from empathy_kit.runs.record import Record

FOLDER = Path("runs")
DAY = 24 * 3600
DAYS = 7  # an unfinished run that is younger may be wanted again
_json = click.option("--json", "as_json", is_flag=True, help="print JSON instead of text")
_path = click.Path(path_type=Path)


@click.group()
def runs() -> None:
    """Look at runs, compare two, check them, and delete what is not needed."""


@runs.command("list")
@click.argument("folder", type=_path, default=FOLDER)
@_json
def list_runs(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER, and in comparisons in it, with their state, scores and size.

    FOLDER is runs by default. The models' files are not read; `verify` compares them too.
    """
    from empathy_kit.cli.console import KitConsole
    from empathy_kit.runs.inventory import amount, as_value

    found = _found(folder)
    if as_json:
        terminal.content({"runs": [as_value(each) for each in found], "bytes": sum(each.size for each in found)})
        return
    KitConsole().print(_table(found, folder))
    for each in found:
        if each.problem:
            terminal.line(each.problem)
    terminal.line(f"{len(found)} run{'s' * (len(found) != 1)}, {amount(sum(each.size for each in found))}")


@runs.command()
@click.argument("run", type=_path)
@_json
def show(run: Path, as_json: bool) -> None:
    """Show the settings and the report of RUN, after a check of its files."""
    from empathy_kit.cli.run import print_record
    from empathy_kit.config import RunConfig, configure
    from empathy_kit.runs.differences import as_given
    from empathy_kit.runs.inventory import amount, as_value, look
    from empathy_kit.runs.record import MALFORMED, RUN

    _read(run)
    found = look(run, model=True)
    if found.record is None:
        raise KitError(found.problem)
    given = as_given(configure(RunConfig(), found.record.config))
    if as_json:
        terminal.content(
            {**as_value(found), "settings": given, "plugins": found.record.plugins, "versions": found.record.versions}
        )
        return
    usual = as_given(RunConfig())
    changed = [f"{name} {value}" for name, value in given.items() if name not in usual or usual[name] != value]
    terminal.wrapped(f"settings that are no defaults, and options: {'; '.join(changed) or 'none'}", "  ")
    terminal.wrapped(f"empathy-kit {found.record.kit}; {_versions(found.record)}; {amount(found.size)}", "  ")
    try:
        print_record(found.record)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # what a run did not write itself may lack anything
        raise KitError(f"{run / RUN}: {MALFORMED}") from None


@runs.command()
@click.argument("one", type=_path)
@click.argument("other", type=_path)
@_json
def diff(one: Path, other: Path, as_json: bool) -> None:
    """Show how ONE and OTHER differ: settings, data, versions, scores."""
    from empathy_kit.runs.differences import differing_origins, differing_settings, same_test_pairs, score_pairs
    from empathy_kit.runs.inventory import look
    from empathy_kit.runs.report import ORACLE

    records = _read(one), _read(other)
    settings, origins, same = differing_settings(*records), differing_origins(*records), same_test_pairs(*records)
    scores, oracle = score_pairs(look(one), look(other)), tuple(each.oracle for each in records)
    if as_json:
        found = {"settings": settings, "made_of": origins, "same_test_pairs": same, "oracle": oracle, "scores": scores}
        terminal.content(found)
        return
    for title, values in (("settings", settings), ("made of", origins)):
        terminal.line(f"{title}: {'no difference' if not values else ''}".rstrip())
        for name, (left, right) in values.items():
            terminal.line(f"  {name}: {_told(left)} -> {_told(right)}")
    terminal.line(f"scores{'' if same else ', on different test pairs: their differences are not the models alone'}:")
    for line in _score_lines(scores):
        terminal.line(line)
    for path, is_oracle in zip((one, other), oracle, strict=True):
        if is_oracle:
            terminal.line(f"  {path}: {ORACLE}")


@runs.command()
@click.argument("folders", type=_path, nargs=-1, metavar="[FOLDER]...")
@_json
def verify(folders: tuple[Path, ...], as_json: bool) -> None:
    """Compare every file of the runs in each FOLDER with their manifests; exit code 1 if a run is damaged or unreadable.

    FOLDER is runs by default; it may also be one run.
    """
    from empathy_kit.runs.inventory import DAMAGED, FINISHED, UNREADABLE, as_value

    found = _all(folders, model=True)
    damaged, unreadable = (sum(each.state == state for each in found) for state in (DAMAGED, UNREADABLE))
    if as_json:
        terminal.content({"runs": [as_value(each) for each in found], "damaged": damaged, "unreadable": unreadable})
    else:
        for each in found:
            terminal.line(each.problem or f"{each.path}: {'whole' if each.state == FINISHED else each.state}")
        more = f", {unreadable} unreadable" if unreadable else ""
        terminal.line(f"{len(found)} run{'s' * (len(found) != 1)}, {damaged} damaged{more}")
    if damaged or unreadable:
        raise SystemExit(1)


@runs.command()
@click.argument("folders", type=_path, nargs=-1, metavar="[FOLDER]...")
@click.option("--tracker", required=True, metavar="NAME", help="tensorboard, mlflow, trackio or another one that is installed")
def export(folders: tuple[Path, ...], tracker: str) -> None:
    """Log the finished runs in each FOLDER to an experiment tracker, as `run --tracker` would have done.

    FOLDER is runs by default; it may also be one run, or a comparison. The losses of single steps are not in a finished run.
    """
    from empathy_kit.runs.inventory import FINISHED
    from empathy_kit.runs.quiet import quiet_libraries
    from empathy_kit.runs.tracking import Logged
    from empathy_kit.runs.tracking import export as log

    quiet_libraries()
    found = _all(folders)
    for each in found:
        if each.state != FINISHED:
            terminal.remark(f"left alone: {each.problem or f'{each.path}: {each.state}'}")
            continue
        try:
            where = log(each.path, tracker)
        except Logged as error:
            if len(found) == 1:
                raise
            terminal.remark(f"left alone: {error}")
            continue
        terminal.line(f"{each.path}: logged to {tracker}{f' in {where}' if where else ''}")


@runs.command()
@click.argument("paths", type=_path, nargs=-1, metavar="[RUN]...")
@click.option("--damaged", is_flag=True, help="delete the damaged runs in the given folders")
@click.option("--unfinished", is_flag=True, help="delete the unfinished runs in the given folders")
@click.option(
    "--days", cls=Number, type=click.FloatRange(0), help=f"with --unfinished: only those unchanged for this many days  [{DAYS}]"
)
@click.option("--yes", is_flag=True, help="do not ask")
def prune(paths: tuple[Path, ...], damaged: bool, unfinished: bool, days: float | None, yes: bool) -> None:
    """Delete the named RUNs, or the damaged or unfinished ones in a folder; asks first.

    With --damaged or --unfinished a RUN may be a folder of runs, and is runs by default. What is not certainly a run,
    what another process is writing, what cannot be read, and damaged runs to which files were added are left alone.
    """
    from empathy_kit.runs.inventory import amount, delete, named, prunable

    if not paths and not damaged and not unfinished:
        raise KitError("runs prune: expected the runs to delete, or --damaged or --unfinished")
    if days is not None and not unfinished:
        raise KitError("--days: counts with --unfinished alone; leave it out")
    if damaged or unfinished:
        before = time.time() - DAY * (DAYS if days is None else days)
        found = _all(paths, model=damaged)
        doomed, spared = prunable(found, damaged=damaged, unfinished=unfinished, before=before)
        for line in spared:
            terminal.remark(f"left alone: {line}")
    else:
        doomed = [named(path) for path in dict.fromkeys(paths)]
    if not doomed:
        terminal.line("nothing to delete")
        return
    for each in doomed:
        terminal.line(f"{each.path}: {each.state}, {amount(each.size)}{f' ({each.problem})' if each.problem else ''}")
    if not yes:
        click.confirm(f"Delete {len(doomed)} folder{'s' * (len(doomed) != 1)}?", abort=True, err=True)
    for each in doomed:
        delete(each)
    terminal.line(f"deleted: {len(doomed)}, {amount(sum(each.size for each in doomed))}")


def _all(folders: Sequence[Path], *, model: bool = False) -> list[Found]:
    """The runs in some folders, or in the usual one; those that are in two of them once."""
    found = [each for folder in folders or (FOLDER,) for each in _found(folder, model=model)]
    return list({each.path.absolute(): each for each in found}.values())


def _found(folder: Path, *, model: bool = False) -> list[Found]:
    from empathy_kit.runs.inventory import find

    found = find(folder, model=model)
    if not found:
        raise KitError(f"{folder}: no run found, expected folders that `empathy-kit run` or `empathy-kit compare` has written")
    return found


def _read(path: Path) -> Record:
    from empathy_kit.files import PARTIAL
    from empathy_kit.runs.record import read

    if path.name.endswith(PARTIAL) and path.is_dir():
        raise KitError(f"{path}: an unfinished run found, expected a finished one")
    return read(path, model=False)


def _table(found: Sequence[Found], folder: Path) -> Any:
    from rich import box
    from rich.table import Table

    from empathy_kit.runs.inventory import amount
    from empathy_kit.runs.report import DASH, number

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for heading in ("run", "state", "configuration", "seed", "accuracy / macro F1", "size", "changed"):
        table.add_column(heading, justify="right" if heading in ("seed", "size") else "left", overflow="fold")
    for each in found:
        about = each.record
        scores = ", ".join(
            f"{task} {' / '.join(DASH if of[name] is None else number(of[name] or 0.0) for name in ('accuracy', 'macro_f1'))}"
            for task, of in each.scores.items()
        )
        name = each.path.name if each.path == folder else each.path.relative_to(folder).as_posix()
        known = ("", "") if about is None else (f"{about.title} on {about.data.get('name')}", str(about.config["seed"]))
        table.add_row(
            name, each.state, *known, scores, amount(each.size), time.strftime("%Y-%m-%d", time.localtime(each.changed))
        )
    return table


def _score_lines(scores: dict[str, dict[str, tuple[Any, Any]]]) -> Iterator[str]:
    from empathy_kit.runs.report import DASH, HEADLINE, number

    for task, of in scores.items():
        cells = []
        for key, title in HEADLINE:
            left, right = of[key]
            known = left is not None and right is not None
            change = f" ({100 * (right - left):+.1f} points)" if known else ""
            cells.append(f"{title} {' -> '.join(DASH if each is None else number(each) for each in (left, right))}{change}")
        yield f"  {task}: {', '.join(cells)}"


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def _versions(found: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.versions.items())
