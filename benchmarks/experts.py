"""What are the crowd's labels worth? 50 pairs that experts and language models rated again, and models that never saw them.

    python benchmarks/experts.py WORK --experts FOLDER > benchmarks/results/experts.json

Trains T1 and T3 on the Reddit data without these pairs and without every other pair of their seekers, and lets them rate the 50
pairs. Every rater is compared with the experts' median and with the crowd. WORK keeps the data and the runs; a call that was
stopped continues there. Nothing of a single pair is printed. Each expert is one of the three whose median it is compared with,
which favours experts; the crowd and the models are not. So each two experts are compared as well, and the crowd with each of
them. That needs the ratings alone: `--seeds 0` trains nothing, and leaves T1 and T3 out.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import machine
from numpy.typing import NDArray

import empathy_kit
from empathy_kit.core.metrics import from_confusion
from empathy_kit.data.cells import LabelReader
from empathy_kit.data.epitome import FILES
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.readers import Header, read_bytes, read_csv
from empathy_kit.data.schema import MISSING, Schema
from empathy_kit.data.sources import fetch_reddit, load_corpus
from empathy_kit.data.splits import by_seeker
from empathy_kit.errors import KitError, shown

RATINGS = "ratings.csv"
EXPERTS = ("expert1", "expert2", "expert3")
RATERS = ("crowd", *EXPERTS, "gpt-4o", "claude-3.7-sonnet", "gemini-2.5-pro")
KEYS = ("sp_id", "rp_id", "mechanism")
MODELS = ("T1", "T3")
MEDIAN = "experts' median"
LEVELS = 3
RESAMPLES = 2000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ratings:
    """Levels (N,) per mechanism and rater, for the same N pairs in the same order."""

    ids: tuple[str, ...]
    levels: Mapping[str, Mapping[str, Ints]]


def read_ratings(path: Path, schema: Schema) -> Ratings:
    """The table of ratings.

    Raises:
        KitError: it cannot be read, lacks a column or a rating, or a rating is no level.
    """
    labels = {task.name: LabelReader(task) for task in schema.tasks}
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in read_csv(read_bytes(path), Header(path.name, (*KEYS, *RATERS))):
        mechanism = row.text("mechanism")
        if mechanism not in labels:
            raise row.error("mechanism", f"{shown(mechanism)} found, expected {', '.join(labels)}")
        levels = {rater: row.label(rater, labels[mechanism]) for rater in RATERS}
        for rater, level in levels.items():
            if level == MISSING:
                raise row.error(rater, "empty, expected a level")
        pair = found.setdefault(f"{row.identifier('sp_id')}_{row.identifier('rp_id')}", {})
        if mechanism in pair:
            raise row.error("mechanism", f"{mechanism} of this pair has a row already, expected one for each pair and mechanism")
        pair[mechanism] = levels
    for number, one in enumerate(found.values(), 1):
        if set(one) != set(labels):
            raise KitError(f"{path.name}: pair {number} is rated for {', '.join(sorted(one))}, expected {', '.join(labels)}")
    if not found:
        raise KitError(f"{path.name}: no rows, expected at least one pair")
    ratings = {
        name: {rater: np.array([one[name][rater] for one in found.values()], dtype=np.int64) for rater in RATERS}
        for name in labels
    }
    for raters in ratings.values():
        raters[MEDIAN] = np.median([raters[name] for name in EXPERTS], axis=0).astype(np.int64)
    return Ratings(tuple(found), ratings)


def places(corpus: Corpus, ratings: Ratings) -> list[int]:
    """The first position in the corpus of each rated pair; some were labelled several times.

    Raises:
        KitError: a pair is not in the corpus, or nowhere there with the crowd's label.
    """
    found: dict[str, list[int]] = {}
    for at, pair in enumerate(corpus.pairs):
        found.setdefault(pair.pair_id, []).append(at)
    strange = 0
    for number, one in enumerate(ratings.ids):
        for index, name in enumerate(corpus.schema.names):
            labels = {corpus.pairs[at].levels[index] for at in found.get(one, ())}
            strange += int(ratings.levels[name]["crowd"][number]) not in labels
    if strange:
        raise KitError(f"{RATINGS}: {strange} of the crowd's labels are not in {corpus.name}, expected all")
    return [found[one][0] for one in ratings.ids]


def write_without(source: Path, folder: Path, rows: set[int]) -> None:
    """The three EPITOME files without some rows, which are counted from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES.values():
        with (source / name).open(encoding="utf-8-sig", newline="") as file:
            header, *lines = csv.reader(file)
        with (folder / name).open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([header, *(line for at, line in enumerate(lines, 1) if at not in rows)])


def agreements(one: Ints, others: Sequence[Ints], weights: Floats) -> dict[str, Floats]:
    """Quadratic kappa and accuracy of ``others`` with ``one``, the mean over others, for each resample (R,)."""
    found = []
    for other in others:
        cells = np.eye(LEVELS * LEVELS)[one * LEVELS + other]  # (N, C * C)
        found.append(from_confusion((weights @ cells).reshape(-1, LEVELS, LEVELS)))
    return {score: np.mean([each[score] for each in found], axis=0) for score in ("kappa", "accuracy")}


def estimate(draws: Floats) -> dict[str, float | None]:
    """The first draw, which is of all pairs once, with the percentiles of the others; null where it is undefined."""
    if np.isnan(draws[0]):
        return {"value": None, "low": None, "high": None}
    low, high = np.nanpercentile(draws[1:], (2.5, 97.5))
    return {"value": round(float(draws[0]), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def compare(raters: Mapping[str, Sequence[Ints]], weights: Floats) -> dict[str, Any]:
    """Every rater with the experts' median and with the crowd, and how much nearer to the median it is than the crowd."""
    found: dict[str, Any] = {}
    for reference in (MEDIAN, "crowd"):
        (one,) = raters[reference]
        base = agreements(one, raters["crowd"], weights)
        of_raters = {}
        for name, others in raters.items():
            if name == reference:
                continue
            drawn = agreements(one, others, weights)
            of_raters[name] = {score: estimate(values) for score, values in drawn.items()}
            if reference == MEDIAN and name != "crowd":
                of_raters[name]["kappa_above_the_crowds"] = estimate(drawn["kappa"] - base["kappa"])
        found[reference] = of_raters
    return found


def each_other(levels: Mapping[str, Ints], weights: Floats) -> dict[str, Any]:
    """Quadratic kappa of each two experts and of the crowd with each expert, both means, and how much higher the crowd's is."""
    sides = {"experts": [*combinations(EXPERTS, 2)], "crowd": [("crowd", name) for name in EXPERTS]}
    drawn = {
        side: {f"{one} and {other}": agreements(levels[one], [levels[other]], weights)["kappa"] for one, other in pairs}
        for side, pairs in sides.items()
    }
    means = {side: np.mean([*of_pairs.values()], axis=0) for side, of_pairs in drawn.items()}
    return {
        "kappa": {pair: estimate(values) for of_pairs in drawn.values() for pair, values in of_pairs.items()},
        "mean": {side: estimate(values) for side, values in means.items()},
        "crowd_above_experts": estimate(means["crowd"] - means["experts"]),
    }


def levels_of(several: Sequence[Ints]) -> list[float]:
    """How many of the pairs get each level, the mean over several ratings."""
    counts = np.mean([np.bincount(each, minlength=LEVELS) for each in several], axis=0)
    return [round(float(each), 1) for each in counts]


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--experts", type=click.Path(path_type=Path), required=True, help=f"the folder with {RATINGS}")
@click.option("--seeds", type=click.IntRange(0), default=5, show_default=True, help="0 compares the other raters alone")
@click.option("--jobs", default=1, show_default=True)
@click.option("--freeze-layers", default=2, show_default=True)
@click.option("--encoder", default="minilm", show_default=True)
def main(work: Path, experts: Path, seeds: int, jobs: int, freeze_layers: int, encoder: str) -> None:
    """Train, rate, and print the agreements as JSON."""
    corpus = load_corpus("reddit")
    names = corpus.schema.names
    ratings = read_ratings(experts / RATINGS, corpus.schema)
    rated = places(corpus, ratings)
    apart = {at for group in by_seeker(corpus.pairs) if not {*group}.isdisjoint(rated) for at in group}
    recipe = ["--resplit", "--seeds", str(seeds), "--freeze-layers", str(freeze_layers), "--encoder", encoder]
    said: dict[str, list[dict[str, Ints]]] = {}
    if seeds:
        data = work / "data"
        write_without(fetch_reddit(), data, {corpus.pairs[at].row for at in apart})
        command = ["compare", *MODELS, "--data", str(data), *recipe, "--keep-models"]
        where = ["--jobs", str(jobs), "--out", str(work / "comparison")]
        compared = [sys.executable, "-m", "empathy_kit", *command, *where]
        if code := subprocess.run(compared, check=False, stdout=sys.stderr).returncode:
            raise click.ClickException(f"compare ended with exit code {code}; the same command continues it")
        said = {name: [] for name in MODELS}
    posts = [(corpus.pairs[at].seeker, corpus.pairs[at].response) for at in rated]
    for name, several in said.items():
        for seed in range(seeds):
            answers = empathy_kit.load(work / "comparison" / "runs" / f"{name}-{seed}").predict(posts)
            several.append({task: np.array([int(each.tasks[task].label) for each in answers]) for task in names})
    n = len(rated)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    weights = np.concatenate([np.ones((1, n)), drawn])
    raters = {
        task: {
            **{name: [levels] for name, levels in ratings.levels[task].items()},
            **{name: [each[task] for each in several] for name, several in said.items()},
        }
        for task in names
    }
    result = {
        "machine": machine(),
        "recipe": " ".join(recipe) if seeds else None,
        "pairs": n,
        "left_out": len(apart),
        "kept": len(corpus) - len(apart),
        "seeds": seeds,
        "resamples": RESAMPLES,
        "agreement": {task: compare(each, weights) for task, each in raters.items()},
        "each_other": {task: each_other(each, weights) for task, each in ratings.levels.items()},
        "levels": {task: {name: levels_of(several) for name, several in each.items()} for task, each in raters.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        raise SystemExit(f"Error: {error}") from None
