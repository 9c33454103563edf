"""benchmarks/evidence.py: F1 of evidence as the model that came with the data was scored, and the page's columns of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score


@pytest.fixture(scope="module")
def found() -> Iterator[Callable[[str], ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("docs", "benchmarks"):
            patch.syspath_prepend(str(Path(__file__).parents[2] / folder))
        yield importlib.import_module


@pytest.fixture
def evidence(found: Callable[[str], ModuleType]) -> ModuleType:
    return found("evidence")


def mask(drawn: str) -> NDArray[np.bool_]:
    return np.array([token == "x" for token in drawn], dtype=bool)


@pytest.mark.parametrize(
    ("gold", "marked", "token_f1", "iou_f1"),
    [
        ("xx..", "xx..", 1.0, 1.0),
        ("....", "....", 1.0, 1.0),  # both wholly marked
        ("....", "xx..", 2 * 2 / 6, 1.0),  # half of the whole is a match
        ("....", "x...", 2 * 1 / 5, 0.0),
        ("x...", "....", 2 * 1 / 5, 0.0),  # marking nothing is marking all
        ("xx.xx.", "xx....", 2 * 2 / 6, 2 / 3),
        ("xxx", ".xx", 2 * 2 / 5, 1.0),
        ("", "", 1.0, 1.0),
    ],
)
def test_a_response_without_evidence_counts_as_wholly_marked(
    evidence: ModuleType, gold: str, marked: str, token_f1: float, iou_f1: float
) -> None:
    assert evidence.f1_of_response(mask(gold), mask(marked)) == pytest.approx((token_f1, iou_f1))


def test_token_f1_is_scikit_learns_on_every_response_and_batches_count_alike_whatever_their_size(evidence: ModuleType) -> None:
    draw = np.random.default_rng(0)
    gold, marked = ([draw.random(12) < 0.4 for _ in range(evidence.BATCH + 1)] for _ in range(2))
    for each in gold + marked:
        each[0] = True
    gold[-1][:], marked[-1][:] = True, True  # alone in the second batch
    first = [f1_score(true, guess) for true, guess in zip(gold[:-1], marked[:-1], strict=True)]
    assert evidence.over_batches(gold, marked)["token_f1"] == pytest.approx((np.mean(first) + 1) / 2)


def test_the_page_shows_a_models_scores_of_its_own_run_alone(
    found: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = found("blocks.claims")
    scores = {"recorded_token_f1": 0.5, "model": {"token_f1": 0.6, "iou_f1": 0.7}}

    def run(token_f1: float) -> Any:
        record = SimpleNamespace(spans={"ER": {"token_f1": {"value": token_f1}}})
        return SimpleNamespace(name="bi", seed=0, record=record, models=[SimpleNamespace(name="bi.ER", seed=0)])

    monkeypatch.setattr(claims, "measured", lambda name: {"runs": {"bi.ER-0": {"ER": scores}}})
    assert claims._in_their_way("predecessor", run(0.5), "ER") == scores
    assert claims._in_their_way("predecessor", run(0.5), "EX") is None
    with pytest.raises(ValueError, match=r"evidence-predecessor\.json: bi-0 is another run"):
        claims._in_their_way("predecessor", run(0.4), "ER")
    monkeypatch.undo()
    assert claims._in_their_way("no-such-comparison", run(0.5), "ER") is None
