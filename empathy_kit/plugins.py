"""Finds plugins, isolates the broken, settles names -> Registry. No torch, no click, no global manager."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Literal

import pluggy

from empathy_kit import __version__, hookspecs
from empathy_kit.contracts import Head, Loss, Rationale, Sampler, Spec, Trunk, written
from empathy_kit.discovery import ONLY as ONLY
from empathy_kit.discovery import OURS as OURS
from empathy_kit.discovery import Source, from_file, hash_files, installed, not_installed
from empathy_kit.discovery import same_distribution as same_distribution
from empathy_kit.errors import KitError
from empathy_kit.options import options_of

Kind = Literal["loss", "rationale", "head", "sampler", "trunk"]

HOOKS: dict[str, tuple[Kind, type[Spec]]] = {
    "empathy_kit_losses": ("loss", Loss),
    "empathy_kit_rationales": ("rationale", Rationale),
    "empathy_kit_heads": ("head", Head),
    "empathy_kit_samplers": ("sampler", Sampler),
    "empathy_kit_trunks": ("trunk", Trunk),
}
KINDS: tuple[Kind, ...] = tuple(kind for kind, _ in HOOKS.values())
# By name, as an entry point has it: the builders come after this module in the import law.
BUILTIN = tuple(f"empathy_kit.builtin.{room}" for room in ("losses", "rationales", "heads", "samplers", "trunks"))
HEAVY = ("torch", "transformers", "sklearn")

HANDED_OVER = "python"  # in place of a distribution, for a spec that a program gave

RESERVED_OPTIONS = {"rationale": {"weight"}}
"""Option names that the kit itself answers to, which no builder of that kind may have."""


@dataclass(frozen=True)
class Provided:
    """A spec and who provides it."""

    kind: Kind
    spec: Spec
    distribution: str  # "./my_loss.py" for a file, HANDED_OVER for a spec that a program gave
    version: str
    module: str | None = None  # where the spec comes from, a key of sys.modules


@dataclass(frozen=True)
class Failure:
    """A plugin that was skipped whole, or a name that is disabled, and why."""

    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}: {self.reason}"

    def concerns(self, name: str, kind: Kind | None = None) -> bool:
        """Whether it may be the reason why a name, perhaps of a certain kind, is missing."""
        if any(same_distribution(self.distribution, each) for each in (name, f"{OURS}-{name}")):
            return True
        of_another_kind = kind and any(f"{each} {name!r}" in self.reason.lower() for each in KINDS if each != kind)
        return repr(name) in self.reason and not of_another_kind


@dataclass(frozen=True)
class Registry:
    """What can be used by name, what could not be loaded, and what loads slowly."""

    provided: tuple[Provided, ...]
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()

    def of(self, kind: Kind) -> tuple[Provided, ...]:
        """Everything of one kind: the kit's own first, then by name."""
        return tuple(entry for entry in self.provided if entry.kind == kind)

    def named(self, name: str) -> tuple[Provided, ...]:
        """Everything that has a name, or comes from a distribution of that name.

        Raises:
            KitError: there is nothing; the message lists what there is and what did not load.
        """
        found = tuple(entry for entry in self.provided if entry.spec.name == name or same_distribution(entry.distribution, name))
        if not found:
            there_are = ", ".join(dict.fromkeys(entry.spec.name for entry in self.provided))
            raise KitError(f"plugin {name}: unknown; there are {there_are}{self._not_loaded(name)}")
        return found

    def get(self, kind: Kind, name: str) -> Provided:
        """The provider of a name.

        Raises:
            KitError: it is missing; the message lists what exists and what did not load.
        """
        for entry in self.of(kind):
            if entry.spec.name == name:
                return entry
        there_are = ", ".join(entry.spec.name for entry in self.of(kind))
        raise KitError(f"--{kind} {name}: unknown; there are {there_are}{self._not_loaded(name, kind)}")

    def _not_loaded(self, name: str, kind: Kind | None = None) -> str:
        concerned = [failure for failure in self.failures if failure.concerns(name, kind)]
        others = len(self.failures) - len(concerned)
        text = "; not loaded: " + "; ".join(map(str, concerned)) if concerned else ""
        if others:
            text += f"; {others} {'more' if concerned else 'installed'} did not load, which `empathy-kit plugins list` names"
        return text

    def with_specs(self, *specs: Spec, distribution: str = HANDED_OVER) -> Registry:
        """A registry with specs of the caller's own, by the same rules as everybody's; the record names ``distribution``.

        Raises:
            KitError: a value that is not a spec, a name that is taken, or an option that belongs to the kit.
        """
        if same_distribution(distribution, OURS):
            raise KitError(f"distribution {distribution!r}: the kit's own name, expected another")
        registry = self
        for spec in specs:
            try:
                entry = _entry(spec, Source(distribution, "unknown", _module_of(spec), lambda: None))
            except (TypeError, ValueError) as error:
                raise KitError(f"{distribution}: {error}") from None
            digest = fingerprint(entry)
            registry = registry._with([replace(entry, version=f"sha256:{digest[:12]}") if digest else entry], distribution)
        return registry

    def _with(self, entries: Sequence[Provided], who: str) -> Registry:
        """What the user named is never skipped: it is added, or refused."""
        there = {_names(entry): entry for entry in self.provided}
        for entry in entries:
            if other := there.get(_names(entry)):
                by = "is a built-in name" if other.distribution == OURS else f"is also offered by {_by(other)}"
                raise KitError(f"{who}: {entry.kind} {entry.spec.name!r} {by}; choose another")
        thirds = sorted((*entries, *(entry for entry in self.provided if entry.distribution != OURS)), key=_names)
        return replace(self, provided=(*(entry for entry in self.provided if entry.distribution == OURS), *thirds))


def load_registry(files: str | Path | Sequence[str | Path] = ()) -> Registry:
    """The kit's own plugins, those of every installed distribution that the environment does not exclude, and of some files.

    Raises:
        KitError: a file that cannot be read, or is broken as a plugin.
    """
    kits = [Source(OURS, __version__, name, functools.partial(importlib.import_module, name)) for name in BUILTIN]
    ours = [entry for source in kits for entry in _collect(source.load(), source)]
    offers: list[Provided] = []
    failures = [
        Failure(name, "-", f"{ONLY} asks for it, but no installed distribution of that name offers plugins")
        for name in not_installed()
    ]
    warnings: list[str] = []
    for source in installed():
        loaded = set(sys.modules)
        try:
            found = _load(source)
            _refuse_built_in_names(found, ours)
        except _Broken as error:
            failures.append(Failure(source.distribution, source.version, str(error)))
            continue
        if heavy := _heavy(source.module, loaded):
            warnings.append(
                f"{source.distribution} {source.version} imports {' and '.join(heavy)} as it is loaded, and every command waits "
                "for that; import inside the builders"
            )
        offers += found
    registry = _settle(ours, offers, failures, warnings)
    named = [files] if isinstance(files, str | Path) else files
    for path in {os.path.realpath(file): Path(file) for file in named}.values():
        source, who = from_file(path), f"--plugin {path}"
        try:
            registry = registry._with(_load(source), who)
        except _Broken as error:
            raise KitError(f"{who}: {error}") from None
    return registry


def _heavy(module: str, before: Container[str]) -> list[str]:
    """Which heavy libraries a plugin imports at the top, whether or not they were loaded before it."""
    top = module.partition(".")[0]
    own = [each for name, each in list(sys.modules.items()) if name == top or name.startswith(f"{top}.")]
    # Some put None there for a module that they can do without, or an object of their own.
    spaces = [ModuleType.__getattribute__(each, "__dict__") for each in own if issubclass(type(each), ModuleType)]
    used = {_library(value) for space in spaces for value in list(space.values())}
    return [name for name in HEAVY if name in used or (name in sys.modules and name not in before)]


def _library(value: object) -> str:
    """The library that a module, a class or a function comes from; not asked of other objects, whose code would run."""
    # By its type: an object may have a __class__ of its own, and isinstance would ask for it.
    kind = type(value)
    if issubclass(kind, ModuleType):
        return str(ModuleType.__getattribute__(value, "__dict__").get("__name__", "")).partition(".")[0]
    if issubclass(kind, type):
        return str(type.__getattribute__(value, "__module__")).partition(".")[0]
    if kind in (FunctionType, BuiltinFunctionType):
        return str(getattr(value, "__module__", "")).partition(".")[0]
    return ""


def fingerprint(entry: Provided) -> str | None:
    """sha256 of the files that a plugin consists of; None for the kit's own, and where no file is found.

    A version names what was released. This also notices what was changed in place, as in an editable installation.
    """
    if entry.distribution == OURS or entry.module is None:
        return None
    return hash_files(entry.module, entry.distribution)


class _Broken(Exception):  # noqa: N818 - the plugin's error, not ours
    """A plugin cannot be used, and why."""


def _load(source: Source) -> list[Provided]:
    # What a plugin prints while it is imported would stand in the midst of our JSON.
    with _ctrl_c() as pressed, redirect_stdout(sys.stderr):
        try:
            return list(_collect(source.load(), source))
        except BaseException as error:  # other people's code: also SystemExit at import
            if pressed:
                raise KitError(
                    f"interrupted while {source.distribution} {source.version} was loading; {ONLY} chooses what to load, empty "
                    "for nothing"
                ) from None
            raise _Broken(f"{type(error).__name__}: {one_line(error)}") from None


@contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """Notes a Ctrl-C of the user: the KeyboardInterrupt that a plugin raises by itself is one more way to be broken."""
    pressed: list[int] = []

    def press(number: int, frame: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread has signals
        yield pressed
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def one_line(error: BaseException) -> str:
    """An exception's message without line ends, whatever its class does."""
    try:
        return " ".join(str(error).split()) or "no message"
    except Exception:  # the plugin's own exception class
        return "no readable message"


def _names(entry: Provided) -> tuple[Kind, str]:
    return entry.kind, entry.spec.name


def _by(entry: Provided) -> str:
    return f"{entry.distribution} {entry.version}"


def _module_of(spec: object) -> str:
    build = getattr(spec, "build", None)
    return (getattr(written(build), "__module__", None) if callable(build) else None) or "__main__"


def _collect(plugin: object, source: Source) -> Iterator[Provided]:
    """All specs of one plugin. A manager of its own, so that nothing it does to one reaches another plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()  # a misspelt hook is silent until this check
    implemented = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    if not implemented:
        raise TypeError(f"no hook found, expected {', '.join(HOOKS)} marked with @empathy_kit.hookimpl")
    seen: set[tuple[Kind, str]] = set()
    for hook, (_, expected) in HOOKS.items():
        if hook not in implemented:
            continue
        call: Callable[[], Sequence[Iterable[Spec]]] = getattr(manager.hook, hook)
        answers = call()
        if not answers:  # pluggy leaves out what returns None, and what only wraps others
            raise TypeError(f"{hook} returns nothing, expected it to yield {expected.__name__} specs")
        for specs in answers:
            for spec in specs:
                if not isinstance(spec, expected):
                    raise TypeError(f"{hook} yields a {type(spec).__name__}, expected {expected.__name__}")
                entry = _entry(spec, source)
                if _names(entry) in seen:
                    raise ValueError(f"{hook} yields {spec.name!r} twice")
                seen.add(_names(entry))
                yield entry


def _entry(spec: object, source: Source) -> Provided:
    """A spec with its provider, held to the rules that every spec is held to."""
    for kind, expected in HOOKS.values():
        if isinstance(spec, expected):
            for option in options_of(spec.build):
                if option in RESERVED_OPTIONS.get(kind, ()):
                    raise ValueError(f"{kind} {spec.name!r}: option {option!r} belongs to the kit")
            return Provided(kind, spec, source.distribution, source.version, source.module)
    raise TypeError(f"a {type(spec).__name__} found, expected a spec: {', '.join(each.__name__ for _, each in HOOKS.values())}")


def _refuse_built_in_names(found: Iterable[Provided], ours: Iterable[Provided]) -> None:
    taken = {_names(own) for own in ours}
    for kind, name in map(_names, found):
        if (kind, name) in taken:
            raise _Broken(f"{kind} {name!r} is a built-in name; the plugin must choose another")


def _settle(ours: list[Provided], offers: list[Provided], failures: list[Failure], warnings: list[str]) -> Registry:
    by_name: dict[tuple[Kind, str], list[Provided]] = defaultdict(list)
    for entry in offers:
        by_name[_names(entry)].append(entry)
    settled: list[Provided] = []
    for (kind, name), entries in sorted(by_name.items()):
        if len(entries) == 1:
            settled += entries
            continue
        for entry in entries:
            others = ", ".join(_by(other) for other in entries if other is not entry)
            reason = f"{kind} {name!r} is also offered by {others}; the name is disabled until one is uninstalled"
            failures.append(Failure(entry.distribution, entry.version, reason))
    return Registry((*ours, *settled), tuple(failures), tuple(warnings))
