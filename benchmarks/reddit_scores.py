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

from empathy_kit.data.pairs import Corpus
from empathy_kit.data.schema import EPITOME
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take
from empathy_kit.runs import record

METRICS = ("accuracy", "weighted_f1", "macro_f1")
ACCURACY, WEIGHTED_F1, MACRO_F1 = range(3)

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
    everything = [result for results in records.values() for result in results]
    for result in everything:
        if _recipe(result) != _recipe(everything[0]):
            raise click.ClickException(f"the runs in {work} were made with different recipes, expected one")
        if result.config["seed"] != result.config["split_seed"]:
            raise click.ClickException(f"seed {result.config['seed']} of {result.title} has another split, expected its own")
    seeds = sorted({result.config["seed"] for result in everything})
    click.echo("\n".join(_table(corpus, records, seeds)))


def _table(corpus: Corpus, records: dict[str, list[record.Record]], seeds: list[int]) -> Iterator[str]:
    first = next(iter(records.values()))[0]
    yardsticks = _yardsticks(corpus, first.config["split"], seeds)
    runs = {
        title: {name: [_point(result.scores[name]) for result in results] for name in EPITOME.names}
        for title, results in records.items()
    }
    sizes = " or ".join(str(size) for size in _test_sizes(records))
    yield f"# Scores on the Reddit part of EPITOME, {first.config['split']} split, seeds {', '.join(map(str, seeds))}"
    yield ""
    yield f"Accuracy / macro F1, means over the seeds; seed n draws split n and initial weights n; {sizes} test pairs."
    yield ""
    yield from _heading("", *EPITOME.names)
    for title, cells in yardsticks.items():
        yield _row(title, *(_means(cells[name], ACCURACY, MACRO_F1) for name in EPITOME.names))
    for title, cells in runs.items():
        yield _row(f"**empathy-kit, {title}**", *(f"**{_means(cells[name], ACCURACY, MACRO_F1)}**" for name in EPITOME.names))
    for title, row in PAPER.items():
        yield _row(f"the paper, {title}: RoBERTa, its own split, one run", *(f"{accuracy:.3f}" for accuracy, _ in row.values()))
    yield ""
    yield "Weighted F1, the paper's F, means over the seeds."
    yield ""
    yield from _heading("", *EPITOME.names)
    for title, cells in {**yardsticks, **runs}.items():
        yield _row(title, *(_means(cells[name], WEIGHTED_F1) for name in EPITOME.names))
    for title, row in PAPER.items():
        yield _row(f"the paper, {title}", *(f"{f1:.3f}" for _, f1 in row.values()))
    yield ""
    yield "Every run: accuracy / weighted F1 / macro F1; recall of the level with the fewest pairs; epoch chosen; seconds."
    yield ""
    yield from _heading("run", *EPITOME.names, *(f"{name} {level}" for name, level in RARE), "epoch", "seconds")
    for title, results in records.items():
        for result in results:
            training = result.training
            yield _row(
                f"{title}, seed {result.config['seed']}",
                *(" / ".join(f"{value:.3f}" for value in _point(result.scores[name])) for name in EPITOME.names),
                *(f"{result.scores[name]['recall'][level]['value']:.2f}" for name, level in RARE),
                f"{training['best_epoch']} of {training['epochs']}",
                f"{training['seconds']:.0f}",
            )
    yield ""
    yield f"Recipe: `{json.dumps(_recipe(first))}`"
    yield ""
    yield f"Versions: `{json.dumps(first.versions)}`; machine: `{json.dumps(first.machine)}`."


def _recipe(result: record.Record) -> dict[str, Any]:
    varied = ("data", "seed", "split_seed", "loss", "options")
    return {key: value for key, value in result.config.items() if key not in varied}


def _heading(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield "|" + " --- |" * len(titles)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _means(runs: list[tuple[float, ...]], *metrics: int) -> str:
    return " / ".join(f"{mean(run[metric] for run in runs):.3f}" for metric in metrics)


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
        for index, name in enumerate(EPITOME.names):
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


if __name__ == "__main__":
    main()
