"""`plugins new`: a complete distribution, whole or not at all, from the templates next to this file."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from importlib import resources
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from string import Template

from empathy_kit import __version__
from empathy_kit.contracts import NAME_PATTERN
from empathy_kit.errors import KitError
from empathy_kit.files import refuse_existing, staged_folder
from empathy_kit.plugins import Kind, Registry

COMMON = ("pyproject.toml", "README.md", "LICENSE", ".gitignore")


def scaffold(name: str, kind: Kind, into: Path, registry: Registry) -> Path:
    """Write the distribution ``empathy-kit-<name>`` with one plugin of a kind, and return its folder.

    Raises:
        KitError: a name that is not one, is taken or cannot work, a folder that exists or cannot be written.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise KitError(
            f"plugins new {name!r}: expected lower-case letters, digits and hyphens, first a letter, such as my-{kind}"
        )
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise KitError(f"plugins new {name}: a distribution's name has single hyphens, and none at its end; use another name")
    taken = next((entry for entry in registry.of(kind) if entry.spec.name == name), None)
    if taken is not None:
        raise KitError(f"plugins new {name}: {taken.distribution} {taken.version} has a {kind} of that name; use another name")
    if _is_installed(f"empathy-kit-{name}"):
        raise KitError(
            f"plugins new {name}: empathy-kit-{name} is installed, and installing another would remove it; use another name"
        )
    if not _can_be_code(name, kind):
        raise KitError(f"plugins new {name}: that word has another meaning in the plugin's code; use another such as my-{name}")
    folder = into / f"empathy-kit-{name}"
    try:
        refuse_existing(folder)
        with staged_folder(folder) as staging:
            for file, text in files(name, kind).items():
                path = staging / file
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    except FileExistsError:
        if not (folder.exists() or folder.is_symlink()):
            raise KitError(f"plugins new {name}: {folder} cannot be written: File exists") from None
        raise KitError(
            f"plugins new {name}: {folder} already exists, and nothing is overwritten; use another name or --into"
        ) from None
    except OSError as error:
        raise KitError(f"plugins new {name}: {folder} cannot be written: {error.strerror}") from None
    return folder


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def files(name: str, kind: Kind) -> dict[str, str]:
    """Every file of the distribution: path to text."""
    names = {
        **{f"{file}": file for file in COMMON},
        f"empathy_kit_{_identifiers(name)[0]}.py": f"{kind}.py",
        f"tests/test_{_identifiers(name)[0]}.py": "test.py",
    }
    return {target: _filled(source, name, kind) for target, source in names.items()}


def _filled(template: str, name: str, kind: Kind) -> str:
    identifier, constant, type_name = _identifiers(name)
    text = (resources.files(__name__) / "templates" / f"{template}.in").read_text(encoding="utf-8")
    return Template(text).substitute(
        name=name, identifier=identifier, constant=constant, type=type_name, kind=kind, version=__version__
    )


def _identifiers(name: str) -> tuple[str, str, str]:
    """The names of the builder, of the spec and of the class: ``my_loss``, ``MY_LOSS``, ``MyLoss``."""
    return name.replace("-", "_"), name.replace("-", "_").upper(), "".join(word.capitalize() for word in name.split("-"))


def _can_be_code(name: str, kind: Kind) -> bool:
    """Whether the names made of this one are none that Python or the template itself needs, ``float`` or ``nn`` for one."""
    # The names that the template imports, in a plugin of a name that nothing else has.
    tree = ast.parse(_filled(f"{kind}.py", "zzz", kind))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    needed = {alias.asname or alias.name for node in imports for alias in node.names} | set(dir(builtins))
    return not any(keyword.iskeyword(each) or each in needed for each in _identifiers(name))
