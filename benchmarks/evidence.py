"""F1 of evidence as Sharma et al. (EMNLP 2020) average it, of the runs of a comparison that mark evidence.

    python benchmarks/evidence.py FOLDER > benchmarks/results/evidence-predecessor.json

FOLDER is a comparison of benchmarks/questions.py whose runs still have their models. Their published code marks all of a response
that has no evidence, before it trains and scores; averages F1 over the responses of a batch of 32, and then over batches. So here
a response without evidence counts as evidence throughout, in the annotation and in what a model marks: theirs learns to mark all
of such a response, where the kit's learn to mark nothing of it. What truncation cut away does not count, nor does a response that
has lost all its evidence so. A model that marks nothing anywhere has a score too, which is to be beaten. Theirs also counts
padding, which is left out here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from empathy_kit.comparison.plan import read_plan, run_folder
from empathy_kit.core.metrics import BATCH, runs, score_spans
from empathy_kit.core.tokens import whole_stretches
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take
from empathy_kit.errors import KitError
from empathy_kit.inference.model import load
from empathy_kit.inference.prediction import EVIDENCE
from empathy_kit.runs import record

ROUNDED = 1e-3  # of a token F1: a processor may round otherwise than the one that trained the model

Mask = NDArray[np.bool_]  # (L,), which of a response's tokens are evidence


def f1_of_response(gold: Mask, marked: Mask) -> tuple[float, float]:
    """Token F1 and IOU F1 of one response, in which no evidence counts as evidence throughout."""
    gold, marked = (mask if mask.any() else np.ones_like(mask) for mask in (gold, marked))
    if not gold.size:  # both say of nothing that it is evidence
        return 1.0, 1.0
    found = score_spans([runs(gold)], [runs(marked)], seed=0)
    return found.token_f1.value, found.iou_f1.value


def over_batches(gold: Sequence[Mask], marked: Sequence[Mask]) -> dict[str, float]:
    """The mean over batches, in order, of the mean over their responses."""
    every = [f1_of_response(*masks) for masks in zip(gold, marked, strict=True)]
    means = [np.mean(every[at : at + BATCH], axis=0) for at in range(0, len(every), BATCH)]
    return dict(zip(("token_f1", "iou_f1"), map(float, np.mean(means, axis=0)), strict=True))


def of_run(folder: Path, corpus: Corpus) -> dict[str, dict[str, Any]]:
    """Each task's scores on the run's test part; nothing for a run that marks no evidence.

    Raises:
        KitError: the model does not give the scores that its run recorded, or is not there.
    """
    found = record.read(folder)
    if not found.spans:
        return {}
    model = load(str(folder))
    split = make_split(corpus, str(found.split["kind"]), int(found.split["seed"]))
    if split.sha256() != found.split["sha256"]:
        raise KitError(f"{folder}: its split is not that of the data here, expected the data that it was trained on")
    pairs = take(corpus, split.test)
    read = list(model.tokenization.labelled(pairs, [corpus.schema.names.index(name) for name in model.schema.names]))
    text = [np.array([end > start for start, end in each.places]) for each in model.tokenization.read(pairs)]
    scored = list(model.engine.predict(tokens for tokens, _, _ in read))
    scores = {}
    for index, name in enumerate(model.schema.names):
        gold, marked, whole = [], [], []
        for one, (_, labels, _), words in zip(scored, read, text, strict=True):
            if one.evidence is None or not labels.gold_known[index]:
                continue
            said = one.evidence[index] > EVIDENCE
            whole.append((labels.evidence[index], whole_stretches(runs(said), labels.cut)))
            if labels.gold[index] or not labels.evidence[index]:
                gold.append(np.isin(np.arange(words.size), labels.gold[index])[words])
                marked.append(said[words])
        recorded = float(found.spans[name]["token_f1"]["value"])
        again = score_spans([true for true, _ in whole], [guess for _, guess in whole], seed=0).token_f1.value
        if abs(again - recorded) > ROUNDED:
            raise KitError(f"{folder}: the model's token F1 of {name} is {again:.4f}, expected the recorded {recorded:.4f}")
        scores[name] = {
            "responses": len(gold),
            "without_evidence": fmean(not mask.any() for mask in gold),
            "recorded_token_f1": recorded,
            "model": over_batches(gold, marked),
            "nothing_marked": over_batches(gold, [np.zeros_like(mask) for mask in gold]),
        }
    return scores


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print the scores of FOLDER's runs as JSON: by model and seed, then by task."""
    plan = read_plan(folder)
    corpus = load_corpus(next(iter(plan.configurations.values())).data)
    there = [(model, seed) for model, seed in plan.runs() if run_folder(folder, model, seed).exists()]
    found = {f"{model}-{seed}": of_run(run_folder(folder, model, seed), corpus) for model, seed in there}
    click.echo(json.dumps({"batch": BATCH, "runs": {name: scores for name, scores in found.items() if scores}}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        raise SystemExit(f"Error: {error}") from None
