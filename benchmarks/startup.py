"""Start-up time of the command line.

python benchmarks/startup.py > benchmarks/results/startup.json
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from machine import machine

REPEATS = 15
COMMANDS = (["--help"], ["plugins", "list"])


def main() -> None:
    """Print medians as JSON, next to those of the bare interpreter; the commands take turns."""
    times: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for arguments in (["-c", "pass"], *(["-m", "empathy_kit", *command] for command in COMMANDS)):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.setdefault(" ".join(arguments), []).append(time.perf_counter() - started)
    seconds = {name: {"median": round(statistics.median(runs), 3), "max": round(max(runs), 3)} for name, runs in times.items()}
    print(json.dumps({"repeats": REPEATS, "machine": machine(), "seconds": seconds}, indent=2))


if __name__ == "__main__":
    main()
