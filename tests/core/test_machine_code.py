"""The Triton kernels as machine code. The committed table has every variant; a part of it is compiled again, ahead of time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="the gpu extra is not installed", exc_type=ImportError)
from empathy_kit.core.kernels import gpu  # noqa: E402

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TARGETS = {"sm_80", "sm_90", "sm_100", "gfx942"}
COMMITTED = json.loads((BENCHMARKS / "results" / "ahead-of-time.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def anew() -> list[dict[str, Any]]:
    """Every setting of every kernel at least once, compiled now; in a process of its own, for this one interprets."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BENCHMARKS / "ahead_of_time.py"), "--cover"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows: list[dict[str, Any]] = json.loads(ran.stdout)["rows"]
    return rows


@pytest.fixture(params=["committed", "compiled anew"])
def compiled(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Rows of the table."""
    rows: list[dict[str, Any]] = COMMITTED["rows"] if request.param == "committed" else request.getfixturevalue("anew")
    assert {row["target"] for row in rows} == TARGETS
    assert {row["kernel"] for row in rows} == {"few", "some", "many"}
    return rows


def test_the_committed_table_is_that_of_these_kernels(anew: list[dict[str, Any]]) -> None:
    """Where it is not: python benchmarks/ahead_of_time.py > benchmarks/results/ahead-of-time.json."""
    source = Path(gpu.__file__).parent / "focal_triton.py"
    assert COMMITTED["source"] == hashlib.sha256(source.read_bytes()).hexdigest()
    found = [row if triton.__version__ == COMMITTED["triton"] else settings(row) for row in anew]
    known = [row if triton.__version__ == COMMITTED["triton"] else settings(row) for row in COMMITTED["rows"]]
    assert [row for row in found if row not in known] == []


def settings(row: dict[str, Any]) -> dict[str, Any]:
    """What was compiled, whatever came of it."""
    names = ("kernel", "way", "mode", "dtype", "label", "warps", "C", "HEADS", "ROWS", "COLUMNS", "target")
    return {name: row.get(name) for name in names}


def test_nothing_is_spilled(compiled: list[dict[str, Any]]) -> None:
    assert [row for row in compiled if row["spills"]] == []


def test_three_classes_take_few_instructions_and_registers(compiled: list[dict[str, Any]]) -> None:
    """One thread per row: what it executes once is what a row costs. Cross-entropy, gamma 2, any gamma."""
    most = {0: 190, 2: 220, 3: 270}
    for row in compiled:
        if row["kernel"] == "few" and row["target"].startswith("sm"):
            assert row["instructions"] <= most[row["mode"]], row
            assert row["registers"] <= 40, row


def test_rows_are_read_and_written_in_wide_pieces(compiled: list[dict[str, Any]]) -> None:
    for row in compiled:
        if row["kernel"] != "few" and row["COLUMNS"] >= 8192:
            read = (
                row["COLUMNS"]
                * (4 if row["dtype"] == "fp32" else 2)
                // (row["warps"] * (64 if row["target"] == "gfx942" else 32))
            )
            passes = 2 if row["kernel"] == "many" and row["way"] == "both" else 1
            assert row["wide_loads"] == passes * read // 16, row
            assert row["wide_stores"] == (0 if row["way"] == "losses" else read // 16), row


def test_bfloat16_is_rounded_to_the_nearest_and_nothing_is_approximate(compiled: list[dict[str, Any]]) -> None:
    for row in compiled:
        if row["target"].startswith("sm"):
            assert row["rounds_to_nearest"] == (row["dtype"] == "bf16"), row
            assert row["approximate"] == [], row
