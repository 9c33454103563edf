"""requirements.lock: the versions of constraints.txt, every file by its hash, and all that the tests need but torch's builds."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
APART = re.compile(r"torch|triton|nvidia-.*|cuda-.*")  # the lock's first lines say why


def pinned(text: str) -> dict[str, str]:
    """Name to version of every line that pins one."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


LOCK = (ROOT / "requirements.lock").read_text("utf-8")
LOCKED = pinned(LOCK)


def needed(requirement: Requirement, seen: set[str]) -> Iterator[str]:
    """The distributions that a requirement brings on this machine, as they are installed here."""
    name = canonicalize_name(requirement.name)
    extras = requirement.extras or {""}
    if f"{name}[{extras}]" in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
        return
    seen.add(f"{name}[{extras}]")
    try:
        further = requires(requirement.name) or []
    except PackageNotFoundError:  # an extra that is not installed
        return
    yield name
    for each in map(Requirement, further):
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
            each.marker = None
            yield from needed(each, seen)


def test_every_locked_distribution_has_the_version_of_the_constraints() -> None:
    constraints = pinned((ROOT / "constraints.txt").read_text("utf-8"))
    assert len(LOCKED) > 90
    elsewhere = {"colorama", "httpx2-jsfetch"}  # on Windows and in a browser: the tests do not run there
    assert {name: version for name, version in sorted(LOCKED.items() - constraints.items()) if name not in elsewhere} == {}


def test_every_locked_distribution_has_hashes() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(LOCKED)
    assert [entry.split()[0] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)] == []


def test_the_lock_has_all_that_the_tests_need_and_no_build_of_torch() -> None:
    assert [name for name in LOCKED if APART.fullmatch(name)] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    own = [Requirement(each) for kind in ("dev", "minilm", "train", "light", "serve", "gpu", "onnx") for each in extras[kind]]
    found: set[str] = set()
    for requirement in own:
        if requirement.name != "empathy-kit":
            found.update(needed(requirement, set()))
    missing = {name for name in found if not APART.fullmatch(name)} - LOCKED.keys()
    assert len(found) > 60
    assert missing == set(), "run `make lock`"
