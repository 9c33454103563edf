"""The comparisons that docs/paper.md answers its questions with, each in a folder of benchmarks/results.

    pip install ./plugins/empathy-kit-longtail ./plugins/empathy-kit-ordinal ./plugins/empathy-kit-biencoder
    python benchmarks/questions.py sharing learning --jobs 2 --out FOLDER

Runs that another committed comparison has are copied. A call that was stopped continues where it was. `size` and
`predecessor-size` need the encoder that `make mpnet` installs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from empathy_kit.comparison.plan import RUNS, run_folder
from empathy_kit.comparison.run import read_run
from empathy_kit.config import COMPARISON
from empathy_kit.errors import KitError

RESULTS = Path(__file__).parent / "results"
SHARED = ("reddit-grouped", "reddit-paper")  # comparisons whose runs are copied
MPNET = "--encoder mpnet --freeze-layers 6"  # half of its layers, as a third of minilm's
BI_ENCODER = "--trunk bi-encoder --head dense --separate"


@dataclass(frozen=True)
class Question:
    """A comparison: its configurations as `compare` takes them, its seeds, and how it splits."""

    configurations: tuple[str, ...]
    seeds: int = 3
    split: str = "grouped"


# Three values each of what the remedies for imbalance leave open, tried on one split. Validation parts choose; the chosen values
# are then written into "imbalance".
TUNED = {
    "focal": ("--loss focal -o loss.gamma", ("1", "2", "4")),
    "weighted": ("--loss weighted -o loss.power", (".25", ".5", "1")),
    "over": ("--sampler over -o sampler.power", (".25", ".5", "1")),
    "under": ("--sampler under -o sampler.power", (".25", ".5", "1")),
    "adjusted": ("--loss logit-adjusted -o loss.tau", (".25", ".5", "1")),
    "balanced": ("--loss class-balanced -o loss.beta", (".99", ".999", ".9999")),
    "ldam": ("--loss ldam -o loss.max_margin", (".5", "1", "2")),
    "focal-weighted": ("--loss focal -o loss.gamma 2 -o loss.power", (".25", ".5", "1")),
    "hurdle": ("--head hurdle -o head.power", (".25", ".5", "1")),
}

QUESTIONS = {
    "tuning": Question(
        (
            "T1",
            *(
                f"{name}-{at}={flags} {value}"
                for name, (flags, values) in TUNED.items()
                for at, value in zip(("low", "middle", "high"), values, strict=True)
            ),
        ),
        seeds=1,
    ),
    "sharing": Question(("T1", "T1s", "T3", "T3s")),
    "learning": Question(("T3", *(f"T3-{share}=--loss focal --train-share .{share}" for share in (75, 50, 25)))),
    "recurrence": Question(
        (
            "T3",
            "T3-mean=--loss focal --trunk mean",
            "T3-attention=--loss focal --head attention",
            "T3-mean-attention=--loss focal --trunk mean --head attention",
        )
    ),
    "imbalance": Question(
        (
            "T1",
            "T3",
            "weighted",
            "over=--sampler over",
            "under=--sampler under",
            "adjusted=--loss logit-adjusted",
            "balanced=--loss class-balanced",
            "ldam=--loss ldam",
            "focal-weighted=--loss focal -o loss.power 1",
            "hurdle=--head hurdle",
        )
    ),
    "predecessor": Question(
        (
            "T1",
            "T3",
            f"bi={BI_ENCODER} --rationale tag -o rationale.weight .5",
            f"bi-no-rationale={BI_ENCODER}",
        )
    ),
    "size": Question(
        (
            *("T1", "T2", "T3", "T4"),
            f"T1m=--loss ce {MPNET}",
            f"T2m=--loss ce --rationale predicted {MPNET}",
            f"T3m=--loss focal {MPNET}",
            f"T4m=--loss focal --rationale predicted {MPNET}",
        )
    ),
    "size-paper": Question(("T1", "T3", f"T1m=--loss ce {MPNET}", f"T3m=--loss focal {MPNET}"), split="paper"),
    "predecessor-size": Question(
        ("T1m=--loss ce " + MPNET, f"bim={BI_ENCODER} --rationale tag -o rationale.weight .5 {MPNET}"), 2
    ),
}


def known_runs(question: Question) -> Iterator[tuple[str, int, Path]]:
    """Finished runs of other comparisons of configurations with a name of the kit's, on the same kind of split."""
    for configuration in question.configurations:
        for folder in SHARED if configuration in COMPARISON else ():
            for seed in range(question.seeds):
                if (there := run_folder(RESULTS / folder, configuration, seed)).is_dir():
                    found = read_run(RESULTS / folder, configuration, seed)
                    if found.record.config["split"] == question.split and found.record.config["precision"] == "no":
                        yield configuration, seed, there


def prepare(question: Question, out: Path) -> None:
    """Copy the runs that are known; `compare` checks that they are what it would make."""
    (out / RUNS).mkdir(parents=True, exist_ok=True)
    for name, seed, there in known_runs(question):
        if not (place := run_folder(out, name, seed)).exists():
            shutil.copytree(there, place)
            click.echo(f"{place.name} is copied from {there.parents[1].name}", err=True)


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice([*QUESTIONS]))
@click.option("--jobs", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="where the folders are made  [benchmarks/results]")
def main(names: tuple[str, ...], jobs: int, out: Path) -> None:
    """Make the comparisons NAMES, one after the other."""
    for name in names:
        question, folder = QUESTIONS[name], out / f"reddit-{name}"
        prepare(question, folder)
        how = ["--data", "reddit", "--split", question.split, "--resplit", "--seeds", str(question.seeds), "--freeze-layers", "2"]
        where = ["--jobs", str(jobs), "--out", str(folder)]
        command = [sys.executable, "-m", "empathy_kit", "compare", *question.configurations, *how, *where]
        if code := subprocess.run(command, check=False).returncode:
            raise click.ClickException(f"{name}: compare ended with exit code {code}; the same command continues it")


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        raise SystemExit(f"Error: {error}") from None
