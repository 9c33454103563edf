"""benchmarks/experts.py counts agreement as scikit-learn does, and refuses ratings of pairs that it does not know."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score

from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.schema import EPITOME
from empathy_kit.errors import KitError

RATERS = "crowd,expert1,expert2,expert3,gpt-4o,claude-3.7-sonnet,gemini-2.5-pro"


@pytest.fixture(scope="module")
def experts() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield importlib.import_module("experts")


def table(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join([f"sp_id,rp_id,mechanism,{RATERS}", *rows]) + "\n")
    return path


def test_agreement_is_that_of_scikit_learn(experts: ModuleType) -> None:
    draw = np.random.default_rng(0)
    one, other, third = draw.integers(0, 3, (3, 50))
    weights = np.concatenate([np.ones((1, 50)), draw.multinomial(50, np.full(50, 0.02), size=3)])
    found = experts.agreements(one, [other, third], weights)
    for at, weight in enumerate(weights):
        for score, theirs in (("accuracy", accuracy_score), ("kappa", quadratic)):
            expected = np.mean([theirs(one, each, sample_weight=weight) for each in (other, third)])
            assert found[score][at] == pytest.approx(expected)


def test_each_two_experts_are_compared_and_the_crowd_with_each_of_them(experts: ModuleType) -> None:
    draw = np.random.default_rng(0)
    levels = {name: draw.integers(0, 3, 50) for name in RATERS.split(",")}
    weights = np.concatenate([np.ones((1, 50)), draw.multinomial(50, np.full(50, 0.02), size=200)])
    found = experts.each_other(levels, weights)
    pairs = {
        "experts": (("expert1", "expert2"), ("expert1", "expert3"), ("expert2", "expert3")),
        "crowd": (("crowd", "expert1"), ("crowd", "expert2"), ("crowd", "expert3")),
    }
    drawn = {
        side: [[quadratic(levels[one], levels[other], weight) for one, other in of_side] for weight in weights]
        for side, of_side in pairs.items()
    }
    for side, of_side in pairs.items():
        kappas = [found["kappa"][f"{one} and {other}"]["value"] for one, other in of_side]
        assert kappas == pytest.approx(drawn[side][0], abs=1e-4)
        assert found["mean"][side]["value"] == pytest.approx(np.mean(drawn[side][0]), abs=1e-4)
    difference = np.mean(drawn["crowd"], axis=1) - np.mean(drawn["experts"], axis=1)
    expected = dict(zip(("value", "low", "high"), (difference[0], *np.percentile(difference[1:], (2.5, 97.5))), strict=True))
    assert found["crowd_above_experts"] == pytest.approx(expected, abs=1e-4)


def quadratic(one: object, other: object, sample_weight: object) -> float:
    return float(cohen_kappa_score(one, other, weights="quadratic", sample_weight=sample_weight))


def test_the_median_is_of_the_three_experts(experts: ModuleType, tmp_path: Path) -> None:
    rows = [f"a,b,{name},0,{levels},1,1,1" for name, levels in (("ER", "0,2,1"), ("EX", "0,0,2"), ("IP", "2,2,0"))]
    found = experts.read_ratings(table(tmp_path, *rows), EPITOME)
    assert found.ids == ("a_b",)
    assert [found.levels[name]["experts' median"].tolist() for name in EPITOME.names] == [[1], [0], [2]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,b,ER,0,0,0,0,0,0,3"], "row 1, column 'gemini-2.5-pro': 3 found, expected 0, 1 or 2"),
        (["a,b,ER,0,0,,0,0,0,0"], "row 1, column 'expert2': empty, expected a level"),
        (["a,b,XX,0,0,0,0,0,0,0"], "row 1, column 'mechanism': 'XX' found, expected ER, EX, IP"),
        (
            ["a,b,ER,0,0,0,0,0,0,0", "a,b,ER,0,2,2,2,0,0,0"],
            "row 2, column 'mechanism': ER of this pair has a row already, expected one for each pair and mechanism",
        ),
        (["a,b,ER,0,0,0"], "row 1: 6 cells found, expected 10"),
        (["a,b,ER,0,0,0,0,0,0,0"], "pair 1 is rated for ER, expected ER, EX, IP"),
        ([], "no rows, expected at least one pair"),
    ],
)
def test_a_fault_in_the_ratings_is_named(experts: ModuleType, tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(KitError, match=r"ratings\.csv") as caught:
        experts.read_ratings(table(tmp_path, *rows), EPITOME)
    assert message in str(caught.value)


def test_a_table_that_is_not_there_is_named(experts: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"ratings\.csv: no such file$"):
        experts.read_ratings(tmp_path / "ratings.csv", EPITOME)


def test_pairs_are_found_by_their_ids_and_the_crowds_labels(experts: ModuleType, tmp_path: Path) -> None:
    rows = [f"a,b,{name},{level},0,0,0,0,0,0" for name, level in zip(EPITOME.names, (0, 1, 2), strict=True)]
    ratings = experts.read_ratings(table(tmp_path, *rows), EPITOME)
    pairs = [
        Pair(1, "x_y", "", "s", "r", (0, 1, 2)),
        Pair(2, "a_b", "", "s", "r", (0, 1, 1)),
        Pair(3, "a_b", "", "s", "r", (1, 1, 2)),
    ]
    assert experts.places(Corpus("hand", tuple(pairs), {}), ratings) == [1]
    for rest, strange in ((pairs[:1], 3), (pairs[:2], 1)):
        with pytest.raises(KitError, match=f"{strange} of the crowd's labels are not in hand, expected all"):
            experts.places(Corpus("hand", tuple(rest), {}), ratings)
