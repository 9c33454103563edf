"""Scores against scikit-learn, intervals against a simulation, spans against cases counted by hand."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from empathy_kit.core import metrics
from empathy_kit.core.metrics import (
    BATCH,
    Floats,
    Ints,
    average_precision,
    batch_macro_f1,
    from_confusion,
    macro_f1,
    runs,
    score,
    score_spans,
)


def random_levels(seed: int, n: int, shares: tuple[float, ...]) -> tuple[Ints, Ints]:
    rng = np.random.default_rng(seed)
    target = rng.choice(len(shares), n, p=shares)
    predicted = np.where(rng.random(n) < 0.6, target, rng.choice(len(shares), n, p=shares))
    return target, predicted


def certain(predicted: Ints, classes: int) -> Floats:
    """Probabilities that leave no doubt."""
    return np.eye(classes)[predicted]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("n", "shares"),
    [
        (464, (0.66, 0.29, 0.05)),
        (7, (0.5, 0.3, 0.2)),
        (60, (0.9, 0.1, 0.0)),
        (200, (0.7, 0.3)),
        (300, (0.4, 0.3, 0.15, 0.1, 0.05)),
    ],
)
def test_every_score_equals_scikit_learns_for_any_number_of_labels(seed: int, n: int, shares: tuple[float, ...]) -> None:
    target, predicted = random_levels(seed, n, shares)
    levels = list(range(len(shares)))
    scores = score(target, certain(predicted, len(shares)), majority=0, seed=0)
    f1 = {
        average: f1_score(target, predicted, labels=levels, average=average, zero_division=0) for average in ("weighted", "macro")
    }
    assert scores.n == n
    assert scores.confusion == confusion_matrix(target, predicted, labels=levels).tolist()
    assert scores.accuracy.value == pytest.approx(accuracy_score(target, predicted))
    assert scores.weighted_f1.value == pytest.approx(f1["weighted"])
    assert scores.macro_f1.value == pytest.approx(f1["macro"])
    assert macro_f1(target, predicted, len(shares)) == scores.macro_f1.value
    if len({*target, *predicted}) > 1:
        assert scores.kappa is not None
        assert scores.kappa.value == pytest.approx(cohen_kappa_score(target, predicted, labels=levels, weights="quadratic"))
    by_level = precision_recall_fscore_support(target, predicted, labels=levels, zero_division=0)[:3]
    for estimates, expected in zip((scores.precision, scores.recall, scores.f1), by_level, strict=True):
        assert [estimate.value for estimate in estimates] == pytest.approx(list(expected))
    for estimate in filter(None, (scores.accuracy, scores.weighted_f1, scores.macro_f1, scores.kappa, *scores.f1)):
        assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_the_majority_class_stands_beside_the_scores() -> None:
    target, predicted = random_levels(0, 200, (0.6, 0.3, 0.1))
    always = np.full_like(target, 1)
    majority = score(
        target, certain(predicted, 3), majority=1, seed=0
    ).majority  # the training part's commonest, not the test part's
    assert majority == {
        "accuracy": pytest.approx(accuracy_score(target, always)),
        "weighted_f1": pytest.approx(f1_score(target, always, average="weighted", zero_division=0)),
        "macro_f1": pytest.approx(f1_score(target, always, labels=[0, 1, 2], average="macro", zero_division=0)),
    }


def test_a_level_is_never_predicted_only_if_the_test_part_has_it() -> None:
    target = np.array([0, 0, 1, 1])
    assert score(target, certain(np.array([0, 0, 0, 0]), 3), majority=0, seed=0).never_predicted == [1]
    assert score(target, certain(np.array([0, 1, 0, 2]), 3), majority=0, seed=0).never_predicted == []
    assert score(np.array([2, 1, 0]), certain(np.array([1, 1, 1]), 3), majority=0, seed=0).never_predicted == [0, 2]


def test_one_level_alone_has_finite_scores_and_undefined_kappa() -> None:
    level = np.zeros(10, dtype=np.int64)
    scores = score(level, certain(level, 3), majority=0, seed=0)
    assert (scores.accuracy.value, scores.weighted_f1.value) == (1, 1)
    assert scores.macro_f1.value == pytest.approx(1 / 3)
    assert scores.kappa is None
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(cohen_kappa_score(level, level, labels=[0, 1, 2], weights="quadratic"))
    assert json.loads(json.dumps(asdict(scores), allow_nan=False))["kappa"] is None
    assert scores.never_predicted == []
    single = score(np.array([2]), certain(np.array([0]), 3), majority=0, seed=0)
    assert single.kappa is not None
    assert (single.n, single.accuracy.value, single.kappa.value, single.never_predicted) == (1, 0, 0, [2])


def test_kappas_interval_leaves_out_draws_in_which_it_is_undefined() -> None:
    target, predicted = np.array([0] * 11 + [1]), np.array([0] * 12)  # a third of the draws have no pair of level 1
    found = score(target, certain(predicted, 2), majority=0, seed=0).kappa
    assert found is not None
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_scores_of_no_pairs_are_refused() -> None:
    nothing = np.array([], dtype=np.int64)
    with pytest.raises(ValueError, match=r"^no pairs to score$"):
        score(nothing, certain(nothing, 3), majority=0, seed=0)
    with pytest.raises(ValueError, match=r"^no pairs to score$"):
        score_spans([], [], seed=0)


def test_intervals_come_from_the_seed_alone() -> None:
    target, predicted = random_levels(0, 100, (0.6, 0.3, 0.1))
    np.random.seed(1)
    one = score(target, certain(predicted, 3), majority=0, seed=5)
    np.random.seed(2)
    assert score(target, certain(predicted, 3), majority=0, seed=5) == one
    assert score(target, certain(predicted, 3), majority=0, seed=6) != one


def test_intervals_are_the_bootstrap_over_pairs() -> None:
    target, predicted = random_levels(3, 300, (0.5, 0.3, 0.2))
    rng = np.random.default_rng(0)
    drawn = [macro_f1(target[rows], predicted[rows], 3) for rows in rng.integers(0, 300, (2000, 300))]
    interval = score(target, certain(predicted, 3), majority=0, seed=0).macro_f1
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.01)


def test_intervals_cover_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    # An honest bound for so few: a true coverage of 95 % gives 105 to 119 of 120 but for 1 time in 400. It catches an interval
    # of half the width (68 %) and one that always covers; 93 % and 97 % cannot be told apart with 120 runs.
    population = np.array([[0.50, 0.08, 0.02], [0.06, 0.20, 0.04], [0.02, 0.03, 0.05]])
    truth = from_confusion(population)
    rng = np.random.default_rng(0)
    covered = {"accuracy": 0, "weighted_f1": 0, "macro_f1": 0, "kappa": 0}
    simulations = 120
    monkeypatch.setattr(metrics, "_ranked", lambda *_: [])  # average precision has draws of its own, which take longest
    for turn in range(simulations):
        cells = rng.choice(9, 200, p=population.ravel())
        scores = score(cells // 3, certain(cells % 3, 3), majority=0, seed=turn)
        for name in covered:
            estimate = getattr(scores, name)
            covered[name] += estimate.low <= truth[name] <= estimate.high
    for name, count in covered.items():
        assert 105 <= count <= 119, (name, count)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("digits", [1, 6])  # rounded to one digit, many pairs share a score
def test_average_precision_is_scikit_learns_for_every_level_and_resample(seed: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.choice(3, 200, p=[0.7, 0.25, 0.05])
    chances = np.round(rng.dirichlet([1, 1, 1], 200) + 0.3 * np.eye(3)[target], digits)
    drawn = rng.multinomial(200, np.full(200, 1 / 200), size=3).astype(np.float64)
    for level in range(3):
        expected = [average_precision_score(target == level, chances[:, level], sample_weight=weights) for weights in drawn]
        assert average_precision(target == level, chances[:, level], drawn) == pytest.approx(expected)
        estimate = score(target, chances, majority=0, seed=0).average_precision[level]
        assert estimate is not None
        assert estimate.value == pytest.approx(average_precision_score(target == level, chances[:, level]))
        assert 0 < estimate.low <= estimate.value <= estimate.high <= 1


def test_average_precision_of_a_level_that_no_pair_has_is_missing_and_of_random_scores_is_its_share() -> None:
    rng = np.random.default_rng(0)
    found = score(rng.choice(2, 4000, p=[0.9, 0.1]), rng.dirichlet([1, 1, 1], 4000), majority=0, seed=0).average_precision
    assert found[2] is None
    assert found[1] is not None
    assert found[1].value == pytest.approx(0.1, abs=0.02)
    # A resample without any pair of the level has no average precision, and is left out.
    rare = score(np.array([0, 0, 0, 1]), certain(np.array([0, 0, 1, 1]), 2), majority=0, seed=0).average_precision[1]
    assert rare is not None
    assert 0 < rare.low <= rare.value == 0.5 <= rare.high <= 1


def test_the_mean_over_batches_is_the_one_that_published_figures_of_this_data_are() -> None:
    target, predicted = random_levels(0, 3 * BATCH + 5, (0.66, 0.3, 0.04))
    starts = range(0, len(target), BATCH)
    batches = [(target[at : at + BATCH], predicted[at : at + BATCH]) for at in starts]
    expected = np.mean([f1_score(*batch, average="macro") for batch in batches])  # over the levels that the batch has
    assert batch_macro_f1(target, predicted, 3) == pytest.approx(expected)
    # A rare level that is never predicted costs all pairs at once a third; a batch without such a pair loses nothing.
    rare, never = np.array([2] + [0, 1] * BATCH), np.array([0] + [0, 1] * BATCH)
    assert batch_macro_f1(rare, never, 3) > 0.85 > 0.67 > macro_f1(rare, never, 3)


def tokens(text: str) -> list[bool]:
    return [character == "x" for character in text]


@pytest.mark.parametrize(
    ("text", "stretches"), [("", []), ("....", []), ("xxx", [(0, 3)]), ("x.xx..x", [(0, 1), (2, 4), (6, 7)])]
)
def test_runs_are_the_maximal_stretches(text: str, stretches: list[tuple[int, int]]) -> None:
    assert runs(tokens(text)) == stretches


@pytest.mark.parametrize(
    ("gold", "predicted", "token_f1", "iou_f1"),
    [
        ([".xxx."], [".xxx."], 1.0, 1.0),
        ([".xxxx."], ["...xx."], 2 * 2 / 6, 1.0),  # an overlap of just one half is a match
        ([".xxxxx"], ["....xx"], 2 * 2 / 7, 0.0),  # 2 of 5 is none
        (["xxx..."], ["...xxx"], 0.0, 0.0),
        (["......"], ["......"], 0.0, 0.0),  # nothing to find and nothing said: 0 / 0 is 0
        (["......"], ["..x..."], 0.0, 0.0),
        (["xx.xx."], ["xx...."], 2 * 2 / 6, 2 / 3),  # one of two spans: precision 1, recall 1/2
        (["xxxx"], ["xx.x"], 2 * 3 / 7, 2 * (1 / 2) * 1 / (1 / 2 + 1)),  # the longer half matches, the shorter is wrong
        (["xx..", "...."], ["xx..", "xx.."], 2 * 2 / 6, 2 / 3),  # over the corpus, not a pair's mean
        (["", "xx"], ["", "xx"], 1.0, 1.0),
    ],
)
def test_span_scores_are_what_a_person_counts(gold: list[str], predicted: list[str], token_f1: float, iou_f1: float) -> None:
    scores = score_spans([runs(tokens(row)) for row in gold], [runs(tokens(row)) for row in predicted], seed=0)
    assert scores.pairs == len(gold)
    assert scores.token_f1.value == pytest.approx(token_f1)
    assert scores.iou_f1.value == pytest.approx(iou_f1)
    assert 0 <= scores.token_f1.low <= scores.token_f1.high <= 1
    assert 0 <= scores.iou_f1.low <= scores.iou_f1.high <= 1


def test_annotated_stretches_that_touch_stay_apart_and_those_that_overlap_share_their_tokens() -> None:
    whole = score_spans([[(0, 3), (3, 6)]], [[(0, 6)]], seed=0)
    assert (whole.token_f1.value, whole.iou_f1.value) == (1, 1)  # each half overlaps with the whole by one half
    first = score_spans([[(0, 3), (3, 6)]], [[(0, 3)]], seed=0)
    assert (first.token_f1.value, first.iou_f1.value) == (pytest.approx(2 * 3 / 9), pytest.approx(2 / 3))  # joined: iou_f1 1
    assert score_spans([[(0, 4), (2, 6)]], [[(0, 6)]], seed=0).token_f1.value == 1


def test_many_labels_take_little_memory() -> None:
    generator = np.random.default_rng(0)
    target, probabilities = generator.integers(0, 60, 300), generator.dirichlet(np.ones(60), 300)
    tracemalloc.start()
    try:
        scores = score(target, probabilities, 0, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6  # all matrices at once are 230 MB
    matrix = np.array(scores.confusion)
    drawn = np.random.default_rng(0).multinomial(300, matrix.ravel() / 300, size=2000).reshape(2000, 60, 60)
    right = np.percentile(drawn.trace(axis1=1, axis2=2) / 300, [2.5, 97.5])
    assert (scores.accuracy.low, scores.accuracy.high) == pytest.approx(tuple(right))


def test_span_intervals_are_drawn_in_pieces_and_are_those_of_one_draw() -> None:
    n = 2000
    lengths = np.random.default_rng(1).integers(1, 9, (n, 2))
    gold, predicted = ([[(0, int(length))] for length in column] for column in lengths.T)
    tracemalloc.start()
    try:
        scores = score_spans(gold, predicted, seed=4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10e6  # all draws at once are 32 KB a pair
    sums = np.random.default_rng(4).multinomial(n, np.full(n, 1 / n), size=2000) @ np.column_stack([lengths, lengths.min(1)])
    drawn = np.percentile(2 * sums[:, 2] / (sums[:, 0] + sums[:, 1]), [2.5, 97.5])
    assert (scores.token_f1.low, scores.token_f1.high) == tuple(drawn)


def test_span_rows_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        score_spans([[(0, 1)], []], [[]], seed=0)
