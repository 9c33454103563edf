"""Time that the kit's trunk saves, compared with every post padded to 64 tokens, two encoder calls and torch's own GRU.

    python benchmarks/padding.py DATA --epochs 5 > benchmarks/results/padding.json

Two trainings of the same model from the same weights take turns, epoch by epoch, in one process, so that both run under the same
conditions. Batches hold the same pairs in the same order, and everything else is the default recipe; only dropout is drawn
separately.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import torch
from machine import machine
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from empathy_kit.config import RunConfig, configure
from empathy_kit.contracts import Texts
from empathy_kit.core.batch import Examples
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.recurrence import GRU
from empathy_kit.core.state import Epoch
from empathy_kit.core.trainer import Step
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import PARTS, make_split
from empathy_kit.plugins import load_registry
from empathy_kit.runs.build import (
    build_model,
    build_objective,
    build_tasks,
    build_tokenization,
    build_trainer,
    open_encoder,
    read_posts,
)
from empathy_kit.runs.choose import choose_plugins


class TorchGRU(GRU):
    """The same GRU, run and differentiated by torch alone."""

    def states(self, packed: PackedSequence) -> PackedSequence:
        """The top layer's state at every time step."""
        outputs: PackedSequence = self(packed)[0]
        return outputs


class PlainEncoder(PostEncoder):
    """The post encoder with one call per side, including the padding."""

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Encoder states of both posts."""
        seeker = self.model(input_ids=texts.seeker, attention_mask=texts.seeker_mask.long()).last_hidden_state
        response = self.model(input_ids=texts.response, attention_mask=texts.response_mask.long()).last_hidden_state
        return seeker, response


@dataclass
class Contender:
    """One of the two ways to train, and its results so far."""

    name: str
    epochs: Iterator[Step | Epoch]
    done: list[Epoch]


def _contender(name: str, config: RunConfig, parts: dict[str, Examples], corpus: Any, split: Any) -> Contender:
    padded = name == "padded"
    torch.manual_seed(config.seed)
    plugins = choose_plugins(config, load_registry())
    encoder, tokenizer = open_encoder(config)
    tasks = build_tasks(corpus, split, corpus.schema)
    model = build_model(config, plugins, tasks, encoder)
    if padded:
        model.trunk.encoder.__class__ = PlainEncoder  # the same modules and weights, another forward pass
        model.trunk.gru.__class__ = TorchGRU
    tokenization = build_tokenization(config, tokenizer, encoder)
    cpu = torch.device("cpu")
    trainer = build_trainer(config, plugins, tasks, tokenization, parts["train"], parts["validation"], cpu)
    trainer.pad_to = config.max_tokens if padded else None
    state = trainer.start(model, build_objective(config, plugins, tasks, model), seed=config.seed)
    return Contender(name, trainer.fit(state), [])


def _one_epoch(contender: Contender) -> None:
    for event in contender.epochs:
        if isinstance(event, Epoch):
            contender.done.append(event)
            click.echo(f"{contender.name}: {event}", err=True)
            return


@click.command()
@click.argument("data")
@click.option("--epochs", default=5)
@click.option("--pairs", type=int, help="train on the first pairs only")
@click.option("--seed", default=0)
def main(data: str, epochs: int, pairs: int | None, seed: int) -> None:
    """Print the comparison as JSON."""
    config = configure(RunConfig(), {"epochs": epochs, "patience": epochs, "seed": seed, "split_seed": seed})
    corpus = load_corpus(data)
    split = make_split(corpus, config.split, config.split_seed)
    encoder, tokenizer = open_encoder(config)
    examples, _ = read_posts(config, build_tokenization(config, tokenizer, encoder), corpus)
    parts = {name: examples.take(split.part(name)) for name in PARTS}
    parts["train"] = parts["train"].take(range(pairs or len(parts["train"])))
    both = [_contender(name, config, parts, corpus, split) for name in ("kit", "padded")]
    for _ in range(epochs):
        for contender in both:
            _one_epoch(contender)
    kit, padded = both
    ratios = [ours.pairs_per_second / theirs.pairs_per_second for ours, theirs in zip(kit.done, padded.done, strict=True)]
    whole = [sum(epoch.seconds for epoch in contender.done) for contender in both]
    result = {
        "what": "training speed, the kit against all posts padded to max_tokens, two encoder calls and torch's GRU, interleaved",
        "data": {
            "name": corpus.name,
            "train": len(parts["train"]),
            "validation": len(parts["validation"]),
            "test": len(parts["test"]),
        },
        "config": {"encoder": config.encoder, "batch_size": config.batch_size, "max_tokens": config.max_tokens, "seed": seed},
        "machine": {**machine(), "threads": torch.get_num_threads(), "dtype": "float32"},
        "pairs_per_second": {each.name: [round(epoch.pairs_per_second, 2) for epoch in each.done] for each in both},
        "faster_in_training": {"median": round(statistics.median(ratios), 3), "epochs": [round(ratio, 3) for ratio in ratios]},
        "seconds_with_validation": {each.name: round(time, 1) for each, time in zip(both, whole, strict=True)},
    }
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
