"""Training in memory: pairs in, a model out, without a record or a folder."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_kit.config import RunConfig, configure, to_dict
from empathy_kit.contracts import Task
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.splits import Split
from empathy_kit.plugins import Registry, load_registry
from empathy_kit.runs.build import open_encoder, ready
from empathy_kit.runs.choose import all_options, choose_plugins, choose_with, compare_providers, provenance
from empathy_kit.runs.prepare import prepare

if TYPE_CHECKING:
    from empathy_kit.core.predictor import Predictor
    from empathy_kit.core.tokens import Tokenization

_CLOCKS = ("pairs_per_second", "seconds")
_ALONE = threading.Lock()
"""Torch has one random state per process, which two trainings at once would share."""


@dataclass(frozen=True)
class Trained:
    """A trained model as plain values and bytes: its settings and its files. Pickling it pickles no module."""

    config: Mapping[str, Any]  # all defaults written out
    providers: Mapping[str, Mapping[str, str]]  # of every plugin, as in a record
    tasks: tuple[Task, ...]
    files: Mapping[str, bytes] = field(repr=False)  # safetensors, JSON and the tokenizer's
    history: tuple[Mapping[str, Any], ...]  # per epoch, without clocks
    warnings: tuple[str, ...]

    @cached_property
    def ready(self) -> Ready:
        """The model, ready to predict; it is built when it is first needed.

        Raises:
            KitError: a plugin that is missing.
        """
        return rebuild(self, load_registry())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "ready"}


@dataclass(frozen=True)
class Ready:
    """A model that predicts."""

    predictor: Predictor
    tokenization: Tokenization
    warnings: tuple[str, ...]  # on what may change its numbers: other versions of plugins, another precision


def train(config: RunConfig, registry: Registry, corpus: Corpus, split: Split) -> Trained:
    """Train on the corpus' training part, and choose the epoch by its validation part.

    The result does not depend on the random states of the process, which are restored.

    Raises:
        KitError: a fault in the configuration or the pairs that the user can fix.
    """
    plugins = choose_plugins(config, registry)
    from empathy_kit.core import checkpoint

    with _own_randomness(config.seed):
        encoder, tokenizer = open_encoder(config)
        prepared = prepare(config, plugins, corpus, split, encoder, tokenizer)
        with plugins.blamed():
            state = prepared.trainer.start(prepared.model, prepared.objective, seed=config.seed)
            for _ in prepared.trainer.fit(state):
                pass
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        checkpoint.save(folder, prepared.model, prepared.objective, tokenizer, encoder)
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    history = ({name: value for name, value in asdict(epoch).items() if name not in _CLOCKS} for epoch in state.history)
    providers = {str(kind): provenance(entry) for kind, entry in plugins.chosen.items()}
    # The options with their defaults written out, as in a record: a plugin may change a default later.
    settings = to_dict(replace(config, options=all_options(plugins)))
    return Trained(settings, providers, tuple(prepared.tasks), files, tuple(history), prepared.warnings)


def rebuild(trained: Trained, registry: Registry) -> Ready:
    """The model, ready to predict.

    Raises:
        KitError: a plugin that is not in the registry, or does not know an option of the model's.
    """
    config = configure(RunConfig(), trained.config)
    warnings = compare_providers(trained.providers, config, registry)
    plugins = choose_with(warnings, config, registry)
    with _own_randomness(config.seed), tempfile.TemporaryDirectory() as temporary:
        for name, content in trained.files.items():
            (Path(temporary) / name).write_bytes(content)
        predictor, tokenization, others = ready(config, plugins, trained.tasks, Path(temporary), config.device)
    return Ready(predictor, tokenization, (*warnings, *others))


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed the random states of the process, and restore them at the end."""
    import numpy as np
    import torch

    from empathy_kit.core.state import seed_process

    devices = list(range(torch.cuda.device_count()))
    with _ALONE, torch.random.fork_rng(devices):
        python, numpy = random.getstate(), np.random.get_state()
        seed_process(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
