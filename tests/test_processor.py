"""What this machine computes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from empathy_kit import processor
from empathy_kit.processor import cores, maker


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for allowed in ({0}, {3, 5, 7}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: allowed, raising=False)
        assert cores() == len(allowed)


def test_where_the_system_does_not_tell_they_are_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for found, expected in ((64, 64), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert cores() == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: x\n\nvendor_id\t: Other\n", "AuthenticAMD"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "0x41"),
        ("processor\t: 0\n", "GenuineIntel"),
        (None, "GenuineIntel"),
    ],
)
def test_the_maker_of_the_processor_is_what_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, expected: str
) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setenv("PROCESSOR_IDENTIFIER", "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel")
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    assert maker() == expected
    monkeypatch.delenv("PROCESSOR_IDENTIFIER")
    assert maker() == ("unknown" if expected == "GenuineIntel" else expected)
