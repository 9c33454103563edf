"""The plugins of a run and their options, checked before anything heavy is loaded."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from empathy_kit.config import RunConfig
from empathy_kit.contracts import Rationale
from empathy_kit.data.schema import Schema
from empathy_kit.errors import KitError, NotFinite
from empathy_kit.options import resolve
from empathy_kit.plugins import HANDED_OVER, KINDS, OURS, Kind, Provided, Registry, fingerprint, one_line, same_distribution

PER_TASK: tuple[Kind, ...] = ("loss", "head")
"""Kinds that are built once per task, with options that may differ between tasks."""


LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
"""The libraries, other than the kit, that a run's numbers depend on."""


@dataclass(frozen=True)
class Plugins:
    """A run's plugin of each kind, and all their options including defaults."""

    chosen: Mapping[Kind, Provided]
    options: dict[str, Any]  # {"loss": {"ER": {...}, ...}, "head": {"ER": {...}, ...}, "rationale": {...}, ...}
    rationale_weight: float  # how much the span loss counts; the kit's own option of every injector

    @property
    def rationale(self) -> Rationale:
        """The injector's spec, which says where annotated spans may be seen."""
        return cast(Rationale, self.chosen["rationale"].spec)

    @property
    def oracle(self) -> bool:
        """Whether annotated spans are seen at inference."""
        return self.rationale.gold == "always"

    def build(self, kind: Kind, *arguments: Any, task: str | None = None) -> Any:
        """Call the builder of a kind; an unexpected exception becomes one line that names the provider.

        Raises:
            KitError: the builder's own, or one that reports what else it raised.
        """
        entry = self.chosen[kind]
        options = self.options[kind] if task is None else self.options[kind][task]
        try:
            return entry.spec.build(*arguments, **options)
        except KitError:
            raise
        except Exception as error:  # other people's code
            raise KitError(
                f"{described(entry)} cannot be built: {type(error).__name__}: {one_line(error)}; "
                f"`empathy-kit plugins check {entry.spec.name}` shows where"
            ) from error

    def wrong(self, kind: Kind, problem: str) -> KitError:
        """The error for a wrong return value of a plugin."""
        return KitError(f"{described(self.chosen[kind])}: {problem}")

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add to an exception the names of the third-party plugins in use, unless its message names them already."""
        try:
            yield
        except KitError as error:
            names = self._others(str(error))
            # One of another kind, such as of a process that is lost, is no plugin's, and keeps its kind.
            if not names or type(error) not in (KitError, NotFinite):
                raise
            raise KitError(f"{error} ({names})") from None
        except Exception as error:
            if names := self._others(""):
                error.add_note(names)
            raise

    def _others(self, text: str) -> str:
        used = [entry for entry in self.chosen.values() if entry.distribution != OURS and entry.distribution not in text]
        return ", ".join(f"{entry.kind} {entry.spec.name} is from {entry.distribution} {entry.version}" for entry in used)


def provenance(entry: Provided) -> dict[str, str]:
    """Where a plugin comes from, as in a record: for third-party plugins with the hash of their files."""
    found = {"name": entry.spec.name, "distribution": entry.distribution, "version": entry.version}
    code = fingerprint(entry)
    return found if code is None else {**found, "sha256": code}


def described(entry: Provided) -> str:
    """``loss poly1 of empathy-kit-poly1 0.1.0``."""
    return f"{entry.kind} {entry.spec.name} of {entry.distribution} {entry.version}"


def choose_plugins(config: RunConfig, registry: Registry) -> Plugins:
    """The plugins that a configuration names, with all options checked.

    Raises:
        KitError: an unknown name, task, route, option or value.
    """
    chosen = {kind: registry.get(kind, getattr(config, kind)) for kind in KINDS}
    tasks = config.schema.select(config.tasks).names
    given = _route(config.options, config.schema)
    own = given.setdefault(("rationale", None), {})
    weight = resolve("rationale", _rationale_weight, {"weight": own.pop("weight")} if "weight" in own else {})["weight"]
    if weight < 0:
        raise KitError(f"rationale: option 'weight' is {weight}; expected 0 or more")
    options: dict[str, Any] = {}
    for kind, entry in chosen.items():
        owner, general = f"{kind} {entry.spec.name}", given.get((kind, None), {})
        if kind in PER_TASK:
            options[kind] = {name: resolve(owner, entry.spec.build, {**general, **given.get((kind, name), {})}) for name in tasks}
        else:
            options[kind] = resolve(owner, entry.spec.build, general)
    return Plugins(chosen, options, weight)


def choose_with(warnings: Iterable[str], config: RunConfig, registry: Registry) -> Plugins:
    """The plugins of a recorded run; where they do not fit its options, the error says what has changed since.

    A record has every option, given or not. So a version that renames one fits no record of an earlier version, and only the
    warning of the other version tells the user what to do.

    Raises:
        KitError: as `choose_plugins`, with the warnings of `compare_providers` at its end.
    """
    try:
        return choose_plugins(config, registry)
    except KitError as error:
        raise KitError("; ".join([str(error), *warnings])) from None


def all_options(plugins: Plugins) -> dict[str, Any]:
    """Every option as a route and its value: ``loss.ER.gamma``, ``trunk.hidden``, ``rationale.weight``."""
    routes: dict[str, Any] = {}
    for kind, values in plugins.options.items():
        if kind in PER_TASK:
            routes |= {f"{kind}.{task}.{name}": value for task, own in values.items() for name, value in own.items()}
        else:
            routes |= {f"{kind}.{name}": value for name, value in values.items()}
    return routes | {"rationale.weight": plugins.rationale_weight}


def _rationale_weight(*, weight: float = 1.0) -> float:
    """The kit's own option of every injector: how much the span loss counts."""
    return weight


def _route(given: Mapping[str, Any], schema: Schema) -> dict[tuple[str, str | None], dict[str, Any]]:
    """``loss.gamma`` and ``loss.ER.gamma`` -> the kind, task and option."""
    routed: dict[tuple[str, str | None], dict[str, Any]] = {}
    for route, value in given.items():
        match route.split("."):
            case [kind, name] if kind in KINDS:
                routed.setdefault((kind, None), {})[name] = value
            case [kind, task, name] if kind in PER_TASK and task in schema.names:
                routed.setdefault((kind, task), {})[name] = value
            case _:
                some = schema.names[0]
                raise KitError(
                    f"-o {route}: unknown, expected KIND.OPTION with a kind of {', '.join(KINDS)}, or loss.{some}.OPTION and "
                    f"head.{some}.OPTION for one task of {', '.join(schema.names)}"
                )
    return routed


def compare_providers(recorded: Mapping[str, Mapping[str, str]], config: RunConfig, registry: Registry) -> tuple[str, ...]:
    """Warnings for plugins that differ from those of a recorded run.

    Args:
        recorded: a kind to the plugin's name, distribution, version and hash, as in run.json.
        config: what is to be run; a plugin that it replaces is not compared.
        registry: what is installed.

    Raises:
        KitError: a plugin that is missing, or comes from another distribution.
    """
    warnings = []
    for kind in KINDS:
        then = recorded.get(kind)
        if then is None or then["name"] != getattr(config, kind):
            continue
        was = f"{kind} {then['name']}: the recorded run had it from {then['distribution']} {then['version']}"
        now = next((entry for entry in registry.of(kind) if entry.spec.name == then["name"]), None)
        if now is None:
            failures = [failure for failure in registry.failures if same_distribution(failure.distribution, then["distribution"])]
            why = "; ".join(f"not loaded: {failure}" for failure in failures) or _advice(then["distribution"])
            raise KitError(f"{was}, which is missing; {why}")
        if not same_distribution(now.distribution, then["distribution"]):
            raise KitError(f"{was}, but now {now.distribution} {now.version} offers that name; expected {then['distribution']}")
        if now.version != then["version"]:
            warnings.append(f"{was}; now it is {now.version}, whose numbers may differ")
        elif then.get("sha256", code := fingerprint(now)) != code:
            warnings.append(f"{was}; its files have changed since, and its numbers may differ")
    return tuple(warnings)


def _advice(distribution: str) -> str:
    """How to bring a recorded plugin back."""
    if distribution == HANDED_OVER:
        return "its author's program handed it over; use the run from there"
    return "give its file as --plugin, or in Python as load(..., plugins=[...])" if distribution.endswith(".py") else "install it"


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that compute, as in a record."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def compare_versions(recorded: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings for libraries whose version differs from that of a recorded run."""
    return tuple(
        f"the recorded run had {name} {recorded[name]}; now it is {now[name]}, whose numbers may differ"
        for name in LIBRARIES
        if name in recorded and recorded[name] != now[name]
    )
