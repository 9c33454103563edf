"""The browser of the page's tests. Where the environment requires it, a test that would skip fails."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from typing import Any, NoReturn

import pytest

VARIABLE = "EMPATHY_KIT_BROWSER"


def missing(what: str) -> NoReturn:
    """Ends the test, or the module that is being imported."""
    if os.environ.get(VARIABLE) == "required":
        pytest.fail(
            f"{what} is not installed, but {VARIABLE} is set to required; install it, or unset the variable", pytrace=False
        )
    pytest.skip(f"{what} is not installed", allow_module_level=True)


def library(module: str, name: str) -> Any:
    """A module of the dev extra that the browser needs."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        missing(name)


def program() -> str:
    """Debian's Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or missing("Chromium")
