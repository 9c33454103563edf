"""`empathy-kit run`: train and test one configuration."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import click

from empathy_kit.cli import terminal
from empathy_kit.cli.flags import Number, plugin_files, plugin_options
from empathy_kit.config import (
    PRESETS,
    RunConfig,
    configure,
    flag,
    located,
    preset,
    read_config,
    settings,
)
from empathy_kit.errors import KitError
from empathy_kit.runs.quiet import quiet_libraries

if TYPE_CHECKING:
    from rich.text import Text

    from empathy_kit.cli.console import KitConsole
    from empathy_kit.core.state import Epoch
    from empathy_kit.core.trainer import Step
    from empathy_kit.runs.record import Record
    from empathy_kit.runs.train import Finished, Opened


MOST_MINUTES = 10_000


def setting_flags(*, without: Container[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One flag per field of RunConfig, which checks it. Names are no click.Choice, because that would load the plugins."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        types = get_type_hints(RunConfig)
        for name, (default, text) in reversed(settings().items()):
            if name in without:
                continue
            shown = {"schema": "epitome", "tasks": "all"}.get(name, "none" if default is None else default)
            choices = get_args(types[name]) if get_origin(types[name]) is Literal else ("VALUE",)
            # No default for click: an unset flag must differ from a flag that is set to the default.
            option = click.option(flag(name), name, default=None, metavar="|".join(choices), help=f"{text}  [{shown}]")
            command = option(command)
        return command

    return decorate


@click.command()
@click.option(
    "--preset", "preset_name", default=None, metavar="|".join(PRESETS), help="the recipe that the flags change  [small]"
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="repeat a run.json, or start from a TOML file")
@click.option("--out", type=click.Path(path_type=Path), help="the run directory, which must not exist  [runs/NAME]")
@click.option("--resume", type=click.Path(path_type=Path), metavar="FOLDER", help="continue a stopped run: its OUT.partial")
@click.option(
    "--resume-anyway", is_flag=True, help="even with other versions of the kit or its libraries; its numbers may differ"
)
@click.option(
    "--checkpoint-minutes",
    "minutes",
    cls=Number,
    type=float,
    default=5.0,
    metavar="N",
    help="how often the run's state is written  [5]",
)
@click.option(
    "--tracker", metavar="NAME", help="also log to tensorboard, mlflow, trackio or another tracker that is installed  [none]"
)
@plugin_options("a plugin's option: -o loss.gamma 1.5")
@plugin_files
@click.option("--no-rationale", is_flag=True, help="the same as --rationale none")
@click.option("--json", "as_json", is_flag=True, help="print the record as JSON instead of tables")
@setting_flags()
def run(
    *,
    preset_name: str | None,
    config_file: Path | None,
    out: Path | None,
    resume: Path | None,
    resume_anyway: bool,
    minutes: float,
    tracker: str | None,
    options: tuple[tuple[str, str], ...],
    plugin_files: tuple[Path, ...],
    no_rationale: bool,
    as_json: bool,
    **values: str | None,
) -> None:
    """Train and test one configuration, and write a run directory.

    The defaults are a recipe for the small encoder on the bundled sample; --preset paper is the paper's section 4.2.

    While it trains, its state is kept in OUT.partial/: every few minutes, at the end of an epoch, and when Ctrl-C or SIGTERM
    stops it. The same command continues it, and so does --resume OUT.partial. The result is the same as without the stop, to the
    byte.
    """
    given = {k: v for k, v in values.items() if v is not None}
    if not 0 <= minutes <= MOST_MINUTES:
        raise KitError(f"--checkpoint-minutes {minutes:g}: expected 0 to {MOST_MINUTES}")
    if resume is None:
        base = base_configuration(preset_name, config_file, given)
    else:
        base, out = _stopped(resume, {"--out": out, "--preset": preset_name, "--config": config_file})
    config = _configuration(base, options, no_rationale, given)
    from empathy_kit.cli.console import KitConsole
    from empathy_kit.plugins import load_registry
    from empathy_kit.runs.repeat import UNKNOWN, read_original
    from empathy_kit.runs.torchrun import is_silent, joined
    from empathy_kit.runs.train import run as train

    quiet_libraries()
    start = f"resume {resume}" if resume else f"config {config_file}" if config_file else f"preset {preset_name or 'small'}"
    original = read_original(config_file, given) if config_file else UNKNOWN
    tracked = None
    if tracker is not None:
        from empathy_kit.runs.tracking import Tracker, track

        tracked = Tracker(tracker, out or _folder(config))
    with joined(config.device) as processes, _left_to_resume(plugin_files) as opened:
        events = train(
            config,
            load_registry(plugin_files),
            out or _folder(config),
            numbered=out is None,
            original=original,
            minutes=minutes,
            anyway=resume_anyway,
            processes=processes,
        )
        if tracked is not None and not is_silent():
            events = track(events, tracked)
        with closing(events):  # it cleans up before the command ends, however it ends
            if is_silent():
                _take_part(events)
            else:
                finished = _watch(events, config, start, KitConsole(stderr=True), opened)
    if is_silent():
        return
    with terminal.kept(f"the run is complete in {finished.folder}"):
        if as_json:
            terminal.content(asdict(finished.record))
        else:
            print_record(finished.record)
            terminal.line(f"record: {finished.folder}")


def _take_part(events: Iterable[Any]) -> None:
    """The events of a process that prints nothing: there are none."""
    try:
        list(events)
    except KeyboardInterrupt:  # of which click would print a line
        sys.exit(128 + signal.SIGINT)


def base_configuration(preset_name: str | None, config_file: Path | None, given: dict[str, str]) -> RunConfig:
    """The configuration that the flags change."""
    from empathy_kit.plugins import KINDS

    if preset_name is not None and config_file:
        raise KitError("--preset and --config: both given; use only one of them")
    base = RunConfig() if preset_name is None else preset(preset_name)
    if config_file:
        recorded = read_config(config_file)
        # A plugin that a flag replaces is needed to tell whose the recorded options are.
        kept: dict[str, Any] = {name: value for name, value in recorded.items() if name not in given or name in KINDS}
        kept |= {name: given[name] for name in KINDS if name in given and name not in recorded}  # a file of options alone
        base = configure(base, located(kept, config_file))
    return base


def _stopped(partial: Path, others: dict[str, object]) -> tuple[RunConfig, Path]:
    """The configuration and the run directory of a stopped run."""
    from empathy_kit.files import PARTIAL
    from empathy_kit.runs.identity import named

    for name, value in others.items():
        if value is not None:
            raise KitError(f"--resume and {name}: both given; use only one of them")
    settings = named(partial).settings
    return configure(RunConfig(), located(settings, partial, "--resume")), partial.with_name(partial.name.removesuffix(PARTIAL))


@contextmanager
def _left_to_resume(plugin_files: Iterable[Path]) -> Iterator[list[Opened]]:
    """Print how a run that is stopped meanwhile is continued; the caller appends what was opened."""
    opened: list[Opened] = []
    try:
        yield opened
    except KeyboardInterrupt:
        from empathy_kit.runs.checkpoints import folders

        for partial in (event.partial for event in opened if event.partial is not None and folders(event.partial)):
            plugins = "".join(f" --plugin {path}" for path in plugin_files)
            terminal.remark(f"stopped; `empathy-kit run --resume {partial}{plugins}` continues it")
        raise


def _configuration(base: RunConfig, options: Iterable[tuple[str, str]], no_rationale: bool, values: dict[str, str]) -> RunConfig:
    if no_rationale and values.get("rationale", "none") != "none":
        raise KitError(f"--no-rationale and --rationale {values['rationale']}: both given; use only one of them")
    changes: dict[str, Any] = dict(values)
    if no_rationale:
        changes["rationale"] = "none"
    if options:
        changes["options"] = dict(options)
    return configure(base, changes)


def _folder(config: RunConfig) -> Path:
    """``runs/sample-focal-none-0``; head, trunk and sampler are added where they are not the defaults."""
    usual = RunConfig()
    others = [getattr(config, kind) for kind in ("head", "trunk", "sampler") if getattr(config, kind) != getattr(usual, kind)]
    return Path("runs") / "-".join([Path(config.data).stem, config.loss, config.rationale, *others, str(config.seed)])


def _watch(events: Iterable[Any], config: RunConfig, start: str, console: KitConsole, opened: list[Opened]) -> Finished:
    """Show the progress on stderr, and return the last event."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    from empathy_kit.runs.keeping import Unkept
    from empathy_kit.runs.tracking import Untracked
    from empathy_kit.runs.train import Finished, Opened

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    # In a pipe a bar would draw nothing and still print an empty line, even before an error.
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as bar:
        task = bar.add_task("loading", total=None)
        for event in events:
            if isinstance(event, Opened):
                opened.append(event)
                for line in _opening(event, start):
                    console.print_line(line)
            elif isinstance(event, Finished):
                return event
            elif isinstance(event, Unkept | Untracked):
                console.print_line(Text(f"warning: {event}", "bold yellow"))
            else:
                from empathy_kit.core.state import (
                    Epoch,
                )  # loaded by now; earlier, it would delay errors

                if isinstance(event, Epoch):
                    console.print_line(_epoch_line(event))
                else:
                    bar.update(task, description=_step_line(event), total=event.steps * config.epochs, completed=event.taken)
    raise RuntimeError("the run ended without a record")


def _step_line(step: Step) -> str:
    return f"epoch {step.epoch}, step {step.step}/{step.steps}, loss {step.loss:.3f}, {step.pairs / step.seconds:.0f} pairs/s"


def _epoch_line(epoch: Epoch) -> str:
    scores = ", ".join(
        f"{name} {epoch.validation_accuracy[name]:.3f} / {f1:.3f}" for name, f1 in epoch.validation_macro_f1.items()
    )
    return (
        f"epoch {epoch.epoch}: loss {epoch.train_loss:.3f}, validation loss {epoch.validation_loss:.3f}, "
        f"accuracy / macro F1 {scores}, {epoch.pairs_per_second:.0f} pairs/s{', best so far' if epoch.best else ''}"
    )


def _opening(opened: Opened, start: str) -> Iterable[str | Text]:
    from rich.text import Text

    from empathy_kit.runs import report

    config = opened.config
    names = config.schema.select(config.tasks).names
    yield from report.data_lines(opened.data)
    yield from report.split_lines(opened.split)
    yield from (Text(line, "bold yellow") for line in report.split_warnings(opened.split))
    yield from report.truncation_lines(asdict(opened.truncation), config.truncate, opened.data["pairs"], names)
    if config.sampler != "all":
        pairs = opened.split["pairs"]["train"]
        yield f"sampler {config.sampler}: {opened.epoch_pairs:,} pairs per epoch, of {pairs:,} training pairs"
    several = f" in {opened.processes} processes" if opened.processes > 1 else ""
    yield (
        f"encoder {config.encoder}, {start}, loss {config.loss}, rationale {config.rationale}, "
        f"head {config.head}, trunk {config.trunk}, seed {config.seed}, on {opened.device}{several}; losses: {opened.losses}"
    )
    if opened.states is not None:
        what = f"the {config.freeze_layers} lowest layers are frozen; their" if config.freeze_layers else "a frozen encoder's"
        yield f"{what} states of every post are in {opened.states}"
    if config.posts == "response":
        yield "the model does not see the seeker posts"
    if opened.continued is not None:
        yield opened.continued
    for warning in opened.warnings:
        yield Text(f"warning: {warning}", "bold yellow")
    if opened.oracle:
        yield Text("ORACLE: this run sees annotated spans at test time", "bold red")


def print_record(record: Record) -> None:
    """Print the scores of a run, their warnings, and how it was trained."""
    from empathy_kit.cli.console import KitConsole
    from empathy_kit.runs import report

    console = KitConsole()
    for table in (report.score_table(record), *report.class_tables(record), report.span_table(record)):
        if table is not None:
            console.print(table)
    for warning in report.warnings(record):
        console.print(warning)
    calibration = report.calibration_line(record)
    if calibration is not None:
        console.print(calibration, highlight=False)
    training = record.training
    console.print(
        f"epoch {training['best_epoch']} of {training['epochs']} chosen by validation {record.config['select']}; "
        f"{training['seconds']:.0f} s, {training['pairs_per_second']:.0f} pairs/s in training",
        highlight=False,
    )
