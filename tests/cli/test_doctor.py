"""`empathy-kit doctor` names what is missing, and a cache that cannot be."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest
from cli_reply import Reply

from empathy_kit.core import kernels


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
    monkeypatch.setattr(kernels, "find", lambda _: "not looked for")  # what it finds there is kept for all that follows
    code, out, err = kit("doctor")
    assert (code, err) == (0, "")
    told = [line for line in out.splitlines() if line.startswith("cache: ")]
    assert told == [f"cache: {place}{'' if place.startswith('x') else ': cannot be written'}"]
