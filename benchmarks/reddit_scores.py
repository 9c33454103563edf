"""Train configurations x seeds on the Reddit data and put their scores beside the yardsticks and the paper's table.

    python benchmarks/reddit_scores.py run DATA WORK --loss ce --loss focal --seeds 3
    python benchmarks/reddit_scores.py table DATA WORK > benchmarks/results/reddit-scores.md

DATA is `reddit` or the folder with the three files. Seed n draws split n and initial weights n, so that both kinds of noise
are seen. `run` leaves one run directory a configuration and seed in WORK and skips those that are there; `table` reads them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import click

from empathy_kit import record
from empathy_kit.data.pairs import MECHANISMS, Corpus
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take

METRICS = ("accuracy", "weighted_f1", "macro_f1")

RARE = (("ER", 2), ("EX", 1), ("IP", 1))  # the level with the fewest pairs, a mechanism

# Table 1 of the paper (accuracy and weighted F1 on its own random 464 test pairs, one run a cell; it gives no macro F1).
PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "ce": {"ER": (0.7801, 0.7686), "EX": (0.9353, 0.9235), "IP": (0.8297, 0.8103)},
    "focal": {"ER": (0.806, 0.8023), "EX": (0.9288, 0.9216), "IP": (0.8426, 0.8228)},
}


@click.group()
def main() -> None:
    """Scores on the Reddit data."""


@main.command("run")
@click.argument("data")
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--loss", "losses", multiple=True, default=("ce", "focal"))
@click.option("--seeds", default=3)
@click.option("--jobs", default=1, help="runs at once, the cores shared out among them")
@click.option("--flags", default="", help="more flags of `empathy-kit run`, separated by spaces")
def run_all(data: str, work: Path, losses: tuple[str, ...], seeds: int, jobs: int, flags: str) -> None:
    """Train what is not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // jobs)

    def train(seed: int, loss: str) -> None:
        out = work / f"{loss}-{seed}"
        if not out.exists():
            flags_here = ["--loss", loss, "--no-rationale", "--seed", str(seed), "--split-seed", str(seed)]
            command = [sys.executable, "-m", "empathy_kit", "run", "--data", data, "--out", str(out), *flags_here, *flags.split()]
            # Threads in the environment too: OpenMP counts its threads when torch is imported, before --threads is read.
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            with (work / f"{loss}-{seed}.log").open("w") as log:
                subprocess.run([*command, "--threads", str(threads)], check=True, stdout=log, stderr=log, env=environment)

    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(train, seed, loss) for seed in range(seeds) for loss in losses]:
            done.result()


@main.command("table")
@click.argument("data")
@click.argument("work", type=click.Path(path_type=Path))
def table(data: str, work: Path) -> None:
    """Print the table as Markdown."""
    corpus = load_corpus(data)
    records: dict[str, list[record.Record]] = {}
    for folder in sorted(path.parent for path in work.glob("*/run.json")):
        result = record.read(folder)
        records.setdefault(result.title, []).append(result)
    if not records:
        raise click.ClickException(f"no finished run in {work}")
    seeds = sorted({result.config["seed"] for results in records.values() for result in results})
    click.echo("\n".join(_table(corpus, records, seeds)))


def _table(corpus: Corpus, records: dict[str, list[record.Record]], seeds: list[int]) -> Iterator[str]:
    first = next(iter(records.values()))[0]
    yield f"# Scores on the Reddit part of EPITOME, {first.config['split']} split, seeds {', '.join(map(str, seeds))}"
    yield ""
    yield (
        "Cells: accuracy / weighted F1 / macro F1, mean over seeds (lowest to highest run in brackets); seed n draws split n and "
        f"initial weights n; {', '.join(str(first_n) for first_n in _test_sizes(records))} test pairs."
    )
    yield ""
    yield f"| | {' | '.join(MECHANISMS)} |"
    yield "| --- |" + " --- |" * len(MECHANISMS)
    for title, cells in _yardsticks(corpus, first.config["split"], seeds).items():
        yield _row(title, cells)
    for title, results in records.items():
        cells = {name: [_point(result.scores[name]) for result in results] for name in MECHANISMS}
        yield _row(f"**{title}** ({len(results)} runs)", cells)
    for title, row in PAPER.items():
        cells_paper = [f"{accuracy:.3f} / {f1:.3f} / not given" for accuracy, f1 in row.values()]
        yield f"| paper, {title} (RoBERTa, one run, another split) | {' | '.join(cells_paper)} |"
    yield ""
    yield "| recall of the rare level | ER 2 | EX 1 | IP 1 | epoch chosen | seconds |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for title, results in records.items():
        rare = [
            _range([r.scores[name]["recall"][level]["value"] for r in results])
            for name, level in (("ER", 2), ("EX", 1), ("IP", 1))
        ]
        epochs = ", ".join(f"{r.training['best_epoch']} of {r.training['epochs']}" for r in results)
        seconds = _range([r.training["seconds"] for r in results], 0)
        yield f"| {title} | {' | '.join(rare)} | {epochs} | {seconds} |"
    yield ""
    varied = ("data", "seed", "split_seed", "loss", "options")
    settings = {key: value for key, value in first.config.items() if key not in varied}
    yield f"Recipe: `{json.dumps(settings)}`"
    yield ""
    yield f"Versions: `{json.dumps(first.versions)}`; machine: `{json.dumps(first.machine)}`; data {first.data['sha256'][:12]}."


def _test_sizes(records: dict[str, list[record.Record]]) -> list[int]:
    return sorted({result.split["pairs"]["test"] for results in records.values() for result in results})


def _point(scores: dict[str, Any]) -> tuple[float, ...]:
    return tuple(scores[metric]["value"] for metric in METRICS)


def _yardsticks(corpus: Corpus, kind: str, seeds: Iterable[int]) -> dict[str, dict[str, list[tuple[float, ...]]]]:
    """Majority class and TF-IDF + logistic regression, on the same splits."""
    import numpy as np

    from empathy_kit.core.baselines import tfidf_logistic
    from empathy_kit.core.metrics import confusion_matrix, from_confusion

    rows: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    for seed in seeds:
        split = make_split(corpus, kind, seed)
        train, test = take(corpus, split.train), take(corpus, split.test)
        for index, name in enumerate(MECHANISMS):
            known = np.array([pair.levels[index] for pair in train])
            true = np.array([pair.levels[index] for pair in test])
            texts = [pair.response for pair in train], [pair.response for pair in test]
            guesses = {
                "majority class": np.full_like(true, np.bincount(known).argmax()),
                "TF-IDF + logistic regression, response only": tfidf_logistic(texts[0], known, texts[1]),
                "the same, balanced": tfidf_logistic(texts[0], known, texts[1], balanced=True),
            }
            for title, guess in guesses.items():
                scores = from_confusion(confusion_matrix(true, guess, 3).astype(float))
                rows.setdefault(title, {}).setdefault(name, []).append(tuple(float(scores[metric]) for metric in METRICS))
    return rows


def _row(title: str, cells: dict[str, list[tuple[float, ...]]]) -> str:
    shown = [" / ".join(_range([run[at] for run in cells[name]]) for at in range(len(METRICS))) for name in MECHANISMS]
    return f"| {title} | {' | '.join(shown)} |"


def _range(values: list[float], digits: int = 3) -> str:
    return f"{mean(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


if __name__ == "__main__":
    main()
