"""The comparisons that docs/paper.md answers its questions with, each in a folder of benchmarks/results.

    pip install ./plugins/empathy-kit-longtail ./plugins/empathy-kit-ordinal ./plugins/empathy-kit-biencoder
    python benchmarks/questions.py sharing learning --jobs 2 --out FOLDER

A run that another comparison in FOLDER or in benchmarks/results has, by whatever name, is copied, unless the question is what it
costs. A call that was stopped continues where it was. `size`, `size-paper`, `predecessor-size` and `best` need the encoder that
`make mpnet` installs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from empathy_kit.comparison.parse import parse_configurations
from empathy_kit.comparison.plan import NOT_COMPARED, RUNS, Plan, run_folder
from empathy_kit.config import PRESETS, RunConfig, configure, flag, preset, to_dict
from empathy_kit.errors import KitError
from empathy_kit.files import staged_folder
from empathy_kit.plugins import OURS, Registry, load_registry
from empathy_kit.runs import record
from empathy_kit.runs.choose import all_options, choose_plugins, provenance

RESULTS = Path(__file__).parent / "results"
# Four of twelve layers are trained, as many as of minilm's, with products in bfloat16.
FAST = "--precision bf16"
MPNET = f"--encoder mpnet --freeze-layers 8 {FAST}"
BI_ENCODER = "--trunk bi-encoder --head dense --separate"


def as_flags(settings: Mapping[str, Any]) -> str:
    """A preset's settings as `compare` takes them."""
    options = [f"-o {route} {value}" for route, value in settings.get("options", {}).items()]
    return " ".join([*(f"{flag(name)} {value}" for name, value in settings.items() if name != "options"), *options])


@dataclass(frozen=True)
class Question:
    """A comparison: its configurations as `compare` takes them, its seeds, and how it splits."""

    configurations: tuple[str, ...]
    seeds: int = 3
    split: str = "grouped"
    freeze_layers: int = 2  # of minilm's six
    one_split: int | None = None  # the seed of the only split; otherwise each run's seed has a split of its own
    after: str | None = None  # the question that chooses a part of it: its test part is looked at once, when all is chosen
    timed: bool = False  # what its runs cost is compared, so none is taken that another processor may have trained
    keep_models: bool = False  # benchmarks/evidence.py reads them

    @property
    def flags(self) -> dict[str, str]:
        """What all of its configurations share."""
        only = {} if self.one_split is None else {"split-seed": str(self.one_split)}
        return {"data": "reddit", "split": self.split, "freeze-layers": str(self.freeze_layers), **only}

    @property
    def plan(self) -> Plan:
        """What `compare` makes of it."""
        shared = {name.replace("-", "_"): value for name, value in self.flags.items()}
        configurations, separate = parse_configurations(self.configurations, None, configure(RunConfig(), shared))
        return Plan(configurations, tuple(range(self.seeds)), self.one_split is None, separate)


PLACES = ("low", "middle", "high")
# Three values each of what the remedies for imbalance leave open, tried on one split, with two trained layers to save time.
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
CHOSEN = {  # which of them the validation part chose (docs/paper.md)
    "focal": "low",
    "weighted": "middle",
    "over": "high",
    "under": "low",
    "adjusted": "high",
    "balanced": "middle",
    "ldam": "low",
    "focal-weighted": "low",
    "hurdle": "high",
}

QUESTIONS = {
    "tuning": Question(
        (
            "T1",
            *(
                f"{name}-{at}={flags} {value}"
                for name, (flags, values) in TUNED.items()
                for at, value in zip(PLACES, values, strict=True)
            ),
        ),
        seeds=1,
        freeze_layers=4,
    ),
    "sharing": Question(("T1", "T1s", "T3", "T3s"), timed=True),
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
        ("T1", *(f"{name}={flags} {values[PLACES.index(CHOSEN[name])]}" for name, (flags, values) in TUNED.items()))
    ),
    # What the best recipe may be made of. Validation parts choose.
    "ingredients": Question(
        (
            "T3",
            "T3-head=--loss focal --truncate head",
            "T3-attention=--loss focal --head attention",
            "T3-tag=--loss focal --rationale tag",
            "T3-attention-tag=--loss focal --head attention --rationale tag",
            "T3-mean-attention=--loss focal --trunk mean --head attention",
            "T3-mean-attention-tag=--loss focal --trunk mean --head attention --rationale tag",
        )
    ),
    "predecessor": Question(
        (
            "T1",
            "T3",
            f"bi={BI_ENCODER} --rationale tag -o rationale.weight .5",
            f"bi-no-rationale={BI_ENCODER}",
            f"bi-no-attention={BI_ENCODER} --rationale tag -o rationale.weight .5 -o trunk.attention false",
        ),
        keep_models=True,
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
        ("T1m=--loss ce " + MPNET, f"bim={BI_ENCODER} --rationale tag -o rationale.weight .5 {MPNET}"), 2, keep_models=True
    ),
    # On one split, so that the probabilities of its five models can be averaged, and one that no other comparison has.
    "best": Question((f"best={as_flags(PRESETS['best'])} {FAST}",), seeds=5, one_split=5, after="imbalance"),
}


def known_runs(folders: Iterable[Path]) -> dict[str, Path]:
    """The finished runs of comparisons, by all that they depend on; of equal ones, one whose size and speed are known."""
    known: dict[str, Path] = {}
    for folder in folders:
        for there in sorted(path.parent for path in folder.glob(f"{RUNS}/*/{record.RUN}")):
            found = record.read(there, model=False)
            same = _key(configure(RunConfig(), found.config), found.plugins)
            if same not in known or found.model is not None:
                known[same] = there
    return known


def _key(config: RunConfig, plugins: Mapping[str, Mapping[str, str]]) -> str:
    apart = {*NOT_COMPARED} - {"seed", "split_seed"}
    settings = {name: value for name, value in to_dict(config).items() if name not in apart}
    others = {kind: dict(each) for kind, each in plugins.items() if each["distribution"] != OURS}  # with the hash of their files
    return json.dumps([settings, others], sort_keys=True)


def prepare(question: Question, out: Path, registry: Registry, known: dict[str, Path]) -> None:
    """Copy the runs that are known; `compare` checks that they are what it would make."""
    (out / RUNS).mkdir(parents=True, exist_ok=True)
    plan = question.plan
    for name, seed in plan.runs():
        config = plan.config(name, seed)
        plugins = choose_plugins(config, registry)
        providers = {kind: provenance(entry) for kind, entry in plugins.chosen.items()}
        there = known.get(_key(replace(config, options=all_options(plugins)), providers))
        if there is not None and not (place := run_folder(out, name, seed)).exists():
            with staged_folder(place) as folder:  # of a call that is stopped here, nothing is taken for a run
                shutil.copytree(there, folder, dirs_exist_ok=True)
            click.echo(f"{place.name} is a copy of {there.parents[1].name}'s {there.name}", err=True)


def finished(name: str) -> bool:
    """Whether all runs of a question are among the committed results."""
    folder = RESULTS / f"reddit-{name}"
    return all((run_folder(folder, *run) / record.RUN).exists() for run in QUESTIONS[name].plan.runs())


def is_preset() -> bool:
    """Whether `--preset best` is what the committed results chose."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
    from blocks.recipe import best_recipe

    return best_recipe() == preset("best")


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice([*QUESTIONS]))
@click.option("--jobs", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="where the folders are made  [benchmarks/results]")
def main(names: tuple[str, ...], jobs: int, out: Path) -> None:
    """Make the comparisons NAMES, one after the other."""
    for name in names:
        after = QUESTIONS[name].after
        if after and not finished(after):  # asked before any run: what is chosen must also reach the preset
            what = f"{after} chooses a part of it, and lacks runs in {RESULTS}"
            raise click.ClickException(f"{name}: {what}; measure it, and put what docs/paper.md then says into the preset")
        if after and not is_preset():
            raise click.ClickException(f"{name}: --preset best is not what {after} chose; put what docs/paper.md says into it")
    registry = load_registry()
    for name in names:
        question, folder = QUESTIONS[name], out / f"reddit-{name}"
        others = () if question.timed else (*RESULTS.glob("reddit-*"), *out.glob("reddit-*"))
        prepare(question, folder, registry, known_runs(others))
        shared = [word for name, value in question.flags.items() for word in (f"--{name}", value)]
        seeds = [*(["--resplit"] if question.plan.resplit else []), "--seeds", str(question.seeds)]
        keep = ["--keep-models"] * question.keep_models
        command = [sys.executable, "-m", "empathy_kit", "compare", *question.configurations, *shared, *seeds, *keep]
        if code := subprocess.run([*command, "--jobs", str(jobs), "--out", str(folder)], check=False).returncode:
            raise click.ClickException(f"{name}: compare ended with exit code {code}; the same command continues it")


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        raise SystemExit(f"Error: {error}") from None
