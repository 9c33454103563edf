"""Memory and time of `empathy-kit predict` for tables of growing size.

    python benchmarks/predict_size.py MODEL > benchmarks/results/predict-size.json

Memory is the largest resident size of the whole process, including the model, as measured by the system. What the model takes is
the same at every size, so a small encoder shows best whether memory grows with the rows. Seconds are those of MODEL, and of
whatever else the machine was doing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from exactly_once import described, write_table
from machine import machine

SIZES = (10_000, 100_000, 1_000_000)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            table = Path(folder) / f"in-{size}.jsonl"
            write_table(table, size)
            rows.append({"rows": size, "input_bytes": table.stat().st_size, **measured(arguments.model, table)})
            table.unlink()
    what = "empathy-kit predict, JSON Lines to CSV"
    content = {"what": what, "machine": machine(), "model": described(arguments.model), "sizes": rows}
    print(json.dumps(content, indent=2))


def measured(model: str, table: Path) -> dict[str, float]:
    """Seconds and peak memory of one call."""
    out = table.with_suffix(".csv")
    started = time.perf_counter()
    # In a new process: the largest resident size of children is the maximum over all that have ended.
    child = os.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "empathy_kit", "predict", model, str(table), "--out", str(out)])
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"predict ended with status {status}")
    out.unlink()
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": round(time.perf_counter() - started, 1), "peak_bytes": usage.ru_maxrss * unit}


if __name__ == "__main__":
    main()
