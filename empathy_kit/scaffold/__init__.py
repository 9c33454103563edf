"""`plugins new`: a complete distribution, whole or not at all, from the templates beside this file."""

from __future__ import annotations

import secrets
import shutil
from importlib import resources
from pathlib import Path
from string import Template

from empathy_kit import __version__
from empathy_kit.contracts import NAME_PATTERN
from empathy_kit.errors import KitError
from empathy_kit.plugins import KINDS, Kind, Registry

COMMON = ("pyproject.toml", "README.md", "LICENSE", ".gitignore")


def scaffold(name: str, kind: Kind, into: Path, registry: Registry) -> Path:
    """Write the distribution ``empathy-kit-<name>`` with one plugin of a kind, and return its folder.

    Raises:
        KitError: a name that is not one or is taken, a folder that exists or cannot be written.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise KitError(
            f"plugins new {name!r}: expected lower-case letters, digits and hyphens, first a letter, such as my-{kind}"
        )
    taken = next((entry for entry in registry.of(kind) if entry.spec.name == name), None)
    if taken is not None:
        raise KitError(f"plugins new {name}: {taken.distribution} {taken.version} has a {kind} of that name, expected another")
    folder = into / f"empathy-kit-{name}"
    if folder.exists() or folder.is_symlink():
        raise KitError(f"plugins new {name}: {folder} already exists; nothing is overwritten, expected another name or --into")
    staging = folder.with_name(f".{folder.name}.partial-{secrets.token_hex(4)}")
    try:
        into.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        for file, text in files(name, kind).items():
            path = staging / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        staging.rename(folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise KitError(f"plugins new {name}: {folder} cannot be written: {error.strerror}") from None
    return folder


def files(name: str, kind: Kind) -> dict[str, str]:
    """Every file of the distribution: path to text."""
    identifier = name.replace("-", "_")
    values = {
        "name": name,
        "identifier": identifier,
        "constant": identifier.upper(),
        "type": "".join(word.capitalize() for word in name.split("-")),
        "kind": kind,
        "run": {"loss": f"--loss {name}", "head": f"--head {name}", "rationale": f"--rationale {name}"}[kind],
        "version": __version__,
    }
    templates = resources.files(__name__) / "templates"
    names = {
        **{f"{file}": file for file in COMMON},
        f"empathy_kit_{identifier}.py": f"{kind}.py",
        f"tests/test_{identifier}.py": "test.py",
    }
    return {
        target: Template((templates / f"{source}.in").read_text(encoding="utf-8")).substitute(values)
        for target, source in names.items()
    }


def parse_kind(text: str) -> Kind:
    """A kind by its name.

    Raises:
        KitError: there is none of that name.
    """
    for kind in KINDS:
        if text == kind:
            return kind
    raise KitError(f"--kind {text}: unknown, expected {', '.join(KINDS[:-1])} or {KINDS[-1]}")
