"""How much time does the kit's trunk save? Against every post padded to 64 tokens, two encoder calls and torch's own GRU.

    python benchmarks/padding.py DATA --epochs 5 > benchmarks/results/padding.json

Two trainings of the same model from the same weights take turns, epoch by epoch, in one process, so that both meet the same
machine. Batches hold the same pairs in the same order, and everything else is the default recipe; only the dropout is drawn
anew for each.
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
from empathy_kit.core.batch import Texts
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.engine import Engine, Epoch, Step
from empathy_kit.core.metrics import macro_f1
from empathy_kit.core.recurrence import GRU
from empathy_kit.core.trunk import Trunk
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import PARTS, make_split
from empathy_kit.encoders import encoder_source
from empathy_kit.plugins import load_registry
from empathy_kit.recipes import build_criteria, build_model, build_recipe, build_tasks, choose_plugins, tokenize


class TorchGRU(GRU):
    """The same GRU, run and differentiated by torch alone."""

    def states(self, packed: PackedSequence) -> PackedSequence:
        """The top layer's state at every time step."""
        outputs: PackedSequence = self(packed)[0]
        return outputs


class PlainTrunk(Trunk):
    """The trunk with one encoder call a side, over everything that it is given."""

    def encode(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Encoder states of both posts."""
        seeker = self.encoder(input_ids=texts.seeker, attention_mask=texts.seeker_mask.long()).last_hidden_state
        response = self.encoder(input_ids=texts.response, attention_mask=texts.response_mask.long()).last_hidden_state
        return seeker, response


@dataclass
class Contender:
    """One of the two ways, and what it has done so far."""

    name: str
    engine: Engine
    epochs: Iterator[Step | Epoch]
    done: list[Epoch]


def _contender(name: str, config: RunConfig, train: list[Any], validation: list[Any], corpus: Any, split: Any) -> Contender:
    padded = name == "padded"
    torch.manual_seed(config.seed)
    plugins = choose_plugins(config, load_registry())
    source = encoder_source(config.encoder)
    encoder, tokenizer = load_encoder(source.location, local=source.local, attention_dropout=config.attention_dropout)
    tasks = build_tasks(corpus, split)
    model = build_model(config, plugins, tasks, encoder)
    if padded:
        model.trunk.__class__ = PlainTrunk  # the same modules and weights, another `encode`
        model.trunk.gru.__class__ = TorchGRU
    engine = Engine(
        model,
        build_criteria(plugins, tasks, model),
        pad_id=tokenizer.pad_token_id,
        gold="never",
        cpu=True,
        pad_to=config.max_tokens if padded else None,
    )
    events = engine.fit(train, validation, build_recipe(config, plugins), seed=config.seed)
    return Contender(name, engine, events, [])


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
    source = encoder_source(config.encoder)
    encoder, tokenizer = load_encoder(source.location, local=source.local)
    tokens, _ = tokenize(config, tokenizer, encoder).encode(corpus.pairs)
    parts = {name: [tokens[at] for at in split.part(name)] for name in PARTS}
    train = parts["train"][:pairs]
    both = [_contender(name, config, train, parts["validation"], corpus, split) for name in ("kit", "padded")]
    for _ in range(epochs):
        for contender in both:
            _one_epoch(contender)
    for contender in both:
        _one_epoch(contender)  # nothing is left but to restore the best weights
    kit, padded = both
    ratios = [ours.pairs_per_second / theirs.pairs_per_second for ours, theirs in zip(kit.done, padded.done, strict=True)]
    whole = [sum(epoch.seconds for epoch in contender.done) for contender in both]
    result = {
        "what": "training speed, the kit against all posts padded to max_tokens, two encoder calls and torch's GRU, interleaved",
        "data": {"name": corpus.name, "train": len(train), "validation": len(parts["validation"]), "test": len(parts["test"])},
        "config": {"encoder": config.encoder, "batch_size": config.batch_size, "max_tokens": config.max_tokens, "seed": seed},
        "machine": {**machine(), "threads": torch.get_num_threads(), "dtype": "float32"},
        "pairs_per_second": {each.name: [round(epoch.pairs_per_second, 2) for epoch in each.done] for each in both},
        "faster_in_training": {"median": round(statistics.median(ratios), 3), "epochs": [round(ratio, 3) for ratio in ratios]},
        "seconds_with_validation": {each.name: round(time, 1) for each, time in zip(both, whole, strict=True)},
        "test": {each.name: _test(each.engine, parts["test"]) for each in both},
    }
    click.echo(json.dumps(result, indent=2))


def _test(engine: Engine, pairs: list[Any]) -> dict[str, dict[str, float]]:
    import numpy as np

    scores = {}
    for index, (name, guess) in enumerate(engine.predict(pairs).levels().items()):
        true = np.array([pair.levels[index] for pair in pairs])
        scores[name] = {"accuracy": round(float((true == guess).mean()), 4), "macro_f1": round(macro_f1(true, guess, 3), 4)}
    return scores


if __name__ == "__main__":
    main()
