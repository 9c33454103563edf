"""A builder's signature is its schema: keyword-only parameters -> typed options; text -> value, or a sentence saying why not."""

from __future__ import annotations

import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from empathy_kit.contracts import written
from empathy_kit.errors import KitError


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter of a builder."""

    name: str
    type: Any
    default: Any  # inspect.Parameter.empty where the option must be given

    @property
    def required(self) -> bool:
        """Whether the builder cannot be called without it."""
        return self.default is inspect.Parameter.empty

    def describe(self) -> str:
        """``gamma: float = 2.0``, as `plugins list` shows it; the default as `-o` takes it."""
        text = f"{self.name}: {type_name(self.type)}"
        return text if self.required else f"{text} = {as_text(self.default)}"


def type_name(expected: Any) -> str:
    """A type as a person writes it."""
    if get_origin(expected) in (Union, types.UnionType):
        return " | ".join(type_name(part) for part in get_args(expected))
    if get_origin(expected) is Literal:
        return "|".join(str(value) for value in get_args(expected))
    if expected is type(None):
        return "none"
    return expected.__name__ if isinstance(expected, type) and not get_args(expected) else str(expected)


def as_text(value: Any) -> str:
    """A value as the command line takes it: ``true``, ``none``, ``1.0,2.0``."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(as_text, value)) or "''"
    return str(value) if value != "" else "''"


def options_of(build: Callable[..., Any]) -> dict[str, Option]:
    """The options of a builder, in its own order.

    Raises:
        TypeError: a keyword-only parameter has no annotation, one that cannot be evaluated or set from text, or a default
            that is not of its type; or another parameter looks like an option, and could never be set.
    """
    options = {}
    for parameter in inspect.signature(build).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            annotation = _annotation(build, parameter)
            options[parameter.name] = Option(parameter.name, annotation, _default(parameter, annotation))
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise TypeError(f"parameter **{parameter.name} names no option; name each one, with its type, after `*,`")
        elif parameter.default is not inspect.Parameter.empty:
            raise TypeError(
                f"parameter {parameter.name!r} has a default, but is no option; put `*,` before it, or drop the default"
            )
    return options


def _default(parameter: inspect.Parameter, annotation: Any) -> Any:
    # Defaults are written into run.json: one that JSON does not have (such as inf) would fail there, after the training.
    if parameter.default is inspect.Parameter.empty:
        return parameter.default
    try:
        value = parse(annotation, parameter.default)
    except ValueError as error:
        raise TypeError(f"option {parameter.name!r}: its default is {parameter.default!r}; {error}") from None
    # 1 for 1.0, and a list for a tuple, are the same. What is written into run.json is read from there again.
    given = tuple(parameter.default) if isinstance(parameter.default, list) else parameter.default
    if value != given or isinstance(value, bool | str) != isinstance(given, bool | str):
        raise TypeError(f"option {parameter.name!r}: its default is {parameter.default!r}, which is read as {value!r}; use that")
    return value


def _annotation(build: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        # Only keyword-only annotations are evaluated: the positional ones may name types imported under TYPE_CHECKING.
        module = sys.modules.get(getattr(written(build), "__module__", ""))
        try:
            annotation = eval(annotation, dict(vars(module)) if module else {})  # noqa: S307 - an installed module's own text
        except Exception as error:  # a plugin author's annotation: anything can go wrong in it
            raise TypeError(f"option {parameter.name!r}: cannot read its type {annotation!r}: {error}") from error
    if annotation is inspect.Parameter.empty:
        raise TypeError(f"option {parameter.name!r} has no type; expected an annotation such as `: float = 2.0`")
    if not _supported(annotation):
        raise TypeError(
            f"option {parameter.name!r}: type {type_name(annotation)} cannot be set from text; "
            "expected float, int, bool, str, Literal[...], tuple[float, ...], or one of these or None"
        )
    return annotation


def _supported(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return all(_supported(part) for part in get_args(annotation))
    if origin is tuple:
        return len(get_args(annotation)) == 2 and get_args(annotation)[1] is Ellipsis and _supported(get_args(annotation)[0])
    if origin is Literal:
        return all(isinstance(value, str | int) for value in get_args(annotation))
    return annotation in (float, int, bool, str, type(None))


def parse(expected: Any, value: Any) -> Any:
    """A value of the expected type, from command-line text or from a JSON or TOML value.

    Raises:
        ValueError: with a phrase that names what was expected.
    """
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return _parse_union(expected, value)
    if origin is Literal:
        for allowed in get_args(expected):
            named = isinstance(value, str) and value in (str(allowed), as_text(allowed))
            if named or (value == allowed and isinstance(value, bool) == isinstance(allowed, bool)):
                return allowed
        raise ValueError(f"expected one of {', '.join(as_text(allowed) for allowed in get_args(expected))}")
    if origin is tuple:
        parts = (value.split(",") if value else []) if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ValueError("expected values separated by commas")
        return tuple(parse(get_args(expected)[0], part.strip() if isinstance(part, str) else part) for part in parts)
    return _parse_plain(expected, value)


def _parse_union(expected: Any, value: Any) -> Any:
    parts = get_args(expected)
    for part in parts:  # before "none": it may be one of a Literal's
        if get_origin(part) is Literal:
            with suppress(ValueError):
                return parse(part, value)
    if type(None) in parts and (value is None or value in ("none", "None")):
        return None
    for part in parts:
        if part is not type(None):
            try:
                return parse(part, value)
            except ValueError:
                continue
    raise ValueError(f"expected {type_name(expected)}")


def _parse_plain(expected: Any, value: Any) -> Any:
    if expected is bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "True", "false", "False"):
            return value in ("true", "True")
        raise ValueError("expected true or false")
    if expected is str and isinstance(value, str):
        return value
    if expected in (int, float) and isinstance(value, str | int | float) and not isinstance(value, bool):
        # int() and float() also read "1_000" and the digits of every script.
        plain = not isinstance(value, str) or (value.isascii() and "_" not in value)
        try:
            number: float = expected(value)
            if plain and math.isfinite(number) and (isinstance(value, str) or number == value):
                return number
        except (ValueError, OverflowError):  # isfinite's too: a whole number may be too large for any float
            pass
        raise ValueError("expected a whole number" if expected is int else "expected a finite number")
    raise ValueError(f"expected {type_name(expected)}")


def resolve(owner: str, build: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a builder's options, defaults written out, the given ones checked.

    Args:
        owner: what the options belong to, for messages: ``loss focal``.
        build: the builder.
        given: option name to text or value.

    Raises:
        KitError: an unknown option, a value of the wrong type, or a required option that is missing.
    """
    options = options_of(build)
    for name in given:
        if name not in options:
            there_are = ", ".join(option.describe() for option in options.values()) or "none"
            raise KitError(f"{owner}: unknown option {name!r}; its options: {there_are}")
    values: dict[str, Any] = {}
    for name, option in options.items():
        if name in given:
            try:
                values[name] = parse(option.type, given[name])
            except ValueError as error:
                raise KitError(f"{owner}: option {name!r} is {given[name]!r}; {error}") from None
        elif option.required:
            raise KitError(f"{owner}: option {name!r} is missing; expected {option.describe()}")
        else:
            values[name] = option.default
    return values


def check_routes(routes: Iterable[str]) -> None:
    """Whether names of options are names alone.

    Raises:
        KitError: one holds its value too.
    """
    for route in routes:
        name, equals, value = route.partition("=")
        if equals:
            raise KitError(f"-o {route}: -o takes a name and a value, expected -o {name} {value or 'VALUE'}")


def in_range(owner: str, option: str, value: float, low: float, high: float) -> None:
    """Check a builder's option against its bounds.

    Raises:
        KitError: the value is outside.
    """
    if not low <= value <= high:
        raise KitError(f"{owner}: option {option!r} is {value}; expected {low} to {high}")
