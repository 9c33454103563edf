"""The plugins of a run and their options, checked before anything heavy is loaded."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from empathy_kit.config import RunConfig
from empathy_kit.contracts import Rationale
from empathy_kit.data.schema import Schema
from empathy_kit.errors import KitError
from empathy_kit.options import resolve
from empathy_kit.plugins import KINDS, OURS, Kind, Provided, Registry, fingerprint, one_line, same_distribution

PER_TASK: tuple[Kind, ...] = ("loss", "head")
"""Kinds that are built once for each task, and may have options of their own for each."""


LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
"""What computes a run's numbers, next to the kit."""


@dataclass(frozen=True)
class Plugins:
    """A run's plugin of each kind, and their options with the defaults written out."""

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
        """Call the builder of a kind. What it raises, but for a fault of the user's, becomes a line that names its provider.

        Raises:
            KitError: the builder's own, or one that says what else it raised.
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
        """A fault of what a kind's builder returned."""
        return KitError(f"{described(self.chosen[kind])}: {problem}")

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Name the third parties whose code took part in whatever goes wrong, where the message does not name them yet."""
        try:
            yield
        except KitError as error:
            names = self._others(str(error))
            if not names:
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
    """Where a plugin comes from, as a record has it: also the hash of its files, but for the kit's own."""
    found = {"name": entry.spec.name, "distribution": entry.distribution, "version": entry.version}
    code = fingerprint(entry)
    return found if code is None else {**found, "sha256": code}


def described(entry: Provided) -> str:
    """``loss poly1 of empathy-kit-poly1 0.1.0``."""
    return f"{entry.kind} {entry.spec.name} of {entry.distribution} {entry.version}"


def choose_plugins(config: RunConfig, registry: Registry) -> Plugins:
    """The plugins that a configuration names, with every option checked.

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
    """``loss.gamma`` and ``loss.ER.gamma`` -> whose option it is."""
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
    """What of a recorded run's plugins is installed in another version now.

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
            expected = "expected its file as --plugin" if then["distribution"].endswith(".py") else "expected it to be installed"
            why = "; ".join(f"not loaded: {failure}" for failure in failures) or expected
            raise KitError(f"{was}, which is missing; {why}")
        if not same_distribution(now.distribution, then["distribution"]):
            raise KitError(f"{was}, but now {now.distribution} {now.version} offers that name; expected {then['distribution']}")
        if now.version != then["version"]:
            warnings.append(f"{was}; now it is {now.version}, whose numbers may differ")
        elif then.get("sha256", code := fingerprint(now)) != code:
            warnings.append(f"{was}; its files have changed since, and its numbers may differ")
    return tuple(warnings)


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that compute, as a record has them."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def compare_versions(recorded: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """What of a recorded run's libraries has another version now."""
    return tuple(
        f"the recorded run had {name} {recorded[name]}; now it is {now[name]}, whose numbers may differ"
        for name in LIBRARIES
        if name in recorded and recorded[name] != now[name]
    )
