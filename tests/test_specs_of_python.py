"""A program may hand specs over, by the same rules as distributions and files."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import pytest

from empathy_kit import Head, KitError, Loss, Rationale
from empathy_kit.plugins import ONLY, OURS, Registry, load_registry


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is installed here is looked at."""
    monkeypatch.setenv(ONLY, "")


def build(task: Any, *, gamma: float = 1.0) -> None:
    """A builder of Python's own."""


def test_a_registry_takes_specs_from_python() -> None:
    registry = load_registry()
    more = registry.with_specs(Loss("zeta", build), Head("zeta", build)).with_specs(Loss("alpha", functools.partial(build)))
    assert [entry.spec.name for entry in more.of("loss")] == ["ce", "focal", "weighted", "alpha", "zeta"]
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert {(entry.distribution, entry.version) for entry in more.provided if entry.distribution != OURS} == {
        ("python", f"sha256:{digest[:12]}")
    }
    assert load_registry() == registry
    assert registry.with_specs(Loss("named", build), distribution="my-study").get("loss", "named").distribution == "my-study"


def weighing(tasks: Any, width: int, *, weight: float = 1.0) -> None: ...


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([Loss("focal", build)], "python: loss 'focal' is a built-in name; choose another"),
        ([Loss("own", build), Loss("own", build)], "python: loss 'own' is also offered by python {version}; choose another"),
        ([Rationale("own", weighing)], "python: rationale 'own': option 'weight' belongs to the kit"),
        ([build], "python: a function found, expected a spec: Loss, Rationale, Head, Sampler, Trunk"),
    ],
)
def test_specs_of_python_are_held_to_the_same_rules(specs: list[Any], message: str) -> None:
    with pytest.raises(KitError) as error:
        load_registry().with_specs(*specs)
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert str(error.value) == message.format(version=f"sha256:{digest[:12]}")


def test_nobody_poses_as_the_kit() -> None:
    with pytest.raises(KitError) as error:
        Registry(()).with_specs(Loss("own", build), distribution="Empathy_Kit")
    assert str(error.value) == "distribution 'Empathy_Kit': the kit's own name, expected another"
