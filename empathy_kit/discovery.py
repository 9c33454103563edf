"""Where plugins come from: the entry points of installed distributions, and single files that the user names."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path, PurePath
from types import ModuleType

from empathy_kit import __version__
from empathy_kit.errors import KitError
from empathy_kit.files import sha256
from empathy_kit.hookspecs import PROJECT
from empathy_kit.reading import read_regular

OURS = "empathy-kit"
ONLY = "EMPATHY_KIT_PLUGINS"
"""Environment variable: the distributions to load, separated by commas; empty loads none. Unset loads all."""


@dataclass(frozen=True)
class Source:
    """What offers plugins: an entry point of a distribution, or a file."""

    distribution: str
    version: str
    module: str  # its name once it is imported
    load: Callable[[], object]


def installed() -> list[Source]:
    """The entry points of the installed distributions that the environment does not exclude, by name."""
    only = os.environ.get(ONLY)
    wanted = None if only is None else {normal(name) for name in only.split(",")}
    points = [point for point in _entry_points() if wanted is None or normal(_provider(point)[0]) in wanted]
    chosen = map(_source, points)
    return sorted(chosen, key=lambda source: (source.distribution, source.version, source.module))


def not_installed() -> Iterator[str]:
    """The distributions that the environment names, and that offer nothing here."""
    wanted = [name.strip() for name in os.environ.get(ONLY, "").split(",") if name.strip()]
    if wanted:
        found = {normal(_provider(point)[0]) for point in _entry_points()}
        yield from (name for name in wanted if normal(name) not in found)


def _entry_points() -> list[EntryPoint]:
    points: dict[tuple[str, str], EntryPoint] = {}
    for point in entry_points(group=PROJECT):
        # pip renames what it replaces to "~mpathy_kit_...", and an interrupted pip leaves it there.
        if Path(str(getattr(point.dist, "_path", ""))).name.startswith("~"):
            continue
        # The same distribution on two paths is one plugin: the first is what Python imports.
        points.setdefault((normal(_provider(point)[0]), point.name), point)
    return list(points.values())


def _source(point: EntryPoint) -> Source:
    def load() -> object:
        if not module:
            raise ValueError(f"its entry point is {point.value!r}, expected a module's name such as empathy_kit_mine")
        assert_made_for_this_kit((point.dist.requires if point.dist else None) or [])
        return point.load()

    try:
        module = point.module
    except AttributeError:  # how importlib answers to what is no module's name
        module = ""
    return Source(*_provider(point), module, load)


def _provider(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return point.value, "unknown"
    try:
        metadata = point.dist.metadata
    except Exception:  # a METADATA that is not UTF-8; its loading says so
        name, _, version = Path(str(getattr(point.dist, "_path", point.value))).name.removesuffix(".dist-info").partition("-")
        return normal(name), version or "unknown"
    # With defaults: an interrupted installation leaves a folder without METADATA.
    return metadata.get_all("Name", [point.value])[0], metadata.get_all("Version", ["unknown"])[0]


def assert_made_for_this_kit(requirements: Sequence[str]) -> None:
    """Hold a distribution's own requirements against this version of the kit.

    Raises:
        RuntimeError: it needs another version.
    """
    for text in requirements:
        name = re.match(r"\s*([\w.-]+)", text)
        if name is None or not same_distribution(name[1], OURS):
            continue
        from packaging.requirements import Requirement

        need = Requirement(text)
        applies = need.marker is None or need.marker.evaluate({"extra": ""})
        if applies and not need.specifier.contains(__version__, prereleases=True):
            raise RuntimeError(f"made for {OURS} {need.specifier}, and this is {OURS} {__version__}")


def from_file(path: Path) -> Source:
    """A plugin in one Python file. Its version is a hash of what it holds.

    Raises:
        KitError: the file cannot be read.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise KitError(
            f"--plugin {path}: cannot be read: {error.strerror}; expected a Python file such as ./my_loss.py"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    place = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
    # Named by place and content: loaded again, a changed file is another module and an unchanged one is the same.
    module = f"_empathy_kit_file_{place[:12]}_{digest[:12]}"
    return Source(f"./{path.name}", f"sha256:{digest[:12]}", module, lambda: _import_file(module, path, content))


def _import_file(name: str, path: Path, content: bytes) -> object:
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    # These bytes, which the hash is of, and not what the file holds by now; and without this module's own __future__ imports.
    code = compile(content, str(path), "exec", dont_inherit=True)
    sys.modules[name] = module  # the types of its options are looked up there
    try:
        exec(code, vars(module))  # noqa: S102 - the user named this file
    except BaseException:
        del sys.modules[name]
        raise
    return module


def hash_files(module: str, owner: str) -> str | None:
    """One sha256 of the files behind a module that is loaded: code, and what it reads; None where there are none to read.

    Args:
        module: its name.
        owner: the distribution that it belongs to; all files that one recorded count, else the module's whole package. Of a
            package that is no distribution's, only the Python files count: it may hold data and results.
    """
    try:
        recorded = _recorded(owner)
        loaded = os.path.realpath(str(getattr(sys.modules.get(module), "__file__", "")))
        # Of a module from elsewhere, such as a checkout that Python finds before the installed files, these would be others.
        ran = loaded in map(os.path.realpath, recorded.values())
        files = recorded if ran else _package(module, whole=_distribution(owner) is not None) | _beside(module, owner)
    except Exception:  # other people's metadata: a RECORD that is not UTF-8, or is no table
        return None
    digests = {name: _digest(path) for name, path in files.items()}
    if len(digests) <= 1:
        return next(iter(digests.values()), None)
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:  # recorded, and deleted since: a hash without it would be that of another release
        return "missing"


def _beside(module: str, owner: str) -> dict[str, Path]:
    """Of an editable installation, the modules next to the plugin's that it imports: it may be more than one file."""
    found = _distribution(owner)
    if found is None or not _editable(found):
        return {}
    file = getattr(sys.modules.get(module.partition(".")[0]), "__file__", None)
    if not file:  # a namespace, which has no place of its own
        return {}
    place = Path(file)
    folder = place.parent.parent if place.name == "__init__.py" else place.parent
    waiting = list(_package(module, whole=False).values())
    seen: dict[str, Path] = {}
    while waiting:  # by what stands in the files, not by what is loaded: builders import inside
        for name in _imported(waiting.pop()):
            package = (folder / name).rglob("*.py") if (folder / name / "__init__.py").exists() else ()
            for path in (folder / f"{name}.py", *package):
                known = path.relative_to(folder).as_posix()
                if path.is_file() and known not in seen:
                    seen[known] = path
                    waiting.append(path)
    return seen


def _editable(found: Distribution) -> bool:
    """Whether its installer wrote down that the code is elsewhere (PEP 610)."""
    try:
        return json.loads(found.read_text("direct_url.json") or "null")["dir_info"]["editable"] is True
    except (ValueError, TypeError, KeyError):  # no JSON, or of another form: an archive has no dir_info
        return False


def _imported(path: Path) -> set[str]:
    """The top-level modules that a file names in its imports, wherever in it they stand."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):  # a template, or Python of another version; ValueError: a null byte
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


def _distribution(owner: str) -> Distribution | None:
    try:
        return distribution(owner)
    except (PackageNotFoundError, ValueError):
        return None


def _recorded(owner: str) -> dict[str, Path]:
    found = _distribution(owner)
    recorded = [file for file in (found and found.files) or () if _own(file.parts)]
    code = [file for file in recorded if file.suffix == ".py"]
    # An egg-info is of a source tree, and lists its documentation too.
    own = code if not code or Path(str(getattr(found, "_path", ""))).suffix == ".egg-info" else recorded
    return {file.as_posix(): Path(str(file.locate())) for file in own if _counts(file)}


def _own(parts: Sequence[str]) -> bool:
    # An editable installation records what finds the code, and not the code; every one, what describes the distribution.
    about = parts[0].startswith("__editable__") or parts[0].endswith((".pth", ".dist-info", ".egg-info"))
    return ".." not in parts and not about


def _counts(path: PurePath) -> bool:
    # Hidden files are an editor's or a system's, and a type checker alone reads py.typed.
    left_out = (
        path.name == "py.typed" or path.suffix == ".pyc" or any(part.startswith((".", "__pycache__")) for part in path.parts)
    )
    return path.suffix == ".py" or not left_out


def _package(module: str, *, whole: bool) -> dict[str, Path]:
    top = sys.modules.get(module.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    if folders:
        pattern = "*" if whole else "*.py"
        found = {path.relative_to(folder.parent): path for folder in folders for path in folder.rglob(pattern) if path.is_file()}
        return {name.as_posix(): path for name, path in found.items() if _counts(name)}
    file = getattr(top, "__file__", None)
    # What comes from standard input calls itself a file.
    return {Path(file).name: Path(file)} if file and Path(file).is_file() else {}


def same_distribution(one: str, other: str) -> bool:
    """Whether two names are one distribution's: case, and `-`, `_` and `.`, do not count. A file's may have lost its ``./``."""
    return normal(one.removeprefix("./")) == normal(other.removeprefix("./"))


def normal(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
