"""One run from data to record, in the order of a paper's method section."""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_kit import __version__
from empathy_kit.config import RunConfig, to_dict
from empathy_kit.contracts import Task
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.errors import KitError
from empathy_kit.files import GLANCE
from empathy_kit.plugins import Registry
from empathy_kit.runs import record
from empathy_kit.runs.build import flags_named, open_encoder, own_criterion
from empathy_kit.runs.choose import (
    Plugins,
    all_options,
    choose_plugins,
    compare_providers,
    compare_versions,
    library_versions,
    provenance,
)
from empathy_kit.runs.describe import describe_data, describe_split
from empathy_kit.runs.prepare import prepare
from empathy_kit.runs.reservation import Reservation, reserved
from empathy_kit.runs.seen import see, write_seen

if TYPE_CHECKING:
    from empathy_kit.core.batch import Examples
    from empathy_kit.core.evaluation import Evaluation
    from empathy_kit.core.state import Epoch
    from empathy_kit.core.tokens import TokenPair, Truncation
    from empathy_kit.core.trainer import Step


@dataclass(frozen=True)
class Opened:
    """The data is read, split and tokenised; training comes next."""

    config: RunConfig
    data: dict[str, Any]  # as in the record
    split: dict[str, Any]  # as in the record
    truncation: Truncation
    oracle: bool
    device: str
    losses: str  # how the kit's own losses are computed
    epoch_pairs: int  # pairs that the sampler shows per epoch
    warnings: tuple[str, ...] = ()  # for the user
    states: Path | None = None  # file of the frozen layers' states of all posts


@dataclass(frozen=True)
class Finished:
    """The run directory is written."""

    record: record.Record
    folder: Path


def run(
    config: RunConfig,
    registry: Registry,
    out: Path,
    *,
    numbered: bool = False,
    wait: float = GLANCE,
    expected: Mapping[str, str] | None = None,
    providers: Mapping[str, Mapping[str, str]] | None = None,
    versions: Mapping[str, str] | None = None,
    keep_model: bool = True,
) -> Generator[Opened | Step | Epoch | Finished, None, None]:
    """Train and test one configuration, yielding an event for each step; the last event is `Finished`.

    Args:
        config: what to run.
        registry: the loaded plugins.
        out: the run directory, which must not exist. Its name is reserved first.
        numbered: if the name is taken, append the first free number.
        wait: seconds to wait for another process that is writing the same run.
        expected: sha256 of the data, the split and the encoder ("data", "split", "encoder") of the run to repeat, if any.
        providers: the provider of each kind's plugin in the run to repeat.
        versions: of the libraries in the run to repeat.
        keep_model: write the model into the run directory next to its scores.

    Raises:
        KitError: a fault in the configuration, the data or the output folder that the user can fix.
    """
    _check_alone()
    warnings = compare_providers(providers, config, registry) if providers else ()
    warnings += compare_versions(versions or {}, library_versions())
    try:
        plugins = choose_plugins(config, registry)
    except KitError as error:
        # Another version may have renamed an option or a plugin of the recorded run.
        raise KitError("; ".join([str(error), *warnings])) from None
    with reserved(out, numbered=numbered, wait=wait) as place:
        yield from _train(config, plugins, place, expected or {}, warnings, keep_model=keep_model)


def _train(
    config: RunConfig,
    plugins: Plugins,
    place: Reservation,
    expected: Mapping[str, str],
    warnings: tuple[str, ...],
    *,
    keep_model: bool,
) -> Generator[Opened | Step | Epoch | Finished, None, None]:
    """The run itself, from its data to its record."""
    corpus = load_corpus(config.data, config.schema)
    schema = config.schema.select(config.tasks)
    split = make_split(corpus, config.split, config.split_seed, schema)
    data, parts_found = describe_data(corpus), describe_split(corpus, split)
    for name, found in (("data", data), ("split", parts_found)):
        _check_same(name, found["sha256"], expected)

    import torch

    from empathy_kit.core import checkpoint
    from empathy_kit.core.fingerprint import fingerprint, revision

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)  # before any initialisation: the heads' initial weights are part of the run
    encoder, tokenizer = open_encoder(config)
    read_by = fingerprint(encoder, tokenizer)
    _check_same("encoder", read_by, expected)
    prepared = prepare(config, plugins, corpus, split, encoder, tokenizer)
    tasks, model, objective, trainer = prepared.tasks, prepared.model, prepared.objective, prepared.trainer
    validation, test, truncation = prepared.validation, prepared.test, prepared.truncation
    device, states = prepared.device, prepared.states
    warnings += prepared.warnings
    own = any(own_criterion(head) is not None for head in model.heads.values())
    if own:
        warnings += (f"head {config.head} trains with its own loss, not with --loss {config.loss}",)
    with flags_named():
        losses = objective.status(device, {task.name: task.num_classes for task in tasks})
    with plugins.blamed():
        state = trainer.start(model, objective, seed=config.seed)
    yield Opened(config, data, parts_found, truncation, plugins.oracle, str(device), losses, state.epoch_pairs, warnings, states)

    with plugins.blamed():
        yield from trainer.fit(state)
        chosen = trainer.evaluate(state, validation)
        evaluated = trainer.evaluate(state, test)
        mismatched = swap_seekers(test, config.split_seed)
        swapped = evaluated if mismatched is test else trainer.evaluate(state, mismatched)

    result = record.Record(
        format=record.FORMAT,
        kit=__version__,
        oracle=plugins.oracle,
        # All options including defaults: a plugin may change a default, and a repeated run must not follow it.
        config=to_dict(replace(config, options=all_options(plugins))),
        plugins={kind: provenance(entry) for kind, entry in plugins.chosen.items()},
        versions=library_versions(),
        machine={
            "system": platform.system(),
            "processor": platform.machine(),
            "device": str(device),
            "losses": losses,
            "threads": torch.get_num_threads(),
        },
        data=data,
        split=parts_found,
        encoder={"name": config.encoder, "sha256": read_by, **revision(encoder)},
        truncation=asdict(truncation),
        training={**_training(state.history), "own_criterion": own},
        scores=_scores(evaluated, test, tasks, config.seed),
        spans=_span_scores(evaluated, test, tasks, config.seed),
        calibration=_calibration(chosen, validation, evaluated, test),
    )
    ids = record.hashed_ids(corpus)

    def write(folder: Path, whole: bool) -> None:
        if whole:
            checkpoint.save(folder / record.MODEL, model, objective, tokenizer, encoder)
            record.write_temperatures(folder / record.MODEL, result)
            write_seen(folder / record.MODEL, see(corpus, split, key=data["sha256"]))
        record.write(
            folder,
            result,
            [asdict(epoch) for epoch in state.history],
            predictions=_prediction_rows([ids[at] for at in split.test], test, evaluated, swapped),
            validation=_prediction_rows([ids[at] for at in split.validation], validation, chosen),
        )

    yield Finished(result, place.leave(write, model=keep_model))


def _check_same(what: str, found: str, expected: Mapping[str, str]) -> None:
    if found != expected.get(what, found):
        raise KitError(
            f"--config: the {what} is not the recorded run's (sha256 {found[:12]}... found, expected "
            f"{expected[what][:12]}...); its scores cannot be repeated"
        )


def _check_alone() -> None:
    """Runs are not distributed: under torchrun each process would do the whole run."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise KitError(f"WORLD_SIZE={processes} in the environment: a run is one process; unset it, and start without torchrun")


def _training(history: Sequence[Epoch]) -> dict[str, Any]:
    best = [epoch for epoch in history if epoch.best][-1]
    return {
        "epochs": len(history),
        "best_epoch": best.epoch,
        "validation_loss": best.validation_loss,
        "validation_macro_f1": best.validation_macro_f1,
        "validation_accuracy": best.validation_accuracy,
        "seconds": round(sum(epoch.seconds for epoch in history), 1),
        "pairs_per_second": round(sum(epoch.pairs_per_second for epoch in history) / len(history), 1),
    }


def _scores(evaluated: Evaluation, examples: Examples, tasks: Sequence[Task], seed: int) -> dict[str, Any]:
    from empathy_kit.core.metrics import score

    target = examples.levels().numpy()
    scores = {}
    for index, task in enumerate(tasks):
        known = target[:, index] >= 0
        majority = task.class_counts.index(max(task.class_counts))
        found = score(target[known, index], evaluated.probabilities[task.name][known], majority=majority, seed=seed)
        scores[task.name] = asdict(found)
    return scores


def _span_scores(evaluated: Evaluation, examples: Examples, tasks: Sequence[Task], seed: int) -> dict[str, Any] | None:
    from empathy_kit.core.metrics import runs, score_spans
    from empathy_kit.core.tokens import whole_stretches

    if evaluated.spans is None:
        return None
    scores: dict[str, Any] = {}
    for index, task in enumerate(tasks):
        known = [at for at, labels in enumerate(examples.labels) if labels.gold_known[index]]
        gold = [examples.labels[at].evidence[index] for at in known]
        predicted = [whole_stretches(runs(evaluated.spans[at][index]), examples.labels[at].cut) for at in known]
        scores[task.name] = asdict(score_spans(gold, predicted, seed)) if known else None
    return scores


def _calibration(chosen: Evaluation, validation: Examples, evaluated: Evaluation, test: Examples) -> dict[str, dict[str, float]]:
    """Per task the temperature, fitted on the validation part, and the test part's calibration error before and after it."""
    from empathy_kit.core.calibration import calibration, fit_temperature, tempered

    seen, unseen = validation.levels().numpy(), test.levels().numpy()
    found = {}
    for index, (name, rows) in enumerate(evaluated.probabilities.items()):
        known, labelled = seen[:, index] >= 0, unseen[:, index] >= 0
        temperature = fit_temperature(chosen.probabilities[name][known], seen[known, index])
        true, given = unseen[labelled, index], rows[labelled]
        before, after = (calibration(each, true).ece for each in (given, tempered(given, temperature)))
        found[name] = {"temperature": temperature, "ece_before": before, "ece_after": after}
    return found


def swap_seekers(examples: Examples, seed: int) -> Examples:
    """Pair each response with another pair's seeker post: a model that uses the context must score worse.

    Where all seeker posts are the same, nothing changes.
    """
    order = random.Random(seed).sample(range(len(examples)), len(examples))
    seekers = [examples.texts[position].seeker for position in order]
    changes = [at for at in range(len(order)) if seekers[at - 1] != seekers[at]]
    if not changes:
        return examples
    texts: list[TokenPair] = list(examples.texts)
    later = changes[0]  # the next position, cyclically, with another seeker post; found by walking backwards
    for at in reversed(range(len(order))):
        if seekers[(at + 1) % len(order)] != seekers[at]:
            later = (at + 1) % len(order)
        texts[order[at]] = replace(texts[order[at]], seeker=seekers[later])
    return replace(examples, texts=tuple(texts))


def _prediction_rows(
    ids: Sequence[str], examples: Examples, evaluated: Evaluation, swapped: Evaluation | None = None
) -> list[list[str]]:
    """A part's predictions as rows, the header first.

    Per task: the true level, the predicted level, the same with another pair's seeker post, and every level's probability.
    Levels are positions in the task's labels; a missing true level is empty. Ids are hashed, and there is no text.
    """
    levels, elsewhere = evaluated.levels(), swapped.levels() if swapped else {}
    columns = ["id"]
    for name, rows in evaluated.probabilities.items():
        columns += [f"{name}_true", f"{name}_predicted", *([f"{name}_swapped"] if swapped else [])]
        columns += [f"{name}_p{at}" for at in range(rows.shape[1])]
    table = [columns]
    for at, hashed in enumerate(ids):
        row = [hashed]
        for index, (name, rows) in enumerate(evaluated.probabilities.items()):
            true = examples.labels[at].levels[index]
            row += ["" if true < 0 else str(true), str(int(levels[name][at]))]
            row += [str(int(elsewhere[name][at]))] if swapped else []
            row += [f"{value:.6f}" for value in rows[at]]
        table.append(row)
    return table
