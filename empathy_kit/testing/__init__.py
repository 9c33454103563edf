"""The conformance kit: what the kit promises its users about every plugin, as checks that an author runs on their own.

In a test file, with SPEC what the plugin's hook yields:

```python
@pytest.mark.parametrize("check", loss_checks(SPEC), ids=str)
def test_promise(check):
    check()
```
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from empathy_kit.contracts import Head, Loss, Rationale, Sampler, Spec, Trunk, first_line
from empathy_kit.errors import KitError
from empathy_kit.options import options_of, resolve
from empathy_kit.plugins import Kind, Provided, Registry, one_line

KNOWN_FAILURES = "KNOWN_FAILURES"
"""In a plugin's module, the promises that it is known to break: ``{"loss mine": {"compiles-whole": "why"}}``."""


@dataclass(frozen=True)
class Check:
    """One promise about one plugin. Called, it returns where the promise holds and raises where it is broken.

    Where it cannot be judged, because another check's promise is broken, it returns: each fault has one name.
    """

    name: str
    promise: str
    run: Callable[[], None] = field(repr=False)
    known_failure: str | None = None  # why the plugin is known to break it

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> None:
        """Run the check.

        Raises:
            AssertionError: the promise is broken, or is declared as broken and holds. What the plugin itself raises goes through.
        """
        try:
            self.judge()
        except _KnownFailure:
            if "pytest" in sys.modules:
                sys.modules["pytest"].xfail(str(self.known_failure))

    def judge(self) -> str | None:
        """Run the check, and return why the promise could not be judged; None where it holds.

        Raises:
            AssertionError: as a call does.
        """
        from empathy_kit.testing.world import Unjudged, restored

        with restored():
            try:
                self.run()
            except Unjudged as reason:
                return str(reason)
            except Exception as error:  # whatever the plugin raises
                if self.known_failure is None:
                    raise
                raise _KnownFailure(self.known_failure) from error
        if self.known_failure is not None:
            raise AssertionError(f"{self.name} holds, but is declared as a known failure ({self.known_failure}); delete that")
        return None


class _KnownFailure(Exception):  # noqa: N818 - it was expected
    """A promise is broken as declared."""


def loss_checks(
    spec: Loss, *, options: Mapping[str, Any] | None = None, known_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """The promises of a loss.

    Args:
        spec: what the plugin's hook yields.
        options: the builder's options; its defaults without.
        known_failures: a check's name to the reason why it fails. Strict: a check that passes after all is an error.

    Raises:
        ValueError: a known failure of no check.
        KitError: an option that the builder does not have, or one without a default that is not given.
    """
    from empathy_kit.testing.losses import CHECKS, Build

    values = resolve(f"loss {spec.name}", spec.build, options or {})
    return _checks(CHECKS, Build(lambda task: spec.build(task, **values)), known_failures)


def head_checks(
    spec: Head, *, options: Mapping[str, Any] | None = None, known_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """The promises of a head, and of its own criterion where it has one. Arguments and errors as `loss_checks`."""
    from empathy_kit.testing.heads import CHECKS, Build

    values = resolve(f"head {spec.name}", spec.build, options or {})
    return _checks(CHECKS, Build(lambda task, width: spec.build(task, width, **values)), known_failures)


def rationale_checks(
    spec: Rationale, *, options: Mapping[str, Any] | None = None, known_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """The promises of a rationale injector. Arguments and errors as `loss_checks`."""
    from empathy_kit.testing.rationales import CHECKS, Build

    values = resolve(f"rationale {spec.name}", spec.build, options or {})
    return _checks(CHECKS, Build(lambda tasks, width: spec.build(tasks, width, **values), spec.gold), known_failures)


def sampler_checks(
    spec: Sampler, *, options: Mapping[str, Any] | None = None, known_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """The promises of a sampler. Arguments and errors as `loss_checks`."""
    from empathy_kit.testing.samplers import CHECKS, Build

    values = resolve(f"sampler {spec.name}", spec.build, options or {})
    return _checks(CHECKS, Build(lambda tasks, labels: spec.build(tasks, labels, **values)), known_failures)


def trunk_checks(
    spec: Trunk, *, options: Mapping[str, Any] | None = None, known_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """The promises of a trunk, with a small encoder in place of a pretrained one. Arguments and errors as `loss_checks`."""
    from empathy_kit.testing.trunks import CHECKS, Build

    values = resolve(f"trunk {spec.name}", spec.build, options or {})
    return _checks(CHECKS, Build(lambda encoder, injector: spec.build(encoder, injector, **values)), known_failures)


def checks(spec: Spec, **arguments: Any) -> list[Check]:
    """The promises of a spec, whatever its kind. Arguments and errors as `loss_checks`."""
    match spec:
        case Loss():
            return loss_checks(spec, **arguments)
        case Head():
            return head_checks(spec, **arguments)
        case Rationale():
            return rationale_checks(spec, **arguments)
        case Sampler():
            return sampler_checks(spec, **arguments)
        case Trunk():
            return trunk_checks(spec, **arguments)


@dataclass(frozen=True)
class Outcome:
    """How one check of one installed plugin ended."""

    plugin: Provided
    check: str
    promise: str
    failure: str | None = None  # the exception in a line; None where the promise is not broken
    unjudged: str | None = None  # why it could not be judged, or is known to be broken
    traceback: str | None = field(default=None, repr=False)


def examine(
    plugins: Iterable[Provided],
    options: Mapping[Kind, Mapping[str, Any]] | None = None,
    registry: Registry | None = None,
) -> Iterator[Outcome]:
    """Run every check of some plugins. Whatever they raise is an outcome, but for the user's own Ctrl-C.

    Args:
        plugins: what to check. What their modules declare as ``KNOWN_FAILURES`` is expected.
        options: a kind to the options of its builders; their defaults without.
        registry: where the plugins come from; with it, what their modules declare of no plugin of theirs is an outcome too.

    Raises:
        KitError: an option that a builder does not have, or a value that it does not take.
    """
    for plugin in plugins:
        given = (options or {}).get(plugin.kind, {})
        missing = [name for name, option in options_of(plugin.spec.build).items() if option.required and name not in given]
        if missing:
            how = ", ".join(f"-o {plugin.kind}.{name} VALUE" for name in missing)
            yield Outcome(plugin, "can-be-built", "The builder can be called.", unjudged=f"an option has no default; give {how}")
            continue
        try:
            found = checks(plugin.spec, options=given, known_failures=_declared(plugin, registry))
        except (KitError, ModuleNotFoundError):  # torch may not be installed
            raise
        except Exception as error:  # what it declares is not a mapping, or names no check or no plugin
            yield Outcome(plugin, "known-failures", f"{KNOWN_FAILURES} names checks and reasons.", one_line(error))
            continue
        yield from (_outcome(plugin, check) for check in found)


def _outcome(plugin: Provided, check: Check) -> Outcome:
    try:
        return Outcome(plugin, check.name, check.promise, unjudged=check.judge())
    except _KnownFailure as known:
        return Outcome(plugin, check.name, check.promise, unjudged=f"known failure: {known}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # other people's code
        line = f"{type(error).__name__}: {one_line(error)}"
        return Outcome(plugin, check.name, check.promise, line, traceback="".join(traceback.format_exception(error)))


def _declared(plugin: Provided, registry: Registry | None) -> dict[str, str]:
    declared = getattr(sys.modules.get(plugin.module or ""), KNOWN_FAILURES, {})
    found = dict(declared.get(_key(plugin), {}))
    if registry is not None:
        there_are = [_key(other) for other in registry.provided if other.module == plugin.module]
        for key in declared:
            if key not in there_are:
                raise ValueError(f"known failures of {key!r}: no such plugin; there are {', '.join(there_are)}")
    return found


def _key(plugin: Provided) -> str:
    return f"{plugin.kind} {plugin.spec.name}"


def _checks(functions: Iterable[Callable[[Any], None]], build: Any, known_failures: Mapping[str, str] | None) -> list[Check]:
    known = dict(known_failures or {})
    found = []
    for function in functions:
        name = function.__name__.replace("_", "-")
        found.append(Check(name, first_line(function), lambda function=function: function(build), known.pop(name, None)))  # type: ignore[misc]
    if known:
        raise ValueError(f"known failure {next(iter(known))!r}: no such check; there are {', '.join(map(str, found))}")
    return found
