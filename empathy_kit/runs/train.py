"""One run from data to record, in the order of a paper's method section."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_kit.config import RunConfig
from empathy_kit.errors import KitError
from empathy_kit.files import GLANCE
from empathy_kit.plugins import Registry
from empathy_kit.runs import record, results
from empathy_kit.runs.begin import begin
from empathy_kit.runs.build import own_criterion
from empathy_kit.runs.choose import Plugins, choose_with, compare_providers, compare_versions, library_versions
from empathy_kit.runs.identity import KIT, Stopped, all_versions, changes, settings_of, stopped
from empathy_kit.runs.keeping import Keeper, Unkept
from empathy_kit.runs.machine import compare_machines, machine_of
from empathy_kit.runs.repeat import UNKNOWN, Original
from empathy_kit.runs.reservation import Recovered, Reservation, reserved
from empathy_kit.runs.seen import see, write_seen
from empathy_kit.runs.torchrun import is_one_of_several, stopped_together

if TYPE_CHECKING:
    from empathy_kit.core.processes import Processes
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
    processes: int = 1  # that train together


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
    original: Original = UNKNOWN,
    keep_model: bool = True,
    minutes: float = MINUTES,
    anyway: bool = False,
    processes: Processes | None = None,
) -> Generator[Opened | Step | Epoch | Unkept | Finished, None, None]:
    """Train and test one configuration, yielding an event for each step; the last event is `Finished`.

    Its state is kept in ``<out>.partial/`` while it trains. Where it was stopped, by whatever means, the same call continues it,
    and ends with the same bytes as if it had never been stopped. Where only its name was missing, `Finished` is the only event.

    Args:
        config: what to run.
        registry: the loaded plugins.
        out: the run directory, which must not exist. Its name is reserved first.
        numbered: if the name is taken, append the first free number.
        wait: seconds to wait for another process that is writing the same run.
        original: what is known of the run to repeat, if any.
        keep_model: write the model into the run directory next to its scores.
        minutes: between two checkpoints; 0 writes one after every step.
        anyway: continue a stopped run with other versions of the kit or the libraries, and with what follows from them: another
            way to compute the losses, or an encoder that these read otherwise.
        processes: that train together, of which this is one; None for one process. All but the first yield nothing and write
            nothing.

    Raises:
        KitError: a fault in the configuration, the data or the output folder that the user can fix, or what was stopped is
            another run, or damaged.
    """
    if processes is None and is_one_of_several():
        raise KitError("torchrun: only `empathy-kit run` trains in several processes; start this command without torchrun")
    warnings = compare_providers(original.providers, config, registry)
    warnings += compare_versions(original.versions, library_versions())
    plugins = choose_with(warnings, config, registry)

    if processes is not None and processes.rank:
        _follow(config, plugins, processes)
        return

    def fits(partial: Path) -> bool:
        left = stopped(partial)
        return left is None or not changes(left.settings, settings_of(config, plugins), by_name=True)

    try:
        with reserved(out, numbered=numbered, wait=wait, fits=fits) as place:
            before = stopped(place.partial, anyway=anyway)
            if before is not None:
                warnings += (*before.faults, *before.check(config, plugins, registry))
            yield from _train(
                config, plugins, place, before, original, warnings, processes, keep_model=keep_model, minutes=minutes
            )
    except Recovered as finished:
        found = record.read(finished.folder)
        if not changes(found.config, settings_of(config, plugins), by_name=True):
            if processes is not None:  # they would wait for each other's share of a run that is not trained
                raise
            yield Finished(found, finished.folder)
            return
        if not numbered:
            raise
    else:
        return
    # What lacked its name was another run; the next free number is this one's.
    yield from run(
        config,
        registry,
        out,
        numbered=numbered,
        wait=wait,
        original=original,
        keep_model=keep_model,
        minutes=minutes,
        anyway=anyway,
        processes=processes,
    )


def _train(
    config: RunConfig,
    plugins: Plugins,
    place: Reservation,
    before: Stopped | None,
    original: Original,
    warnings: tuple[str, ...],
    processes: Processes | None,
    *,
    keep_model: bool,
    minutes: float,
) -> Generator[Opened | Step | Epoch | Unkept | Finished, None, None]:
    """The run itself, from its data to its record."""
    from empathy_kit.core import checkpoint
    from empathy_kit.core.fingerprint import revision
    from empathy_kit.core.processes import Processes

    processes = processes or Processes()
    begun = begin(config, plugins, processes, before, original)
    prepared, state, data, parts_found, hashes = begun.prepared, begun.state, begun.data, begun.parts, begun.hashes
    tasks, model, objective = prepared.tasks, prepared.model, prepared.objective
    validation, test = prepared.validation, prepared.test
    warnings += (*begun.warnings, *prepared.warnings)
    own = any(own_criterion(head) is not None for head in model.heads.values())
    if own:
        warnings += (f"head {config.head} trains with its own loss, not with --loss {config.loss}",)
    identity: dict[str, Any] = {
        "settings": settings_of(config, plugins) if before is None else before.settings,
        "plugins": begun.plugins,
        "versions": all_versions(None if before is None else before.checkpoint.identity["versions"]),
        "sha256": hashes,
        "machine": machine_of(prepared.device, begun.losses, processes.count, None if before is None else before.machine),
    }
    warnings += compare_machines(original.machine, identity["machine"])
    if before is not None:
        warnings += before.check_machine(identity["machine"])
    keeper = Keeper(place.partial, None if before is None else before.checkpoint, identity, state, minutes=minutes)
    with keeper.until_finished():
        yield Opened(
            config,
            data,
            parts_found,
            prepared.truncation,
            plugins.oracle,
            str(prepared.device),
            begun.losses,
            state.epoch_pairs,
            warnings,
            prepared.states,
            place.partial,
            None if before is None else before.line,
            processes.count,
        )
        with plugins.blamed():
            yield from stopped_together(keeper.steps(prepared.trainer.fit(state)), processes)
            chosen, evaluated, swapped = begun.evaluate(config.split_seed)

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
            encoder={"name": identity["settings"]["encoder"], "sha256": hashes["encoder"], **revision(begun.encoder)},
            truncation=asdict(prepared.truncation),
            training={**_training(state.history), "own_criterion": own},
            scores=results.scores(evaluated, test, tasks, config.seed),
            spans=results.span_scores(evaluated, test, tasks, config.seed, prepared.marked),
            calibration=results.calibration(chosen, validation, evaluated, test),
            model=results.size_and_speed(model, objective, evaluated),
        )
        ids = record.hashed_ids(begun.corpus)

        def write(folder: Path, whole: bool) -> None:
            if whole:
                checkpoint.save(folder / record.MODEL, model, objective, begun.tokenizer, begun.encoder)
                record.write_temperatures(folder / record.MODEL, result)
                write_seen(folder / record.MODEL, see(begun.corpus, begun.split, key=data["sha256"]))
            record.write(
                folder,
                result,
                [asdict(epoch) for epoch in state.history],
                predictions=results.prediction_rows([ids[at] for at in begun.split.test], test, evaluated, swapped),
                validation=results.prediction_rows([ids[at] for at in begun.split.validation], validation, chosen),
            )

        keeper.writer.wait()  # or it would put a checkpoint next to the finished run
        folder = place.leave(write, model=keep_model)
    yield Finished(result, folder)


def _follow(config: RunConfig, plugins: Plugins, processes: Processes) -> None:
    """The part of all processes but the first: its share of every step and every evaluation. It writes nothing."""
    begun = begin(config, plugins, processes)
    with plugins.blamed():
        for _ in stopped_together(begun.prepared.trainer.fit(begun.state), processes):
            pass
        begun.evaluate(config.split_seed)


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
