"""A finished run's model, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from empathy_kit.config import RunConfig, configure
from empathy_kit.contracts import Task
from empathy_kit.errors import KitError
from empathy_kit.plugins import OURS, Registry
from empathy_kit.runs import record
from empathy_kit.runs.build import ready
from empathy_kit.runs.choose import LIBRARIES, choose_with, compare_providers, library_versions, provenance

if TYPE_CHECKING:
    from empathy_kit.core.predictor import Predictor
    from empathy_kit.core.tokens import Tokenization


@dataclass(frozen=True)
class Loaded:
    """A finished run's model."""

    record: record.Record
    predictor: Predictor
    tokenization: Tokenization = field(repr=False)
    warnings: tuple[str, ...] = ()  # on what may change its numbers: other versions of plugins, another precision
    code: Mapping[str, str] = field(default_factory=dict, repr=False)  # versions of what computes; of plugins their files' hash


def load(folder: Path, registry: Registry, *, device: Literal["auto", "cpu"] | None = None) -> Loaded:
    """Rebuild a finished run's model from its folder: no network, no pickle, every byte compared with the manifest.

    Args:
        folder: the run.
        registry: where its plugins are.
        device: where to compute; None takes the device of the run's configuration.

    Raises:
        KitError: the run was changed or has no model, or its plugins are missing or do not know one of its options.
    """
    result = record.read_with_model(folder)
    config = configure(RunConfig(), result.config)
    try:
        counts = result.split["class_counts"]["train"]
        tasks = [Task(task.name, task.labels, tuple(map(int, counts[task.name]))) for task in result.tasks.tasks]
    except (KeyError, TypeError, ValueError):
        raise KitError(f"{folder / record.RUN}: {record.MALFORMED}") from None
    warnings = compare_providers(result.plugins, config, registry)
    plugins = choose_with(warnings, config, registry)
    if result.oracle:
        warnings += ("the run was an ORACLE: it was scored with annotated spans, which it does not see when it predicts",)
    predictor, tokenization, others = ready(config, plugins, tasks, folder / record.MODEL, device or config.device)
    foreign = [entry for entry in plugins.chosen.values() if entry.distribution != OURS]
    code = {
        **{name: version for name, version in library_versions().items() if name in LIBRARIES},
        **{str(entry.kind): " ".join(provenance(entry).values()) for entry in foreign},
    }
    return Loaded(result, predictor, tokenization, (*warnings, *others), code)
