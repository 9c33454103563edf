"""`empathy-kit export`: a run's model as one ONNX graph, which predicts without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from empathy_kit.cli.flags import plugin_files
from empathy_kit.runs.quiet import quiet_libraries

if TYPE_CHECKING:
    from empathy_kit.inference.export import Exported


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="the folder, which must not exist")
@click.option("--int8", is_flag=True, help="compute in int8, where that costs next to nothing in score")
@click.option("--no-scores", is_flag=True, help="do not read the run's data to compare scores on its test part")
@plugin_files
def export(run: str, out: Path, int8: bool, no_scores: bool, plugin_files: tuple[Path, ...]) -> None:
    """Write the model of RUN as an ONNX graph, and check it.

    RUN is a run's folder, or hub:user/name of a published one. `predict`, `evaluate`, `publish` and `empathy_kit.load` take the
    exported folder as they take a run; predicting with it needs neither torch nor transformers. The graph's probabilities are
    compared with the model's. Where the data of a local run can be read, the scores on its test part are compared too.
    """
    from empathy_kit.cli.console import KitConsole

    quiet_libraries()
    progress = KitConsole(stderr=True)
    with progress.status("exporting") if progress.is_interactive else nullcontext():
        from empathy_kit.inference import export as exporting
        from empathy_kit.plugins import load_registry

        done = exporting.export(run, out, load_registry(plugin_files), int8=int8, scores=not no_scores)
    for warning in done.warnings:
        progress.print(f"warning: {warning}", style="bold yellow", highlight=False, soft_wrap=True)
    console = KitConsole()
    for line in lines(done):
        console.print_line(line)


def lines(done: Exported) -> Iterator[str]:
    """What was written, and what was checked."""
    told = done.description
    size = sum(path.stat().st_size for path in done.folder.iterdir()) / 2**20
    what = f"int8 ({told['in_int8']})" if told["precision"] == "int8" else "float32"
    yield f"{done.folder}: {told['title']}, {what}, {size:.1f} MiB"
    yield f"largest difference of a probability from the model's: {told['apart']:.1e}"
    if "scores" in told:
        yield from _score_lines(told["scores"])


def _score_lines(scores: dict[str, Any]) -> Iterator[str]:
    yield f"on the {scores['pairs']:,} pairs of the run's test part, before -> after:"
    for task, before in scores["before"].items():
        after = scores["after"][task]
        pairs = [("accuracy", before["accuracy"], after["accuracy"]), ("macro F1", before["macro_f1"], after["macro_f1"])]
        recalls = zip(before["recall"], after["recall"], strict=True)
        pairs += [(f"recall of level {level}", *both) for level, both in enumerate(recalls)]
        yield f"  {task}: " + ", ".join(f"{name} {was:.3f} -> {now:.3f}" for name, was, now in pairs)
