"""What a run's record has of a trained model: its scores, its calibration, and its predictions as tables."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from empathy_kit.contracts import Task

if TYPE_CHECKING:
    from empathy_kit.core.batch import Examples
    from empathy_kit.core.evaluation import Evaluation
    from empathy_kit.core.model import Model
    from empathy_kit.core.objective import Objective
    from empathy_kit.core.tokens import TokenPair


def scores(evaluated: Evaluation, examples: Examples, tasks: Sequence[Task], seed: int) -> dict[str, Any]:
    """Per task the scores over its labelled pairs, with bootstrap intervals drawn from the seed."""
    from empathy_kit.core.metrics import score

    target = examples.levels().numpy()
    found = {}
    for index, task in enumerate(tasks):
        known = target[:, index] >= 0
        majority = task.class_counts.index(max(task.class_counts))
        one = score(target[known, index], evaluated.probabilities[task.name][known], majority=majority, seed=seed)
        found[task.name] = asdict(one)
    return found


def span_scores(
    evaluated: Evaluation, examples: Examples, tasks: Sequence[Task], seed: int, marked: Container[str]
) -> dict[str, Any] | None:
    """Per task the scores of predicted spans; None where none are predicted.

    A task has None where no pair's evidence is known, and where nothing could be learnt of it.

    Args:
        evaluated: what the model predicted.
        examples: the pairs.
        tasks: in their order.
        seed: of the intervals.
        marked: the tasks of which a training pair has an annotated span.
    """
    from empathy_kit.core.metrics import runs, score_spans
    from empathy_kit.core.tokens import whole_stretches

    if evaluated.spans is None:
        return None
    found: dict[str, Any] = {}
    for index, task in enumerate(tasks):
        known = [at for at, labels in enumerate(examples.labels) if labels.gold_known[index]]
        gold = [examples.labels[at].evidence[index] for at in known]
        predicted = [whole_stretches(runs(evaluated.spans[at][index]), examples.labels[at].cut) for at in known]
        found[task.name] = asdict(score_spans(gold, predicted, seed)) if known and task.name in marked else None
    return found


def calibration(chosen: Evaluation, validation: Examples, evaluated: Evaluation, test: Examples) -> dict[str, dict[str, float]]:
    """Per task the temperature, fitted on the validation part, and the test part's calibration error before and after it."""
    from empathy_kit.core.calibration import calibration as calibrated
    from empathy_kit.core.calibration import fit_temperature, tempered

    seen, unseen = validation.levels().numpy(), test.levels().numpy()
    found = {}
    for index, (name, rows) in enumerate(evaluated.probabilities.items()):
        known, labelled = seen[:, index] >= 0, unseen[:, index] >= 0
        temperature = fit_temperature(chosen.probabilities[name][known], seen[known, index])
        true, given = unseen[labelled, index], rows[labelled]
        before, after = (calibrated(each, true).ece for each in (given, tempered(given, temperature)))
        found[name] = {"temperature": temperature, "ece_before": before, "ece_after": after}
    return found


def size_and_speed(model: Model, objective: Objective, evaluated: Evaluation) -> dict[str, Any]:
    """The model's parameters, the bytes of its weights as they are saved, and the test part's pairs per second."""
    from empathy_kit.core.checkpoint import weights_of

    parameters = list(model.parameters())
    pairs = len(next(iter(evaluated.probabilities.values())))
    return {
        "parameters": sum(each.numel() for each in parameters),
        "trained": sum(each.numel() for each in parameters if each.requires_grad),
        "bytes": sum(each.numel() * each.element_size() for each in weights_of(model, objective).values()),
        "pairs_per_second": round(pairs / evaluated.seconds, 3),
    }


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


def prediction_rows(
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
