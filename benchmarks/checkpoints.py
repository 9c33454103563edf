"""What keeping a run's state costs: how long training waits for a checkpoint, and what its thread computes meanwhile.

    python benchmarks/checkpoints.py > benchmarks/results/checkpoints.json

Steps and checkpoints take turns, so that both are measured under the same conditions. The shares are of five minutes, and of an
epoch of the Reddit data, estimated from the time that a pair takes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from machine import machine

from empathy_kit.config import RunConfig, configure
from empathy_kit.core.state import TrainState
from empathy_kit.core.trainer import Step
from empathy_kit.files import reserved
from empathy_kit.plugins import load_registry
from empathy_kit.runs.checkpoints import Writer, clear, folders
from empathy_kit.runs.choose import choose_plugins
from empathy_kit.runs.prepare import prepare

PAIRS = 2116  # that an epoch of the Reddit data shows


def _training(config: RunConfig) -> tuple[Any, TrainState]:
    import torch

    from empathy_kit.data.sources import load_corpus
    from empathy_kit.data.splits import make_split
    from empathy_kit.runs.build import open_encoder

    torch.manual_seed(config.seed)
    plugins = choose_plugins(config, load_registry())
    corpus = load_corpus(config.data)
    prepared = prepare(
        config, plugins, corpus, make_split(corpus, config.split, config.split_seed, config.schema), *open_encoder(config)
    )
    return prepared.trainer, prepared.trainer.start(prepared.model, prepared.objective, seed=config.seed)


def _measure(config: RunConfig, folder: Path, count: int, between: int) -> dict[str, Any]:
    trainer, state = _training(config)
    waited, computed, written, fresh = [], [], [], []
    with reserved(folder / "run") as partial:
        writer = Writer(partial)
        for steps, event in enumerate((each for each in trainer.fit(state) if isinstance(each, Step)), start=1):
            if steps == between:  # the first steps are slower
                fresh = [state.training_seconds, state.pairs]
            if steps > between and steps % between == 0:
                began = time.process_time()
                writer.save({"position": f"step {event.step}"}, state.state_dict())
                writer.wait()
                computed.append(time.process_time() - began)
                waited.append(writer.seconds)
                newest = folders(partial)[0]
                written.append(sum(path.stat().st_size for path in newest.iterdir()))
                click.echo(f"{newest.name}: training waits {waited[-1]:.2f} s, {computed[-1]:.2f} s computed in all", err=True)
                if len(waited) == count:
                    break
        clear(partial)
    seconds, pairs = state.training_seconds - fresh[0], state.pairs - fresh[1]
    waits, epoch = statistics.median(waited), PAIRS * seconds / pairs
    return {
        "machine": machine(),
        "config": {"encoder": config.encoder, "threads": config.threads, "freeze_layers": config.freeze_layers},
        "bytes": written[-1],
        "pairs_per_second": round(pairs / seconds, 1),
        "training_waits_seconds": round(waits, 3),
        "processor_seconds": round(statistics.median(computed), 3),  # the waiting, and the hashes behind it
        "share_of_5_minutes": round(waits / 300, 5),
        "share_of_an_epoch": round(waits / epoch, 5),
        "epoch_seconds": round(epoch, 1),
    }


@click.command()
@click.option("--encoder", default="minilm")
@click.option("--freeze-layers", default=0)
@click.option("--threads", default=2)
@click.option("--count", default=5, help="checkpoints")
@click.option("--between", default=8, help="steps before each")
def main(encoder: str, freeze_layers: int, threads: int, count: int, between: int) -> None:
    """Print the cost as JSON."""
    import torch

    torch.set_num_threads(threads)
    settings = {"encoder": encoder, "freeze_layers": freeze_layers, "threads": threads, "epochs": 100, "patience": 100}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        click.echo(json.dumps(_measure(configure(RunConfig(), settings), Path(folder), count, between), indent=2))


if __name__ == "__main__":
    main()
