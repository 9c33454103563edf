"""Training speed of a base-size encoder: unpadded and cached, compared with padded and eager.

    EMPATHY_KIT_REDDIT=FOLDER python benchmarks/mpnet.py > benchmarks/results/mpnet.json

Training steps of the default recipe on the same batches, 6 of 12 layers frozen, take turns in one process, so that all run under
the same conditions. Contenders: every post padded to the longest that the recipe allows, transformers' own attention, frozen
layers recomputed (the usual way); the same with batches of similar length, padded to their longest post; and the kit. All start
from the same weights, and their logits are compared before the first step.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

import click
import torch
from machine import machine

from empathy_kit.config import RunConfig, configure
from empathy_kit.core.batch import Examples, collate_texts, training_order
from empathy_kit.core.state import TrainState
from empathy_kit.core.trainer import Trainer
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take
from empathy_kit.plugins import load_registry
from empathy_kit.runs.build import (
    build_model,
    build_objective,
    build_tasks,
    build_tokenization,
    build_trainer,
    open_encoder,
    read_posts,
    remember_states,
)
from empathy_kit.runs.choose import choose_plugins


@dataclass
class Contender:
    """One way to train, and the speed of each of its steps."""

    name: str
    trainer: Trainer
    state: TrainState
    speeds: list[float]  # pairs per second, one per step

    def step(self, examples: Examples) -> None:
        """One training step."""
        started = time.perf_counter()
        self.trainer.step(examples, self.state)
        self.speeds.append(len(examples) / (time.perf_counter() - started))


def contender(name: str, config: RunConfig, corpus: Any, split: Any) -> tuple[Contender, Examples]:
    """A model with the same weights as all others, and one way to read its posts."""
    torch.manual_seed(config.seed)
    plugins = choose_plugins(config, load_registry())
    encoder, tokenizer = open_encoder(config)
    tasks = build_tasks(corpus, split, corpus.schema)
    model = build_model(config, plugins, tasks, encoder)
    tokenization = build_tokenization(config, tokenizer, encoder)
    examples, _ = read_posts(config, tokenization, corpus)
    trainer = build_trainer(config, plugins, tasks, tokenization, examples, examples, torch.device("cpu"))
    if name == "kit":
        remember_states(model, examples.texts)
    else:
        posts: Any = model.trunk.encoder
        posts.unpadded = False
        trainer.pad_to = config.max_tokens if name == "padded to the limit" else None
    state = trainer.start(model, build_objective(config, plugins, tasks, model), seed=config.seed)
    return Contender(name, trainer, state, []), examples


def deviation(contenders: list[Contender], examples: Examples) -> float:
    """The largest difference of any two contenders' logits."""
    logits = []
    for each in contenders:
        texts = collate_texts(examples.texts, each.trainer.pad_id, each.trainer.pad_to)
        with torch.inference_mode():
            logits.append(torch.stack(list(each.state.model.eval()(texts).logits.values())))
    return max(float((one - other).abs().max()) for one in logits for other in logits)


@click.command()
@click.option("--encoder", default="mpnet")
@click.option("--freeze-layers", default=6)
@click.option("--steps", default=12)
@click.option("--pairs", default=512, help="of the training part")
def main(encoder: str, freeze_layers: int, steps: int, pairs: int) -> None:
    """Print the comparison as JSON."""
    data = os.environ.get("EMPATHY_KIT_REDDIT") or "sample"
    config = configure(RunConfig(), {"data": data, "encoder": encoder, "freeze_layers": freeze_layers, "device": "cpu"})
    corpus = load_corpus(config.data, config.schema)
    split = make_split(corpus, config.split, 0)
    shown = type(corpus)(corpus.name, take(corpus, split.train[:pairs]), corpus.sources, schema=corpus.schema)
    names = ("padded to the limit", "padded to the longest", "kit")
    found = [contender(name, config, shown, split=type(split)("grouped", 0, tuple(range(len(shown))), (), ())) for name in names]
    contenders, examples = [each for each, _ in found], found[0][1]
    lengths = [pair.tokens for pair in examples.texts]
    order = training_order(lengths, torch.arange(len(examples)), config.batch_size, torch.Generator().manual_seed(0))
    apart = deviation(contenders, examples.take(order[0]))
    for number in range(steps + 1):
        batch = examples.take(order[number % len(order)])
        for each in contenders:
            each.step(batch)
        click.echo(f"step {number}: " + ", ".join(f"{each.name} {each.speeds[-1]:.2f}" for each in contenders), err=True)
    speeds = {each.name: each.speeds[1:] for each in contenders}  # the first step warms up
    ratios = {
        name: [ours / theirs for ours, theirs in zip(speeds["kit"], speeds[name], strict=True)] for name in names if name != "kit"
    }
    result = {
        "what": f"training steps of {encoder}, {freeze_layers} layers frozen, on the same batches in turn",
        "data": corpus.name,
        "pairs_per_second": {name: {"median": round(statistics.median(each), 2)} for name, each in speeds.items()},
        "kit_faster": {
            name: {"median": round(statistics.median(each), 2), "min": round(min(each), 2), "max": round(max(each), 2)}
            for name, each in ratios.items()
        },
        "largest_logit_difference": apart,
        "settings": {"batch_size": config.batch_size, "max_tokens": config.max_tokens, "steps": steps, "pairs": len(examples)},
        "machine": {**machine(), "threads": torch.get_num_threads()},
    }
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
