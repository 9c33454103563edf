"""`python -m benchmarks.torture`: run experiments, and write their counts."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

# Before torch and tokenizers are imported: processes are forked from this one, and threads do not survive that.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import machine
from benchmarks.torture import circumstances, damage, folders, full_disk, kills, settings, tables
from benchmarks.torture.trials import Count, Experiment, conduct
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
@click.option("--few", is_flag=True, help="the small part of every experiment, for the tests")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="where the counts are written")
def main(names: tuple[str, ...], count: int | None, seed: int, first: int, few: bool, out: Path) -> None:
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
        world = prepare(Path(temporary), few=few)
        for name in chosen:
            number = count or (EXPERIMENTS[name].few if few else EXPERIMENTS[name].count)
            lost += run(name, EXPERIMENTS[name], world, seed, range(first, first + number), out)
    if lost:
        sys.exit(1)


def prepare(folder: Path, *, few: bool) -> World:
    """Import all that children need, and give this process a cache of its own; for the tests, with the compiled kernel."""
    os.environ["EMPATHY_KIT_CACHE"] = str(make_cache(folder / "cache") if few else folder / "cache")
    from empathy_kit.runs.quiet import quiet_libraries

    quiet_libraries()
    import transformers.models.roberta.modeling_roberta  # noqa: F401

    if not few:
        import torch.onnx  # noqa: F401

    world = World(folder.resolve() / "world", few)
    world.folder.mkdir()
    return world


def run(name: str, experiment: Experiment, world: World, seed: int, numbers: range, out: Path) -> int:
    """Conduct one experiment and write its count; how many trials were lost."""
    if experiment.limit is not None:
        numbers = numbers[: experiment.limit(world)]
    found = Count()
    for number, ending, is_lost in conduct(name, experiment, world, seed, numbers):
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
