"""Runs checks on a bad plugin."""

from __future__ import annotations

from collections.abc import Iterable

from empathy_kit.testing import Check


def messages(checks: Iterable[Check]) -> dict[str, str]:
    """What each check that fails says."""
    found = {}
    for check in checks:
        try:
            check()
        except Exception as error:
            found[str(check)] = str(error).partition("\n")[0]  # then pytest's own view of the assertion
    return found


def broken(checks: Iterable[Check]) -> set[str]:
    """The names of the checks that fail."""
    return set(messages(checks))
