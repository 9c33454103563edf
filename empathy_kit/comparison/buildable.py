"""Option values that only a plugin's builder refuses, found before a plan with them is written."""

from __future__ import annotations

from collections.abc import Mapping

from empathy_kit.config import RunConfig
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.splits import Split, take, thin_out
from empathy_kit.errors import KitError
from empathy_kit.plugins import OURS, Registry
from empathy_kit.runs.build import build_tasks
from empathy_kit.runs.choose import Plugins, choose_plugins


def check_built(configurations: Mapping[str, RunConfig], registry: Registry, corpus: Corpus, split: Split) -> None:
    """Build what configurations give options for: the losses, the sampler, the heads, and a trunk of the kit's.

    A name in a plan keeps its configuration, and one that cannot be built could not be corrected. Without options nothing is
    built, and torch is not loaded. Other people's trunks and injectors need the encoder: their runs build them first.

    Raises:
        KitError: a builder refuses an option.
    """
    for name, config in configurations.items():
        if not config.options:
            continue
        try:
            _build(config, choose_plugins(config, registry), corpus, split)
        except KitError as error:
            raise KitError(f"compare {name}: {error}") from None


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
