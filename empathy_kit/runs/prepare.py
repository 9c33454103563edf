"""From pairs and their split to everything that training needs; shared by runs and training in memory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_kit.config import RunConfig
from empathy_kit.contracts import Task
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.splits import Split
from empathy_kit.runs.build import (
    build_model,
    build_objective,
    build_tasks,
    build_tokenization,
    build_trainer,
    check_model,
    check_spans,
    encoder_warnings,
    marked_tasks,
    read_posts,
    remember_states,
)
from empathy_kit.runs.choose import Plugins

if TYPE_CHECKING:
    from torch import device, nn

    from empathy_kit.core.batch import Examples
    from empathy_kit.core.model import Model
    from empathy_kit.core.objective import Objective
    from empathy_kit.core.processes import Processes
    from empathy_kit.core.tokens import Tokenization, Truncation
    from empathy_kit.core.trainer import Trainer


@dataclass(frozen=True)
class Prepared:
    """The pairs are tokenised, and the model is built; training comes next."""

    tasks: list[Task]
    tokenization: Tokenization
    truncation: Truncation
    validation: Examples
    test: Examples
    model: Model
    objective: Objective
    trainer: Trainer
    marked: frozenset[str]  # the tasks of which a training pair has an annotated span
    device: device
    states: Path | None  # where the frozen layers' states of all posts lie
    warnings: tuple[str, ...]  # for the user


def prepare(
    config: RunConfig,
    plugins: Plugins,
    corpus: Corpus,
    split: Split,
    encoder: nn.Module,
    tokenizer: Any,
    processes: Processes | None = None,
) -> Prepared:
    """Tokenise every pair, and build the model and its trainer. The caller has seeded torch: first weights are drawn here.

    Where the split has no validation part, the training pairs choose the epoch.

    Raises:
        KitError: plugins cannot be built or do not fit together, or the encoder or the device does not support a setting.
    """
    from empathy_kit.core.precision import find_device, is_emulated

    tokenization = build_tokenization(config, tokenizer, encoder)
    examples, truncation = read_posts(config, tokenization, corpus)
    train, validation, test = map(examples.take, (split.train, split.validation or split.train, split.test))
    tasks = build_tasks(corpus, split, config.schema.select(config.tasks))
    model = build_model(config, plugins, tasks, encoder)
    objective = build_objective(config, plugins, tasks, model)
    warnings: tuple[str, ...] = ()
    if check_model(plugins, tasks, model, tokenization) or plugins.rationale.gold != "never":
        warnings += check_spans(plugins, tasks, train)
    device = find_device(config.device)
    if is_emulated(device, config.precision):
        warnings += (f"precision {config.precision}: this processor has no instructions for it; precision no is faster here",)
    trainer = build_trainer(config, plugins, tasks, tokenization, train, validation, device, processes)
    with nullcontext() if processes is None else processes.first_here("states"):
        # Elsewhere the encoder reads posts with their padding, from the first layer on.
        states = remember_states(model, examples.texts) if device.type == "cpu" else None
    warnings += encoder_warnings(model)
    marked = marked_tasks(tasks, train)
    return Prepared(
        tasks, tokenization, truncation, validation, test, model, objective, trainer, marked, device, states, warnings
    )
