"""Time that a comparison saves by sharing, compared with the same runs one after the other.

    python benchmarks/sharing.py reddit --epochs 1 > benchmarks/results/sharing.json

Shared: `empathy-kit compare`, one run per core; the frozen layers' states are computed once and read by all. Alone: each run in a
process of its own with all cores, which recomputes the frozen layers for every batch. Neither starts with stored states.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from machine import machine

from empathy_kit.cache import cache_folder
from empathy_kit.config import COMPARISON, FOUR, RunConfig, configure
from empathy_kit.plugins import load_registry
from empathy_kit.processor import cores
from empathy_kit.runs.train import run


def alone(config: RunConfig, folder: Path) -> None:
    """One run that caches nothing."""
    from empathy_kit.core.posts import PostEncoder

    PostEncoder.remember = lambda *_: None  # type: ignore[method-assign, assignment]
    for _ in run(config, load_registry(), folder, keep_model=False):
        pass


@click.command()
@click.argument("data")
@click.option("--epochs", default=1, show_default=True)
@click.option("--freeze-layers", default=2, show_default=True)
@click.option("--precision", default="bf16", show_default=True)
@click.option("--seeds", default=1, show_default=True)
def main(data: str, epochs: int, freeze_layers: int, precision: str, seeds: int) -> None:
    """Print both times as JSON."""
    changes = {"data": data, "epochs": epochs, "freeze_layers": freeze_layers, "precision": precision}
    flags = [word for name, value in changes.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    taken: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as work:
        cache = Path(work) / "cache"
        fetched = cache_folder() / "epitome-reddit"
        if fetched.exists():  # downloads are not part of the measurement
            shutil.copytree(fetched, cache / fetched.name)
        os.environ["EMPATHY_KIT_CACHE"] = str(cache)
        started = time.perf_counter()
        command = [sys.executable, "-m", "empathy_kit", "compare", *FOUR, "--seeds", str(seeds), "--jobs", str(cores())]
        subprocess.run([*command, "--out", f"{work}/shared", *flags], check=True, stdout=subprocess.DEVNULL)
        taken["shared"] = time.perf_counter() - started
        shutil.rmtree(cache / "states", ignore_errors=True)
        started = time.perf_counter()
        for seed in range(seeds):
            for name in FOUR:
                config = configure(RunConfig(), {**COMPARISON[name], **changes, "seed": seed})
                process = multiprocessing.get_context("spawn").Process(target=alone, args=(config, Path(work) / f"{name}-{seed}"))
                process.start()
                process.join()
                if process.exitcode:
                    raise click.ClickException(f"{name} {seed} ended with {process.exitcode}")
        taken["alone"] = time.perf_counter() - started
    content = {
        "what": "seconds that a comparison takes, start to report, against its runs one after the other without sharing",
        "runs": [f"{name} {seed}" for seed in range(seeds) for name in FOUR],
        "settings": changes,
        "seconds": {name: round(value, 1) for name, value in taken.items()},
        "faster": round(taken["alone"] / taken["shared"], 2),
        "machine": machine(),
    }
    click.echo(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
