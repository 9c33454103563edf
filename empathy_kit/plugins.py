"""Finds plugins, isolates the broken, settles names -> Registry. No torch, no click, no global manager."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

import pluggy

from empathy_kit import __version__, hookspecs
from empathy_kit.contracts import Head, Loss, Rationale, Sampler, Spec, Trunk
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
OURS = "empathy-kit"
# By name, as an entry point has it: the builders come after this module in the import law.
BUILTIN = tuple(f"empathy_kit.builtin.{room}" for room in ("losses", "rationales", "heads", "samplers", "trunks"))
ONLY = "EMPATHY_KIT_PLUGINS"
"""Environment variable: the distributions to load, separated by commas; empty loads none. Unset loads all."""

RESERVED_OPTIONS = {"rationale": {"weight"}}
"""Option names that the kit itself answers to, which no builder of that kind may have."""


@dataclass(frozen=True)
class Provided:
    """A spec and who provides it."""

    kind: Kind
    spec: Spec
    distribution: str
    version: str


@dataclass(frozen=True)
class Failure:
    """A plugin that was skipped whole, or a name that is disabled, and why."""

    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}: {self.reason}"


@dataclass(frozen=True)
class Registry:
    """What can be used by name, and what could not be loaded."""

    provided: tuple[Provided, ...]
    failures: tuple[Failure, ...] = ()

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
            raise KitError(f"plugin {name}: unknown; there are {there_are}{self._failed()}")
        return found

    def _failed(self) -> str:
        return "; not loaded: " + "; ".join(map(str, self.failures)) if self.failures else ""

    def get(self, kind: Kind, name: str) -> Provided:
        """The provider of a name.

        Raises:
            KitError: there is none; the message lists what there is and what did not load.
        """
        for entry in self.of(kind):
            if entry.spec.name == name:
                return entry
        there_are = ", ".join(entry.spec.name for entry in self.of(kind))
        raise KitError(f"--{kind} {name}: unknown; there are {there_are}{self._failed()}")


def load_registry() -> Registry:
    """The kit's own plugins, and those of every installed distribution that the environment does not exclude."""
    ours = [entry for name in BUILTIN for entry in _collect(importlib.import_module(name), OURS, __version__)]
    offers: list[Provided] = []
    failures = list(_not_installed())
    for point in _entry_points():
        distribution, version = _provider(point)
        # What a plugin prints while it is imported would stand in the midst of our JSON.
        with _ctrl_c() as pressed, redirect_stdout(sys.stderr):
            try:
                _assert_made_for_this_kit(point)
                found = list(_collect(point.load(), distribution, version))
            except BaseException as error:  # other people's code: also SystemExit at import
                if pressed:
                    raise KitError(
                        f"interrupted while {distribution} {version} was loading; {ONLY} chooses what to load, empty for nothing"
                    ) from None
                failures.append(Failure(distribution, version, f"{type(error).__name__}: {one_line(error)}"))
                continue
        stolen = [entry for entry in found if _names(entry) in {_names(own) for own in ours}]
        if stolen:
            kind, name = _names(stolen[0])
            failures.append(Failure(distribution, version, f"{kind} {name!r} is a built-in name; the plugin must choose another"))
        else:
            offers += found
    return _settle(ours, offers, failures)


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


def _assert_made_for_this_kit(point: EntryPoint) -> None:
    needs = (point.dist.requires if point.dist else None) or []
    if not any(OURS in need for need in needs):
        return
    from packaging.requirements import Requirement

    for need in map(Requirement, needs):
        if same_distribution(need.name, OURS) and not need.specifier.contains(__version__, prereleases=True):
            raise RuntimeError(f"made for {OURS} {need.specifier}, and this is {OURS} {__version__}")


def _entry_points() -> list[EntryPoint]:
    points = sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: (_provider(point), point.name))
    only = os.environ.get(ONLY)
    if only is None:
        return points
    wanted = {_normal(name) for name in only.split(",")}
    return [point for point in points if _normal(_provider(point)[0]) in wanted]


def _not_installed() -> Iterator[Failure]:
    installed = {_normal(_provider(point)[0]) for point in entry_points(group=hookspecs.PROJECT)}
    for name in os.environ.get(ONLY, "").split(","):
        if name.strip() and _normal(name) not in installed:
            yield Failure(name.strip(), "-", f"{ONLY} asks for it, but no installed distribution of that name offers plugins")


def _provider(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return point.value, "unknown"
    metadata = point.dist.metadata
    # With defaults: an interrupted installation leaves a folder without METADATA.
    return metadata.get_all("Name", [point.value])[0], metadata.get_all("Version", ["unknown"])[0]


def same_distribution(one: str, other: str) -> bool:
    """Whether two names are one distribution's: case, and `-`, `_` and `.`, do not count."""
    return _normal(one) == _normal(other)


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def one_line(error: BaseException) -> str:
    """An exception's message without line ends, whatever its class does."""
    try:
        return " ".join(str(error).split()) or "no message"
    except Exception:  # the plugin's own exception class
        return "no readable message"


def _names(entry: Provided) -> tuple[Kind, str]:
    return entry.kind, entry.spec.name


def _collect(plugin: object, distribution: str, version: str) -> Iterator[Provided]:
    """All specs of one plugin. A manager of its own, so that nothing it does to one reaches another plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()  # a misspelt hook is silent until asked
    if not manager.get_hookcallers(plugin):
        raise TypeError(f"no hook found, expected {', '.join(HOOKS)} marked with @empathy_kit.hookimpl")
    seen: set[tuple[Kind, str]] = set()
    for hook, (kind, expected) in HOOKS.items():
        call: Callable[[], Iterable[Iterable[Spec]]] = getattr(manager.hook, hook)
        for specs in call():
            for spec in specs:
                if not isinstance(spec, expected):
                    raise TypeError(f"{hook} yields a {type(spec).__name__}, expected {expected.__name__}")
                entry = Provided(kind, spec, distribution, version)
                if _names(entry) in seen:
                    raise ValueError(f"{hook} yields {spec.name!r} twice")
                for option in options_of(spec.build):
                    if option in RESERVED_OPTIONS.get(kind, ()):
                        raise ValueError(f"{kind} {spec.name!r}: option {option!r} belongs to the kit")
                seen.add(_names(entry))
                yield entry


def _settle(ours: list[Provided], offers: list[Provided], failures: list[Failure]) -> Registry:
    by_name: dict[tuple[Kind, str], list[Provided]] = defaultdict(list)
    for entry in offers:
        by_name[_names(entry)].append(entry)
    settled: list[Provided] = []
    for (kind, name), entries in sorted(by_name.items()):
        if len(entries) == 1:
            settled += entries
            continue
        for entry in entries:
            others = ", ".join(f"{other.distribution} {other.version}" for other in entries if other is not entry)
            reason = f"{kind} {name!r} is also offered by {others}; the name is disabled until one is uninstalled"
            failures.append(Failure(entry.distribution, entry.version, reason))
    return Registry((*ours, *settled), tuple(failures))
