"""Validation scores of other recipes. Choosing a recipe by its test scores would bias the result.

Compare them, and read only the validation scores from the comparison's folder. This made results/recipes.md (one line):

    empathy-kit compare --data reddit --resplit --seeds 1 --precision bf16 --out comparisons/recipes
        base= "lr4=--encoder-lr 1e-4" "frz2=--freeze-layers 2" "ep8=--epochs 8 --patience 8" "tok96=--max-tokens 96"
    python benchmarks/recipes.py comparisons/recipes > benchmarks/results/recipes.md
"""

from __future__ import annotations

from pathlib import Path

import click

from empathy_kit.comparison.finished import read_finished
from empathy_kit.comparison.plan import NOT_COMPARED
from empathy_kit.config import RunConfig, flag, to_dict


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(folder: Path) -> None:
    """Print the validation scores of every run, as Markdown."""
    default = to_dict(RunConfig())
    results = read_finished(folder)
    names = results.tasks.names
    click.echo(f"| recipe | seed | {' | '.join(names)} | mean macro F1 | loss | epoch |")
    click.echo("| --- |" + " --- |" * (len(names) + 4))
    for runs in results.runs.values():
        for run in (model for each in runs for model in each.models):
            config, training = run.record.config, run.record.training
            left_out = (*NOT_COMPARED, "data", "options", "schema")
            changed = [
                f"{flag(name)} {config[name]}" for name in default if name not in left_out and config[name] != default[name]
            ]
            f1, accuracy = training["validation_macro_f1"], training["validation_accuracy"]
            cells = [f"{accuracy[name]:.3f} / {f1[name]:.3f}" if name in f1 else "-" for name in names]
            mean = sum(f1.values()) / len(f1)
            epoch = f"{training['best_epoch']} of {training['epochs']}"
            row = [f"`{' '.join(changed)}`", str(run.seed), *cells, f"{mean:.3f}", f"{training['validation_loss']:.3f}", epoch]
            click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
