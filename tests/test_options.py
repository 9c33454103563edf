"""A builder's keyword-only parameters are its options: typed, checked, defaults written out."""

from __future__ import annotations

import enum
import functools
import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empathy_kit.errors import KitError
from empathy_kit.options import options_of, parse, resolve

if TYPE_CHECKING:
    from nowhere import Tensor  # as a plugin names torch's: this module cannot be evaluated as a whole


class Colour(enum.Enum):
    RED = 1


def everything(
    task: Tensor,
    *,
    gamma: float = 2,
    steps: int = 3,
    smooth: bool = False,
    note: str = "plain",
    mode: Literal["sum", "mean"] = "mean",
    depth: Literal[1, 2] = 1,
    weights: tuple[float, ...] = (1.0, 2.0),
    cap: float | None = None,
) -> Tensor:
    """Has an option of every type."""
    raise NotImplementedError


def test_every_option_shows_its_type_and_default() -> None:
    assert [option.describe() for option in options_of(everything).values()] == [
        "gamma: float = 2.0",
        "steps: int = 3",
        "smooth: bool = false",
        "note: str = plain",
        "mode: sum|mean = mean",
        "depth: 1|2 = 1",
        "weights: tuple[float, ...] = 1.0,2.0",
        "cap: float | none = none",
    ]


def test_every_default_is_shown_as_the_command_line_takes_it() -> None:
    shown = {name: option.describe().rpartition(" = ")[2] for name, option in options_of(everything).items()}
    assert resolve("loss x", everything, shown) == resolve("loss x", everything, {})


def test_nothing_given_gives_every_default_in_its_type() -> None:
    values = resolve("loss x", everything, {})
    assert values == {
        "gamma": 2.0,
        "steps": 3,
        "smooth": False,
        "note": "plain",
        "mode": "mean",
        "depth": 1,
        "weights": (1.0, 2.0),
        "cap": None,
    }
    assert type(values["gamma"]) is float  # run.json says what the builder gets


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("gamma", "1.5", 1.5),
        ("gamma", "-1e-3", -0.001),
        ("gamma", "3", 3.0),
        ("steps", "-7", -7),
        ("smooth", "true", True),
        ("smooth", "false", False),
        ("smooth", "True", True),
        ("smooth", "False", False),
        ("note", "none", "none"),
        ("note", "", ""),
        ("note", "ä\u200b🙂", "ä\u200b🙂"),
        ("mode", "sum", "sum"),
        ("depth", "2", 2),
        ("weights", "1, 2,3.5", (1.0, 2.0, 3.5)),
        ("weights", "4", (4.0,)),
        ("weights", "", ()),
        ("cap", "none", None),
        ("cap", "None", None),
        ("cap", "0.5", 0.5),
    ],
)
def test_text_becomes_a_value_of_the_type(name: str, text: str, value: object) -> None:
    found = resolve("loss x", everything, {name: text})[name]
    assert (found, type(found)) == (value, type(value))


def test_values_of_json_and_toml_are_read_as_text_is() -> None:
    content = json.loads('{"gamma": 1, "steps": 4.0, "smooth": true, "depth": 2, "weights": [1, 2.5], "cap": null}')
    values = resolve("loss x", everything, content)
    assert [values[name] for name in content] == [1.0, 4, True, 2, (1.0, 2.5), None]
    assert [type(values[name]) for name in ("gamma", "steps")] == [float, int]


HUGE = "9" * 400  # beyond every float


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("gamma", "two", "expected a finite number"),
        ("gamma", "nan", "expected a finite number"),
        ("gamma", "1_0e-3", "expected a finite number"),
        ("gamma", "\u0661.5", "expected a finite number"),
        ("gamma", "-inf", "expected a finite number"),
        ("gamma", math.inf, "expected a finite number"),
        ("gamma", HUGE, "expected a finite number"),
        ("gamma", int(HUGE), "expected a finite number"),
        ("gamma", True, "expected float"),
        ("gamma", None, "expected float"),
        ("gamma", [2.0], "expected float"),
        ("steps", "2.5", "expected a whole number"),
        ("steps", "1_000", "expected a whole number"),
        ("steps", "\u0661", "expected a whole number"),
        ("steps", 2.5, "expected a whole number"),
        ("steps", HUGE, "expected a whole number"),
        ("steps", int(HUGE), "expected a whole number"),
        ("steps", "", "expected a whole number"),
        ("smooth", "yes", "expected true or false"),
        ("smooth", 1, "expected true or false"),
        ("note", 5, "expected str"),
        ("mode", "max", "expected one of sum, mean"),
        ("depth", True, "expected one of 1, 2"),
        ("weights", "1,,2", "expected a finite number"),
        ("weights", 3, "expected values separated by commas"),
        ("cap", "some", "expected float | none"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_what_was_expected(name: str, given: Any, reason: str) -> None:
    with pytest.raises(KitError) as error:
        resolve("loss focal", everything, {name: given})
    assert str(error.value) == f"loss focal: option {name!r} is {given!r}; {reason}"


def test_an_unknown_option_lists_the_options_that_there_are() -> None:
    def focal(task: object, *, gamma: float = 2.0, mode: Literal["a", "b"] = "a") -> None: ...
    def ce(task: object) -> None: ...

    with pytest.raises(
        KitError, match=re.escape("loss focal: unknown option 'gama'; its options: gamma: float = 2.0, mode: a|b")
    ):
        resolve("loss focal", focal, {"gama": "1"})
    with pytest.raises(KitError) as error:
        resolve("loss ce", ce, {"task": "1"})  # positional: what the kit hands over is no option
    assert str(error.value) == "loss ce: unknown option 'task'; its options: none"


def test_a_required_option_that_is_missing_is_asked_for() -> None:
    def build(task: object, *, power: int) -> None: ...

    with pytest.raises(KitError) as error:
        resolve("head deep", build, {})
    assert str(error.value) == "head deep: option 'power' is missing; expected power: int"
    assert resolve("head deep", build, {"power": "4"}) == {"power": 4}


def test_annotations_hidden_under_type_checking_do_no_harm_to_positional_parameters() -> None:
    assert options_of(everything)["gamma"].type is float


class Learnt:
    """A class is a builder too, as an nn.Module would be."""

    def __init__(self, task: Tensor, *, gamma: float = 1.0) -> None:
        self.gamma = gamma


@pytest.mark.parametrize(
    "build",
    [Learnt, functools.partial(everything, gamma=1.0), functools.partial(functools.partial(everything), mode="sum", gamma=1.0)],
    ids=["class", "partial", "partial of partial"],
)
def test_classes_and_partials_are_builders(build: Callable[..., Any]) -> None:
    assert resolve("loss x", build, {})["gamma"] == 1.0
    assert resolve("loss x", build, {"gamma": "5"})["gamma"] == 5.0


def untyped(task: object, *, gamma=2.0) -> None: ...  # type: ignore[no-untyped-def]


def hidden(task: object, *, gamma: Tensor = 2.0) -> None: ...


def mapping(task: object, *, gamma: dict[str, float] = {}) -> None: ...  # noqa: B006


def fixed(task: object, *, gamma: tuple[float, float] = (1.0, 2.0)) -> None: ...


def enumerated(task: object, *, gamma: Literal[Colour.RED] = Colour.RED) -> None: ...


def implicit(task: object, *, gamma: float = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013


def endless(task: object, *, gamma: float = math.inf) -> None: ...


def none_by_name(task: object, *, mode: str | None = "none") -> None: ...


def number_as_text(task: object, *, gamma: float | str = "1.5") -> None: ...


def with_space(task: object, *, names: tuple[str, ...] = ("a ",)) -> None: ...


def without_star(task: object, width: int, hidden: int = 64, *, gamma: float = 1.0) -> None: ...


def everything_else(task: object, **options: float) -> None: ...


class Positional:
    def __init__(self, task: object, gamma: float = 1.0) -> None: ...


SUPPORTED = "cannot be set from text; expected float, int, bool, str, Literal[...], tuple[float, ...], or one of these or None"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (untyped, "option 'gamma' has no type; expected an annotation such as `: float = 2.0`"),
        (hidden, "option 'gamma': cannot read its type 'Tensor': name 'Tensor' is not defined"),
        (mapping, f"option 'gamma': type dict[str, float] {SUPPORTED}"),
        (fixed, f"option 'gamma': type tuple[float, float] {SUPPORTED}"),
        (enumerated, f"option 'gamma': type Colour.RED {SUPPORTED}"),
        (implicit, "option 'gamma': its default is None; expected float"),
        (endless, "option 'gamma': its default is inf; expected a finite number"),
        (none_by_name, "option 'mode': its default is 'none', which is read as None; use that"),
        (number_as_text, "option 'gamma': its default is '1.5', which is read as 1.5; use that"),
        (with_space, "option 'names': its default is ('a ',), which is read as ('a',); use that"),
        (without_star, "parameter 'hidden' has a default, but is no option; put `*,` before it, or drop the default"),
        (Positional, "parameter 'gamma' has a default, but is no option; put `*,` before it, or drop the default"),
        (everything_else, "parameter **options names no option; name each one, with its type, after `*,`"),
    ],
)
def test_an_option_that_run_json_could_not_hold_or_nobody_could_set_is_the_authors_error(
    build: Callable[..., Any], message: str
) -> None:
    with pytest.raises(TypeError) as error:
        options_of(build)
    assert str(error.value) == message


def test_a_literals_own_values_are_read_as_they_are_shown() -> None:
    assert parse(Literal["none", "x"] | None, "none") == "none"
    assert parse(Literal["x"] | None, "none") is None
    assert parse(Literal[True, False], "true") is True
    with pytest.raises(ValueError, match=r"^expected one of true, false$"):
        parse(Literal[True, False], "yes")


TYPES = [float, int, bool, str, Literal["a", 1], tuple[float, ...], tuple[int, ...], float | None, int | tuple[str, ...]]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(expected=st.sampled_from(TYPES), value=JSON)
def test_any_value_is_taken_or_refused_and_what_is_taken_survives_json(expected: Any, value: Any) -> None:
    try:
        taken = parse(expected, value)
    except ValueError:  # any other exception would be a traceback for the user
        return
    assert parse(expected, json.loads(json.dumps(taken, allow_nan=False))) == taken
