"""What only a run would refuse, option values and tables without spans, found before a plan with it is written."""

from __future__ import annotations

from collections.abc import Container, Mapping

from empathy_kit.config import RunConfig
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.splits import Split, take, thin_out
from empathy_kit.errors import KitError
from empathy_kit.plugins import OURS, Registry
from empathy_kit.runs.build import build_tasks, without_spans
from empathy_kit.runs.choose import Plugins, choose_plugins


def check_built(
    configurations: Mapping[str, RunConfig], separate: Container[str], registry: Registry, corpus: Corpus, split: Split
) -> None:
    """Build what configurations give options for: the losses, the sampler, the heads, and a trunk of the kit's.

    A name in a plan keeps its configuration, and one that cannot be built could not be corrected. Without options nothing is
    built, and torch is not loaded. Other people's trunks and injectors need the encoder: their runs build them first.

    Raises:
        KitError: a builder refuses an option, or a rationale that learns from spans finds none in any training pair.
    """
    for name, config in configurations.items():
        try:
            plugins = choose_plugins(config, registry)
            if config.options:
                _build(config, plugins, corpus, split)
            _check_spans(config, plugins, name in separate, corpus, split)
        except KitError as error:
            raise KitError(f"compare {name}: {error}") from None


def _check_spans(config: RunConfig, plugins: Plugins, apart: bool, corpus: Corpus, split: Split) -> None:
    rationale = plugins.chosen["rationale"]
    # All of the kit's but `none` learn from them. Whether another's predicts spans is known only when it is built.
    ours = rationale.distribution == OURS
    learns = rationale.spec.name != RunConfig().rationale if ours else plugins.rationale.gold != "never"
    if not learns:
        return
    schema = config.schema.select(config.tasks)
    train = take(corpus, thin_out(corpus, split, config.train_share, schema).train)
    without = [name for name in schema.names if not any(pair.spans[corpus.schema.index(name)] for pair in train)]
    if without if apart else without == list(schema.names):  # a task's own model has the spans of this task alone
        instead = "name configurations without rationales, such as T1 and T3, or use a table with spans"
        raise without_spans(rationale, without, instead)


def _build(config: RunConfig, plugins: Plugins, corpus: Corpus, split: Split) -> None:
    import torch

    from empathy_kit.testing.stand_ins import PostEncoder, Summaries

    given = {route.partition(".")[0] for route in config.options}
    schema = config.schema.select(config.tasks)
    split = thin_out(corpus, split, config.train_share, schema)
    tasks = build_tasks(corpus, split, schema)
    if "loss" in given:
        for task in tasks:
            plugins.build("loss", task, task=task.name)
    if "sampler" in given:
        positions = [corpus.schema.index(name) for name in schema.names]
        levels = [[pair.levels[at] for at in positions] for pair in take(corpus, split.train)]
        plugins.build("sampler", tasks, torch.tensor(levels, dtype=torch.int64))
    if given & {"trunk", "head"} and plugins.chosen["trunk"].distribution == OURS:
        with torch.device("meta"):  # its weights take no memory, however wide it is
            width = plugins.build("trunk", PostEncoder(), Summaries()).width
        if "head" in given:
            for task in tasks:
                plugins.build("head", task, width, task=task.name)
