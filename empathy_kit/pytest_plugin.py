"""`pytest --benchmark`, here and in any plugin author's repository. Every pytest loads it where the kit is, so it is light."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

TIMINGS = Path(__file__).with_name("timings.py")
"""Times every installed loss. Not named like a test, so that it is collected where it is named and nowhere else."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag."""
    with suppress(ValueError):  # another plugin has such a flag; its own users' pytest must still start
        parser.getgroup("empathy-kit").addoption(
            "--benchmark",
            action="store_true",
            dest="empathy_kit_benchmark",
            help="run benchmarks/ in place of the tests, and time every installed empathy-kit loss against the built-in ones",
        )


def pytest_configure(config: pytest.Config) -> None:
    """Point pytest at the benchmarks where the flag is given and no files are named."""
    if not config.getoption("empathy_kit_benchmark", default=False):
        return
    import pytest

    if not config.pluginmanager.has_plugin("benchmark"):
        raise pytest.UsageError("--benchmark needs pytest-benchmark, expected it to be installed: pip install pytest-benchmark")
    if config.args_source is not config.ArgsSource.ARGS:
        own = config.rootpath / "benchmarks"
        config.args = [*([str(own)] if own.is_dir() else []), str(TIMINGS)]
