"""Command line arguments and TOML files -> configurations and seeds."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empathy_kit.comparison.plan import SEPARATE, check_names, check_seeds, without_separate
from empathy_kit.config import COMPARISON, FOUR, RunConfig, configure, flag, located, routes, settings
from empathy_kit.errors import KitError
from empathy_kit.reading import read_regular


def parse_configurations(
    given: Sequence[str], file: Path | None, base: RunConfig, options: Mapping[str, Any] | None = None
) -> tuple[dict[str, RunConfig], frozenset[str]]:
    """Configurations by name, and the names of those with one model per task.

    They are given as known names, ``NAME=FLAGS`` with the flags of `run` and ``--separate``, and the tables of a TOML file.

    Args:
        given: names, with or without flags; the paper's four if there are neither names nor a file.
        file: a TOML file with a table of settings per configuration.
        base: the settings that a configuration does not set itself.
        options: options of plugins for every configuration.

    Raises:
        KitError: a name is unknown, given twice or not valid, or a flag or the file cannot be read.
    """
    found: dict[str, RunConfig] = {}
    separate: set[str] = set()

    def add(name: str, changes: Mapping[str, Any]) -> None:
        if name in found:
            raise KitError(f"compare {name}: is given twice, expected each name once")
        check_names([*found, name])
        own = changes.get("options", {})
        try:
            changes, apart = without_separate(changes)
            # Options for all apply to each configuration, and are an error where its plugin has no such option.
            merged = {**(options or {}), **dict(routes(own))} if isinstance(own, Mapping) else own
            found[name] = configure(base, {**changes, "options": merged})
            separate.update([name] if apart else [])
        except KitError as error:
            raise KitError(f"compare {name}: {error}") from None

    for text in given or (() if file else FOUR):
        name, equals, flags = text.partition("=")
        if equals:
            add(name, _read_flags(name, flags))
        elif name in COMPARISON:
            add(name, COMPARISON[name])
        else:
            raise KitError(f"compare {name}: unknown, expected {', '.join(COMPARISON)} or NAME=FLAGS")
    if file is not None:
        for name, changes in _read_tables(file).items():
            if not isinstance(changes, Mapping):
                raise KitError(f"--file {file}: {name} is a {type(changes).__name__}, expected a table of settings")
            add(name, located(changes, file, "--file"))
    if not found:
        raise KitError(f'--file {file}: no table found, expected at least one, such as [mine] with loss = "focal"')
    return found, frozenset(separate)


def _read_flags(name: str, text: str) -> dict[str, Any]:
    """``--loss focal -o loss.gamma 3`` -> settings."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise KitError(f"compare {name}={text}: {error}, expected flags of `empathy-kit run`") from None
    known = {flag(setting): setting for setting in settings()}
    changes: dict[str, Any] = {}
    options: dict[str, str] = {}
    while words:
        word, equals, value = words.pop(0).partition("=")
        if equals and word in known:  # --loss=focal, which click accepts too
            words.insert(0, value)
        if word == f"--{SEPARATE}" and not equals:
            changes[SEPARATE] = True
        elif word == "--no-rationale":
            changes["rationale"] = "none"
        elif word in ("-o", "--option") and words and "=" in words[0]:
            options[words.pop(0)] = ""  # `configure` refuses it with the right form
        elif word in ("-o", "--option") and len(words) >= 2:
            route, value = words.pop(0), words.pop(0)
            options[route] = value
        elif word in known and words:
            changes[known[word]] = words.pop(0)
        else:
            what = "needs a value" if word in known or word in ("-o", "--option") else "unknown"
            raise KitError(f"compare {name}: {word}: {what}, expected flags of `empathy-kit run`, such as --loss focal")
    return {**changes, **({"options": options} if options else {})}


def _read_tables(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(file).decode("utf-8-sig"))
    except OSError as error:
        raise KitError(f"--file {file}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise KitError(f"--file {file}: not valid TOML: {error}") from None


def parse_seeds(text: str) -> tuple[int, ...]:
    """``5`` -> 0 to 4; ``3,7`` -> these.

    Raises:
        KitError: the seeds are not whole numbers, none, too many, or one is given twice.
    """
    parts = [part.strip() for part in text.split(",")]
    # Digits alone: int() would also read "1_000", and more than 4,300 digits would be a ValueError of another kind.
    if not all(part.isascii() and part.isdigit() and len(part) <= 10 for part in parts):
        raise KitError(f"--seeds {text[:60]}: expected how many, or a list such as 0,1,7")
    numbers = [int(part) for part in parts]
    seeds: Sequence[int] = range(numbers[0]) if len(numbers) == 1 else numbers
    check_seeds(seeds, f"--seeds {text[:60]}")
    return tuple(seeds)
