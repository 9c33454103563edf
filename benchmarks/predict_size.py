"""Memory and time of `empathy-kit predict` for tables of growing size.

    python benchmarks/predict_size.py MODEL > benchmarks/results/predict-size.json

Memory is the largest resident size of the whole process, including the model, as measured by the system. What the model takes is
the same at every size, so a small encoder shows best whether memory grows with the rows. Seconds are those of MODEL, and of
whatever else the machine was doing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from exactly_once import described, write_table
from machine import machine, measured

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
            command = [sys.executable, "-m", "empathy_kit", "predict", arguments.model, str(table), "--out", f"{table}.csv"]
            rows.append({"rows": size, "input_bytes": table.stat().st_size, **measured(command)})
            table.unlink()
    what = "empathy-kit predict, JSON Lines to CSV"
    content = {"what": what, "machine": machine(), "model": described(arguments.model), "sizes": rows}
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
