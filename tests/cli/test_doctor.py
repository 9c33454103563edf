"""`empathy-kit doctor` on the cache: what lies there, and which part of it must be guarded."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest
from cli_reply import Reply


def test_doctor_sizes_the_cache_and_warns_of_what_holds_the_posts(kit: Reply, cache: Path) -> None:
    for name, size in (("states/a.npy", 3 * 2**20), ("states/b.npy", 2**19), ("encoders/mpnet/config.json", 2**18)):
        path = cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    code, out, _ = kit("doctor")
    assert code == 0
    states = cache / "states"
    assert [line for line in out.splitlines() if line.startswith("cache, ") and "kernels" not in line] == [
        "cache, encoders: 0.2 MiB",
        "cache, states: 3.5 MiB; as sensitive as the posts, which can be recovered from them: "
        f"guard {states} as you guard those, or delete it",
    ]


def test_doctor_names_what_is_missing(kit: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without(library: str) -> str:
        if library in ("torch", "transformers"):
            raise importlib.metadata.PackageNotFoundError(library)
        return version(library)

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(importlib.metadata, "version", without)
    code, out, err = kit("doctor", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert "torch missing, transformers missing, tokenizers 0" in found["versions"]
    assert found["losses"] == "torch is not installed; pip install 'empathy-kit[train]'"


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300])
def test_doctor_reports_a_cache_that_cannot_be(kit: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMPATHY_KIT_CACHE", place)
    code, out, err = kit("doctor")
    assert (code, err) == (0, "")
    told = [line for line in out.splitlines() if line.startswith("cache: ")]
    assert told == [f"cache: {place}{'' if place.startswith('x') else ': cannot be written'}"]
