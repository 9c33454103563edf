"""The command line: it talks, and decides nothing."""

from __future__ import annotations

import io
import sys

import click

from empathy_kit import __version__
from empathy_kit.cli import terminal
from empathy_kit.cli.compare import compare
from empathy_kit.cli.data import data
from empathy_kit.cli.doctor import doctor
from empathy_kit.cli.evaluate import evaluate
from empathy_kit.cli.plugins import plugins
from empathy_kit.cli.predict import predict
from empathy_kit.cli.publish import publish
from empathy_kit.cli.run import run
from empathy_kit.errors import KitError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="empathy-kit")
def cli() -> None:
    """Predict three mechanisms of empathy in peer support: emotional reactions, explorations, interpretations."""


cli.add_command(run)
cli.add_command(compare)
cli.add_command(predict)
cli.add_command(evaluate)
cli.add_command(data)
cli.add_command(plugins)
cli.add_command(publish)
cli.add_command(doctor)


def main() -> None:
    """Run the command line; a `KitError` is one line on stderr and exit code 2."""
    with terminal.opened():
        sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        return cli.main(standalone_mode=False) or 0
    except KitError as error:
        terminal.remark(f"Error: {error}")
        return 2
    except click.ClickException as error:
        usage = io.StringIO()
        error.show(usage)  # it may repeat the arguments, which may be the names of files
        for line in usage.getvalue().removesuffix("\n").split("\n"):
            terminal.remark(line)
        return error.exit_code
    except click.Abort:
        terminal.remark("Aborted!")
        return 1
