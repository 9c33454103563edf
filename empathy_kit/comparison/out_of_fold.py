"""Probabilities of pairs by models that were not trained on them: of finished runs, or of models trained for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from empathy_kit.comparison.answers import AnswerTable
from empathy_kit.config import RunConfig
from empathy_kit.core.metrics import Floats
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.schema import Schema
from empathy_kit.data.splits import by_seeker, hold_out, make_folds, take
from empathy_kit.errors import KitError
from empathy_kit.files import sha256
from empathy_kit.plugins import Registry
from empathy_kit.runs import record
from empathy_kit.runs.choose import choose_plugins
from empathy_kit.runs.inventory import TRAINING, UNFINISHED, find
from empathy_kit.runs.memory import rebuild, train

HELD_OUT = 0.15  # of a fold's training pairs: they choose the epoch


@dataclass(frozen=True)
class OutOfFold:
    """Probabilities of a corpus' pairs by models that have not seen them."""

    source: str  # for people
    probabilities: dict[str, Floats]  # task to (pairs of the corpus, C); NaN where there is no such model
    remarks: tuple[str, ...] = ()  # for people, on what was left out


@dataclass(frozen=True)
class Fold:
    """What one model of a cross-validation predicts."""

    positions: tuple[int, ...]  # in the corpus, of the pairs that it predicts
    probabilities: dict[str, Floats]  # task to (len(positions), C)
    trained: int  # pairs
    validated: int  # pairs that chose the epoch; where there are none, the training pairs did
    warnings: tuple[str, ...]


def of_tasks(corpus: Corpus, names: Sequence[str] | None) -> Corpus:
    """The same pairs with the labels and spans of some tasks alone; of all where ``names`` is None.

    Raises:
        KitError: as `Schema.select`.
    """
    schema = corpus.schema.select(names)
    if schema == corpus.schema:
        return corpus
    kept = [corpus.schema.index(name) for name in schema.names]
    pairs = (
        replace(
            pair,
            levels=tuple(pair.levels[at] for at in kept),
            spans=tuple(pair.spans[at] for at in kept),
            unplaced=tuple(pair.unplaced[at] for at in kept),
        )
        for pair in corpus.pairs
    )
    return replace(corpus, pairs=tuple(pairs), schema=schema)


def cross_validate(
    config: RunConfig, registry: Registry, corpus: Corpus, count: int, *, warn: Callable[[str], None] | None = None
) -> Generator[Fold, None, None]:
    """Train one model per fold, by a run's settings, on the pairs of all other folds; each predicts its own fold.

    Folds are groups of pairs that share a seeker id or a seeker post. Part of each model's training pairs chooses its epoch, so
    that its fold chooses nothing. ``warn`` is told of a very large group before anything is trained.

    Raises:
        KitError: the pairs are too few for the folds, the injector sees annotated spans at inference, or as `train`.
    """
    from empathy_kit.runs.report import group_warnings

    if choose_plugins(config, registry).oracle:
        raise KitError(f"--rationale {config.rationale}: sees annotated spans, which give the label away; use another one")
    corpus = of_tasks(corpus, config.tasks)
    folds = make_folds(corpus, count, config.seed)
    largest = max(map(len, by_seeker(corpus.pairs)))
    for text in group_warnings(len(corpus), largest):
        if warn is not None:
            warn(text)
    if config.threads is not None:
        import torch

        torch.set_num_threads(config.threads)
    for fold in folds:
        own = set(fold)
        others = replace(corpus, pairs=tuple(pair for at, pair in enumerate(corpus.pairs) if at not in own))
        split = hold_out(others, HELD_OUT, config.seed)
        trained = train(config, registry, others, split)
        ready = rebuild(trained, registry)
        scored = [each.probabilities for each in ready.predictor.predict(ready.tokenization.encode(take(corpus, fold)))]
        probabilities = {name: np.stack([each[name] for each in scored]) for name in corpus.schema.names}
        warnings = (*trained.warnings, *ready.warnings)
        yield Fold(fold, probabilities, len(split.train), len(split.validation), warnings)


def from_folds(corpus: Corpus, folds: Iterable[Fold]) -> OutOfFold:
    """The folds of a cross-validation put together."""
    kept = list(folds)
    found = {}
    for task in corpus.schema.select(list(kept[0].probabilities)).tasks:
        found[task.name] = np.full((len(corpus), len(task.labels)), np.nan)
        for fold in kept:
            found[task.name][list(fold.positions)] = fold.probabilities[task.name]
    return OutOfFold(f"{len(kept)} folds", found)


def from_runs(folder: Path, corpus: Corpus, tasks: Schema) -> OutOfFold:
    """What the finished runs in a folder predict for their test parts, the mean over all runs that have a pair in theirs.

    Validation parts are left out, because they chose the epochs. Oracles are left out, because they see the labels.

    Raises:
        KitError: there is no such run, one is damaged, or one has other data than the corpus.
    """
    runs = find(folder)
    if not runs:
        raise KitError(
            f"--runs {folder}: no run found, expected folders that `empathy-kit run` or `empathy-kit compare` has written"
        )
    remarks, used, oracles, copies, digest = [], 0, 0, 0, corpus.sha256()
    known: set[str] = set()  # hashes of predictions
    places = {name: at for at, name in enumerate(record.hashed_ids(corpus))}
    sums = {task.name: np.zeros((len(corpus), len(task.labels))) for task in tasks.tasks}
    counts = {task.name: np.zeros((len(corpus), 1)) for task in tasks.tasks}
    for run in runs:
        if run.state in (UNFINISHED, TRAINING):
            remarks.append(f"left out: {run.path}: {run.state}")
            continue
        if run.record is None:
            raise KitError(f"--runs: {run.problem}")
        if run.record.data["sha256"] != digest:
            raise KitError(
                f"--runs {run.path}: a run on other data ({run.record.data['name']}) than --data {corpus.name}; give a folder "
                "whose runs have the same pairs and labels"
            )
        if run.record.oracle:
            oracles += 1
            continue
        said = sha256(run.path / record.PREDICTIONS)
        if said in known:
            copies += 1
            continue
        known.add(said)
        predicted = run.record.tasks.names
        used += any(name in predicted for name in tasks.names)
        for name, rows, probabilities in _predictions(run.path, corpus, tasks, places, predicted):
            sums[name][rows] += probabilities
            counts[name][rows] += 1
    if not used:
        raise KitError(
            f"--runs {folder}: {len(runs)} found, all unfinished, oracles or without {', '.join(tasks.names)}; expected at least "
            "one other"
        )
    if oracles:
        remarks.append(f"left out: {oracles} oracle{'s' * (oracles != 1)}, which saw annotated spans at test time")
    if copies:
        remarks.append(f"left out: {copies} run{'s' * (copies != 1)} with the very predictions of another: a copy")
    with np.errstate(invalid="ignore"):  # 0 / 0: no run has the pair in its test part
        means = {name: sums[name] / counts[name] for name in sums}
    return OutOfFold(f"{used} run{'s' * (used != 1)} in {folder}", means, tuple(remarks))


def _predictions(
    path: Path, corpus: Corpus, tasks: Schema, places: dict[str, int], predicted: Sequence[str]
) -> Iterator[tuple[str, list[int], Floats]]:
    """Per task of a run: its name, positions of its labelled test pairs in the corpus, and their probabilities."""
    table = AnswerTable(path / record.PREDICTIONS)
    for task in tasks.tasks:
        if task.name not in predicted:
            continue
        answers = table.answers(task)
        index = corpus.schema.index(task.name)
        rows = [places.get(name, -1) for name in answers.ids]
        if -1 in rows:
            raise KitError(f"{table.path}: has pairs that --data {corpus.name} does not have; expected the same pair_id column")
        if answers.true.tolist() != [corpus.pairs[row].levels[index] for row in rows]:
            raise KitError(f"{table.path}: {task.name}_true is not the label that --data {corpus.name} has")
        yield task.name, rows, table.probabilities(task)
