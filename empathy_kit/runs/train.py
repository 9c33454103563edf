"""One run from data to record, in the order of a paper's method section."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_kit.config import RunConfig
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.errors import KitError
from empathy_kit.files import GLANCE
from empathy_kit.plugins import Registry
from empathy_kit.runs import record, results
from empathy_kit.runs.build import flags_named, open_encoder, own_criterion
from empathy_kit.runs.choose import Plugins, choose_plugins, compare_providers, compare_versions, library_versions, provenance
from empathy_kit.runs.describe import describe_data, describe_split
from empathy_kit.runs.identity import KIT, Stopped, all_versions, changes, machine_of, settings_of, stopped
from empathy_kit.runs.keeping import Keeper, Unkept
from empathy_kit.runs.prepare import prepare
from empathy_kit.runs.reservation import Reservation, reserved
from empathy_kit.runs.seen import see, write_seen

if TYPE_CHECKING:
    from empathy_kit.core.state import Epoch
    from empathy_kit.core.tokens import Truncation
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
    partial: Path | None = None  # where the run's state is kept until it is finished
    continued: str | None = None  # where a stopped run is continued


@dataclass(frozen=True)
class Finished:
    """The run directory is written."""

    record: record.Record
    folder: Path


MINUTES = 5.0  # between two checkpoints


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
    minutes: float = MINUTES,
    anyway: bool = False,
) -> Generator[Opened | Step | Epoch | Unkept | Finished, None, None]:
    """Train and test one configuration, yielding an event for each step; the last event is `Finished`.

    Its state is kept in ``<out>.partial/`` while it trains. Where it was stopped, by whatever means, the same call continues it,
    and ends with the same bytes as if it had never been stopped.

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
        minutes: between two checkpoints; 0 writes one after every step.
        anyway: continue a stopped run with other versions of the kit or the libraries.

    Raises:
        KitError: a fault in the configuration, the data or the output folder that the user can fix, or what was stopped is
            another run, or damaged.
    """
    _check_alone()
    warnings = compare_providers(providers, config, registry) if providers else ()
    warnings += compare_versions(versions or {}, library_versions())
    try:
        plugins = choose_plugins(config, registry)
    except KitError as error:
        # Another version may have renamed an option or a plugin of the recorded run.
        raise KitError("; ".join([str(error), *warnings])) from None

    def fits(partial: Path) -> bool:
        left = stopped(partial)
        return left is None or not changes(left.settings, settings_of(config, plugins), by_name=True)

    with reserved(out, numbered=numbered, wait=wait, fits=fits) as place:
        before = stopped(place.partial)
        if before is not None:
            warnings += (*before.faults, *before.check(config, plugins, registry, anyway=anyway))
        yield from _train(config, plugins, place, before, expected or {}, warnings, keep_model=keep_model, minutes=minutes)


def _train(
    config: RunConfig,
    plugins: Plugins,
    place: Reservation,
    before: Stopped | None,
    expected: Mapping[str, str],
    warnings: tuple[str, ...],
    *,
    keep_model: bool,
    minutes: float,
) -> Generator[Opened | Step | Epoch | Unkept | Finished, None, None]:
    """The run itself, from its data to its record."""
    corpus = load_corpus(config.data, config.schema)
    schema = config.schema.select(config.tasks)
    split = make_split(corpus, config.split, config.split_seed, schema)
    data, parts_found = describe_data(corpus), describe_split(corpus, split)
    hashes = {"data": data["sha256"], "split": parts_found["sha256"]}
    for name, found in hashes.items():
        _check_same(name, found, expected, before)

    import torch

    from empathy_kit.core import checkpoint
    from empathy_kit.core.fingerprint import fingerprint, revision

    threads = config.threads or (before.threads if before is not None else None)  # the bits depend on how many there are
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(config.seed)  # before any initialisation: the heads' initial weights are part of the run
    encoder, tokenizer = open_encoder(config)
    hashes["encoder"] = fingerprint(encoder, tokenizer)
    _check_same("encoder", hashes["encoder"], expected, before)
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
    identity: dict[str, Any] = {
        "settings": settings_of(config, plugins) if before is None else before.settings,
        "plugins": {kind: provenance(entry) for kind, entry in plugins.chosen.items()},
        "versions": all_versions(None if before is None else before.checkpoint.identity["versions"]),
        "sha256": hashes,
        "machine": machine_of(device, losses, torch.get_num_threads()),
    }
    if before is not None:
        before.check_machine(identity["machine"])
    keeper = Keeper(place.partial, None if before is None else before.checkpoint, identity, state, minutes=minutes)
    with keeper.until_finished():
        yield Opened(
            config,
            data,
            parts_found,
            truncation,
            plugins.oracle,
            str(device),
            losses,
            state.epoch_pairs,
            warnings,
            states,
            place.partial,
            None if before is None else before.line,
        )
        with plugins.blamed():
            yield from keeper.steps(trainer.fit(state))
            chosen = trainer.evaluate(state, validation)
            evaluated = trainer.evaluate(state, test)
            mismatched = results.swap_seekers(test, config.split_seed)
            swapped = evaluated if mismatched is test else trainer.evaluate(state, mismatched)

        result = record.Record(
            format=record.FORMAT,
            kit=identity["versions"][KIT],
            oracle=plugins.oracle,
            # All options including defaults: a plugin may change a default, and a repeated run must not follow it.
            config=identity["settings"],
            plugins=identity["plugins"],
            versions={name: version for name, version in identity["versions"].items() if name != KIT},
            machine=identity["machine"],
            data=data,
            split=parts_found,
            encoder={"name": identity["settings"]["encoder"], "sha256": hashes["encoder"], **revision(encoder)},
            truncation=asdict(truncation),
            training={**_training(state.history), "own_criterion": own},
            scores=results.scores(evaluated, test, tasks, config.seed),
            spans=results.span_scores(evaluated, test, tasks, config.seed),
            calibration=results.calibration(chosen, validation, evaluated, test),
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
                predictions=results.prediction_rows([ids[at] for at in split.test], test, evaluated, swapped),
                validation=results.prediction_rows([ids[at] for at in split.validation], validation, chosen),
            )

        keeper.writer.wait()  # or it would put a checkpoint next to the finished run
        folder = place.leave(write, model=keep_model)
    yield Finished(result, folder)


def _check_same(what: str, found: str, expected: Mapping[str, str], before: Stopped | None) -> None:
    if found != expected.get(what, found):
        raise KitError(
            f"--config: the {what} is not the recorded run's (sha256 {found[:12]}... found, expected "
            f"{expected[what][:12]}...); its scores cannot be repeated"
        )
    if before is not None:
        before.check_hash(what, found)


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
