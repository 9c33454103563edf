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

from empathy_kit.contracts import Head, Loss, Rationale, Spec, first_line
from empathy_kit.errors import KitError
from empathy_kit.options import resolve
from empathy_kit.plugins import Provided, one_line


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
        from empathy_kit.core.conformance.world import Unjudged, restored

        with restored():
            try:
                self.run()
            except Unjudged:
                return
            except Exception:  # whatever the plugin raises
                if self.known_failure is None:
                    raise
                if "pytest" in sys.modules:
                    sys.modules["pytest"].xfail(self.known_failure)
                return
        if self.known_failure is not None:
            raise AssertionError(f"{self.name} holds, but is declared as a known failure ({self.known_failure}); delete that")


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
        KitError: an option that the builder does not have.
    """
    from empathy_kit.core.conformance.losses import CHECKS

    values = resolve(f"loss {spec.name}", spec.build, options or {})
    return _checks(CHECKS, lambda task: spec.build(task, **values), known_failures)


def head_checks(
    spec: Head, *, options: Mapping[str, Any] | None = None, known_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """The promises of a head, and of its own criterion where it has one. Arguments and errors as `loss_checks`."""
    from empathy_kit.core.conformance.heads import CHECKS

    values = resolve(f"head {spec.name}", spec.build, options or {})
    return _checks(CHECKS, lambda task, width: spec.build(task, width, **values), known_failures)


def rationale_checks(
    spec: Rationale, *, options: Mapping[str, Any] | None = None, known_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """The promises of a rationale injector. Arguments and errors as `loss_checks`."""
    from empathy_kit.core.conformance.rationales import CHECKS, Build

    values = resolve(f"rationale {spec.name}", spec.build, options or {})
    return _checks(CHECKS, Build(lambda tasks, width: spec.build(tasks, width, **values), spec.gold), known_failures)


def checks(spec: Spec, **arguments: Any) -> list[Check]:
    """The promises of a spec, whatever its kind."""
    if isinstance(spec, Loss):
        return loss_checks(spec, **arguments)
    return head_checks(spec, **arguments) if isinstance(spec, Head) else rationale_checks(spec, **arguments)


@dataclass(frozen=True)
class Outcome:
    """How one check of one installed plugin ended."""

    plugin: Provided
    check: str
    promise: str
    failure: str | None  # the exception in a line; None where the promise holds
    traceback: str | None = field(default=None, repr=False)


def examine(plugins: Iterable[Provided]) -> Iterator[Outcome]:
    """Run every check of some installed plugins. Whatever they raise is an outcome, but for the user's own Ctrl-C."""
    for plugin in plugins:
        try:
            found = checks(plugin.spec)
        except KitError as error:  # an option that has no default
            yield Outcome(plugin, "can-be-built-without-options", "Every option has a default.", str(error))
            continue
        for check in found:
            try:
                check()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # other people's code
                line = f"{type(error).__name__}: {one_line(error)}"
                yield Outcome(plugin, check.name, check.promise, line, "".join(traceback.format_exception(error)))
            else:
                yield Outcome(plugin, check.name, check.promise, None)


def _checks(functions: Iterable[Callable[[Any], None]], build: Any, known_failures: Mapping[str, str] | None) -> list[Check]:
    known = dict(known_failures or {})
    found = []
    for function in functions:
        name = function.__name__.replace("_", "-")
        found.append(Check(name, first_line(function), lambda function=function: function(build), known.pop(name, None)))  # type: ignore[misc]
    if known:
        raise ValueError(f"known failure {next(iter(known))!r}: no such check; there are {', '.join(map(str, found))}")
    return found
