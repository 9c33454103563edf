"""The command line: it reads flags and prints results, and leaves every decision to the rest of the kit."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from empathy_kit import __version__
from empathy_kit.cli import terminal
from empathy_kit.cli.cache import cache
from empathy_kit.cli.compare import compare
from empathy_kit.cli.data import data
from empathy_kit.cli.doctor import doctor
from empathy_kit.cli.evaluate import evaluate
from empathy_kit.cli.export import export
from empathy_kit.cli.plugins import plugins
from empathy_kit.cli.predict import predict
from empathy_kit.cli.publish import publish
from empathy_kit.cli.run import run
from empathy_kit.cli.runs import runs
from empathy_kit.cli.serve import serve
from empathy_kit.errors import KitError, is_ctrl_c
from empathy_kit.runs.torchrun import is_first_to_report, is_silent

TRAIN = frozenset({"matplotlib", "safetensors", "scipy", "sklearn", "torch", "transformers"})
"""What the extra ``train`` brings."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="empathy-kit")
def cli() -> None:
    """Predict three mechanisms of empathy in peer support: emotional reactions, explorations, interpretations."""


cli.add_command(run)
cli.add_command(compare)
cli.add_command(predict)
cli.add_command(serve)
cli.add_command(evaluate)
cli.add_command(export)
cli.add_command(data)
cli.add_command(plugins)
cli.add_command(publish)
cli.add_command(runs)
cli.add_command(cache)
cli.add_command(doctor)


def main() -> None:
    """Run the command line; a `KitError` is one line on stderr and exit code 2."""
    with terminal.opened(), _ended_by_sigterm():
        sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        return cli.main(standalone_mode=False) or 0
    except KitError as error:
        if is_first_to_report():
            terminal.fault(str(error))
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in TRAIN:
            raise
        if is_first_to_report():
            terminal.fault(f"{error.name} is not installed, which this command needs: pip install 'empathy-kit[train]'")
        return 2
    except click.ClickException as error:
        if not is_first_to_report():
            return error.exit_code
        if isinstance(error, click.BadOptionUsage) and error.option_name in ("-o", "--option"):
            terminal.fault(f"{error.option_name} takes a name and a value, such as {error.option_name} loss.gamma 1.5")
            return 2
        if isinstance(error, click.UsageError) and error.ctx is not None:
            for line in (*error.ctx.get_usage().split("\n"), f"Try '{error.ctx.command_path} --help' for help.", ""):
                terminal.remark(line)
        terminal.fault(error.format_message())  # it may repeat arguments, which may be the names of files
        return error.exit_code
    except RuntimeError as error:
        if not (isinstance(error, click.Abort) or is_ctrl_c(error)):
            raise
        if is_first_to_report():  # torchrun ends all where one has reported a fault
            terminal.remark("Aborted!")
        return 1


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: it cleans up first, and exits with the code that shells expect."""
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        if is_silent():  # click would print a line for each process
            sys.exit(128 + number)
        came.append(number)
        ctrl_c = signal.getsignal(signal.SIGINT)  # ignored by what a shell runs in the background
        (ctrl_c if callable(ctrl_c) else signal.default_int_handler)(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, end)
    if is_silent():
        signal.signal(signal.SIGINT, end)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        if came:
            sys.exit(128 + signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
