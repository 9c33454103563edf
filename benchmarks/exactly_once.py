"""Kill `empathy-kit predict` at random moments, and compare its outputs with the bytes of an uninterrupted job.

    python benchmarks/exactly_once.py MODEL --kills 100 > benchmarks/results/exactly-once.json

MODEL is a run's folder or an exported one. A small encoder is enough, because the kills test what is written, not what is
predicted. The table is invented. A job is killed and repeated until it is complete. Then the
next job starts, until the given number of kills is reached. Half of the kills come at a random moment, half within a few
milliseconds after a part has appeared, when files are renamed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

from empathy_kit.data.sources import load_corpus

ROWS = 20_000  # five parts


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--kills", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.model, arguments.kills, Path(folder)), indent=2))


def measure(model: str, kills: int, folder: Path) -> dict[str, object]:
    """Kill the given number of times, and count the outcomes."""
    table = folder / "in.jsonl"
    write_table(table, ROWS)
    dice = random.Random(0)
    whole = folder / "whole.csv"
    started = time.perf_counter()
    call(model, table, whole).wait()
    undisturbed = time.perf_counter() - started
    done, jobs, wrong, begun = 0, 0, 0, 0
    while done < kills:
        out = folder / f"out-{jobs}.csv"
        while not out.exists() or Path(f"{out}.parts").exists():
            process = call(model, table, out)
            if dice.random() < 0.5:
                time.sleep(dice.uniform(0, undisturbed))
            else:
                wait_for_a_part(process, out, dice)
            if process.poll() is None and done < kills:
                process.send_signal(signal.SIGKILL)
                done += 1
                begun += bool(parts_of(out))
            process.wait()
        jobs += 1
        wrong += out.read_bytes() != whole.read_bytes()
        out.unlink()
    return {
        "what": "SIGKILL of empathy-kit predict",
        "machine": machine(),
        "model": described(model),
        "rows": ROWS,
        "seconds_undisturbed": round(undisturbed, 1),
        "kills": done,
        "kills_with_finished_parts": begun,
        "jobs_completed": jobs,
        "outputs_that_differ": wrong,
    }


def wait_for_a_part(process: subprocess.Popen[bytes], out: Path, dice: random.Random) -> None:
    """Return within a few milliseconds after the next part has appeared, or when the process has ended."""
    before = parts_of(out)
    while process.poll() is None and parts_of(out) == before:
        time.sleep(0.001)
    time.sleep(dice.uniform(0, 0.01))


def parts_of(out: Path) -> int:
    """The number of finished parts of an output that is not complete yet."""
    parts = Path(f"{out}.parts")
    return len(list(parts.glob("0*"))) if parts.exists() else 0


def described(model: str) -> dict[str, str | int]:
    """Precision and size of a model."""
    folder = Path(model)
    exported = folder / "export.json"
    precision = json.loads(exported.read_text("utf-8"))["precision"] if exported.exists() else "torch"
    return {"precision": precision, "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())}


def call(model: str, table: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the command."""
    command = [sys.executable, "-m", "empathy_kit", "predict", model, str(table), "--out", str(out), "--threads", "1"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def write_table(path: Path, rows: int) -> None:
    """Write invented pairs repeatedly, each with a number that makes it unique."""
    pairs = load_corpus("sample").pairs
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            pair = pairs[number % len(pairs)]
            row = {"n": number, "seeker_post": pair.seeker, "response_post": f"{pair.response} ({number})"}
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
