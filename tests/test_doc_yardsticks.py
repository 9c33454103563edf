"""What the pages say of the best recipe next to simpler models, and of the crowd next to experts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from empathy_kit.comparison.statistics import Answers
from empathy_kit.core.metrics import Estimate, Scores, score


@pytest.fixture(scope="module")
def blocks() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "docs"))
        yield importlib.import_module("blocks")


def answers(seed: int, skill: float) -> Answers:
    draw = np.random.default_rng(seed)
    true = np.random.default_rng(0).choice(3, size=200, p=(0.6, 0.3, 0.1))
    logits = draw.gumbel(size=(200, 3))
    logits[np.arange(200), true] += skill
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Answers(tuple(map(str, range(200))), true, chances.argmax(1), chances)


def of_mean(said: Answers) -> Scores:
    assert said.probabilities is not None
    return score(said.true, said.probabilities, 0, seed=0)


def test_a_yardstick_is_scored_on_the_pairs_of_the_only_split(blocks: ModuleType) -> None:
    page = importlib.import_module("blocks.yardsticks")
    said = answers(1, 2.0)
    found = page.simpler({"tfidf": {seed: {"ER": said, "EX": said} for seed in (0, 1)}, "majority": {0: {"ER": said}}}, ["ER"])
    assert found == {"tfidf": {"ER": said}}
    assert page.simpler({"tfidf": {0: {"ER": said}}}, ["ER", "EX"]) == {}  # not of every task
    scores = page.scored(found["tfidf"])["ER"]
    assert scores.macro_f1.value == pytest.approx(f1_score(said.true, said.predicted, average="macro"))
    assert said.probabilities is not None
    expected = average_precision_score(said.true == 2, said.probabilities[:, 2])
    assert scores.average_precision[2].value == pytest.approx(expected)


def test_a_yardstick_with_a_higher_macro_f1_is_named_with_it(blocks: ModuleType) -> None:
    page = importlib.import_module("blocks.yardsticks")
    good, bad = answers(1, 4.0), answers(2, 1.0)
    f1 = f1_score(good.true, good.predicted, average="macro")
    assert page.above({"ER": good, "EX": bad}, {"ER": of_mean(bad), "EX": of_mean(good)}) == {"ER": pytest.approx(f1)}
    assert page.above({"ER": good}, {"ER": of_mean(good)}) == {}


def test_what_is_below_an_aim_or_a_yardstick_is_what_is_shown_below_it(blocks: ModuleType) -> None:
    page = importlib.import_module("blocks.yardsticks")
    single = {"ER": [0.5, 0.6994], "EX": [0.8, 0.8]}
    means, simple = {"ER": of(0.7004), "EX": None}, {"ER": of(0.7), "EX": of(0.9)}
    measure = page.Measure("macro F1", {"ER": "ER", "EX": "EX 1"}, single, {page.MEAN: means, "tfidf": simple}, {"ER": 0.7})
    assert (measure.below_aims(page.ONE), measure.below_aims(page.ALL)) == (["macro F1 of ER"], [])
    assert [*measure.below_yardsticks(page.ONE)] == ["macro F1 of ER (tfidf)", "macro F1 of EX 1 (tfidf)"]
    assert [*measure.below_yardsticks(page.ALL)] == []  # .700 is not below .700, and nothing is known of the other


def of(value: float) -> Estimate:
    return Estimate(value, value, value)


def test_the_crowd_is_compared_with_experts_by_intervals(blocks: ModuleType) -> None:
    told = importlib.import_module("blocks.paper")._crowd_told
    start = "By the interval of the difference, which is not corrected, "
    less, more, unsure = ({"low": low, "high": high} for low, high in ((-0.5, -0.1), (0.1, 0.5), (-0.2, 0.1)))
    undefined = {"low": None, "high": None}
    assert told({"ER": unsure, "EX": less, "IP": undefined}) == (
        f"{start}the crowd agrees less with an expert than two experts with each other on EX; "
        "on ER and IP the two cannot be told apart."
    )
    assert told({"ER": more}) == f"{start}the crowd agrees more with an expert than two experts with each other on ER."
