"""`python -m benchmarks.torture`: run experiments, and write their counts."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Before torch and tokenizers are imported: processes are forked from this one, and threads do not survive that.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import machine
from benchmarks.torture import circumstances, damage, folders, full_disk, kills, settings, tables
from benchmarks.torture.trials import Count, Experiment, conduct_in
from benchmarks.torture.world import World
from tests.conftest import make_cache

RESULTS = Path(__file__).parents[1] / "results" / "torture"
EXPERIMENTS: dict[str, Experiment] = {
    **kills.EXPERIMENTS,
    **damage.EXPERIMENTS,
    **full_disk.EXPERIMENTS,
    **circumstances.EXPERIMENTS,
    **tables.EXPERIMENTS,
    **settings.EXPERIMENTS,
    **folders.EXPERIMENTS,
}


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--count", type=click.IntRange(1), help="how many trials  [the nightly size of each]")
@click.option("--seed", default=0, help="which trials  [0]")
@click.option("--first", default=0, help="the number of the first trial  [0]")
@click.option("--jobs", type=click.IntRange(1), default=1, help="trials at once, each in a world of its own  [1]")
@click.option("--few", is_flag=True, help="the small part of every experiment, for the tests")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="where the counts are written")
@click.option("--work", type=click.Path(path_type=Path), help="a folder to work in, which stays  [a temporary one]")
def main(
    names: tuple[str, ...], count: int | None, seed: int, first: int, jobs: int, few: bool, out: Path, work: Path | None
) -> None:
    """Run experiments NAME, or all; without any, list them. The exit code is 1 where a trial was not survived."""
    if not names:
        for name, experiment in EXPERIMENTS.items():
            click.echo(f"{name:16} {experiment.count:6,}  {experiment.what}")
        return
    unknown = [name for name in names if name != "all" and name not in EXPERIMENTS]
    if unknown:
        raise click.UsageError(f"{unknown[0]}: no such experiment, expected all or {', '.join(EXPERIMENTS)}")
    chosen = [name for name in EXPERIMENTS if EXPERIMENTS[name].few or not few] if "all" in names else list(names)
    if any(EXPERIMENTS[name].preload for name in chosen):
        full_disk.preload()
    out.mkdir(parents=True, exist_ok=True)
    lost = 0
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        worlds = prepare(work or Path(temporary), jobs, few=few)
        for name in chosen:
            number = count or (EXPERIMENTS[name].few if few else EXPERIMENTS[name].count)
            lost += run(name, EXPERIMENTS[name], worlds, seed, range(first, first + number), out)
    if lost:
        sys.exit(1)


def prepare(folder: Path, jobs: int = 1, *, few: bool = False) -> list[World]:
    """Import all that children need, and give this process a cache of its own; for the tests, with the compiled kernel."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["EMPATHY_KIT_CACHE"] = str(make_cache(folder / "cache") if few else folder / "cache")
    from empathy_kit.runs.quiet import quiet_libraries

    quiet_libraries()
    import transformers.models.roberta.modeling_roberta  # noqa: F401

    if not few:
        import torch.onnx  # noqa: F401

    worlds = [World(folder.resolve() / f"world-{job}", few) for job in range(jobs)]
    for world in worlds:
        world.folder.mkdir(exist_ok=True)
    return worlds


def run(name: str, experiment: Experiment, worlds: Sequence[World], seed: int, numbers: range, out: Path) -> int:
    """Conduct one experiment and write its count; how many trials were lost."""
    if experiment.limit is not None:
        numbers = numbers[: experiment.limit(worlds[0])]
    found = Count()
    for number, ending, is_lost in conduct_in(worlds, name, experiment, seed, numbers):
        found.add(number, ending, is_lost)
        if is_lost:
            repeat = f"python -m benchmarks.torture {name} --seed {seed} --first {number} --count 1"
            click.echo(f"{name}: trial {number} lost: {ending}\n  repeat: {repeat}", err=True)
    from empathy_kit import __version__

    content = {
        "experiment": experiment.what,
        "survived_means": experiment.survived,
        "command": f"python -m benchmarks.torture {name} --count {len(numbers)} --seed {seed}",
        "seed": seed,
        **found.as_value(),
        "kit": __version__,
        "machine": machine(),
    }
    (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    click.echo(f"{name}: {found.tried} tried, {found.tried - len(found.lost)} survived ({dict(found.endings)})")
    return len(found.lost)


if __name__ == "__main__":
    main()
