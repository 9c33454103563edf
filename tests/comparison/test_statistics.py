"""Statistics: equal to scipy's and statsmodels' where they have them, and right about what they do not have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar

from empathy_kit.comparison.statistics import (
    Answers,
    Resampled,
    _weights,
    contrasts,
    different,
    paired_test,
    sign_flip,
)
from empathy_kit.core.calibration import calibration

Ints = NDArray[np.int64]


def answers(true: Ints, predicted: Ints, part: int = 0) -> Answers:
    return Answers(tuple(f"{part}-{at}" for at in range(len(true))), true, predicted)


def random_runs(seeds: int, *, pairs: int = 200, seed: int = 0, right: float = 0.7, resplit: bool = False) -> list[Answers]:
    generator = np.random.default_rng(seed)
    runs = []
    true = generator.integers(3, size=pairs)
    for part in range(seeds):
        true = generator.integers(3, size=pairs) if resplit else true
        guess = np.where(generator.random(pairs) < right, true, generator.integers(3, size=pairs))
        runs.append(answers(true, guess, part if resplit else 0))
    return runs


def test_the_mean_is_the_mean_of_the_runs_scores() -> None:
    runs = random_runs(3)
    found = Resampled(runs, 3).mean([0, 1, 2], "macro_f1")
    assert found.value == pytest.approx(np.mean([f1_score(run.true, run.predicted, average="macro") for run in runs]))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_one_seed_has_no_interval() -> None:
    found = Resampled(random_runs(1), 3).mean([0], "accuracy")
    assert (found.low, found.high, found.by, found.error, found.smallest, found.p) == (None,) * 6


def test_a_difference_has_a_sign_and_a_configuration_does_not_differ_from_itself() -> None:
    resampled = Resampled([*random_runs(3, seed=1), *random_runs(3, seed=2, right=0.8)], 3)
    there, back = resampled.difference([0, 1, 2], [3, 4, 5], "accuracy"), resampled.difference([3, 4, 5], [0, 1, 2], "accuracy")
    assert there.value == -back.value
    assert there.low == pytest.approx(-(back.high or 0))
    same = resampled.difference([0, 1, 2], [0, 1, 2], "accuracy")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_draws_in_blocks_are_the_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pairs would otherwise need gigabytes: 2,000 draws of 60,000 pairs, and of each all cells of all runs."""
    runs = [*random_runs(2, pairs=50), *random_runs(1, pairs=50, seed=9)]
    whole = Resampled(runs, 3)
    monkeypatch.setattr("empathy_kit.comparison.statistics.BLOCK", 50 * 300)  # 300 draws, the last block of 200
    parts = Resampled(runs, 3)
    for metric in whole.draws:
        assert np.array_equal(whole.draws[metric], parts.draws[metric], equal_nan=True)


@pytest.mark.filterwarnings("error")
def test_a_score_that_is_undefined_for_one_seed_has_no_mean() -> None:
    """All pairs and all predictions of one level: there is no kappa, and it is not 0."""
    true = np.zeros(20, dtype=np.int64)
    runs = [answers(true, true, 0), *random_runs(2, pairs=20)]
    resampled = Resampled(runs, 3)
    assert np.isnan(resampled.point["kappa"]).tolist() == [True, False, False]
    found = resampled.mean(range(3), "kappa")
    assert np.isnan(found.value)
    assert (found.low, found.high, found.by, found.smallest) == (None, None, None, None)
    assert resampled.mean([1, 2], "kappa").by in ("seeds", "pairs")


def test_draws_count_each_pair_as_a_multinomial_does() -> None:
    drawn = _weights(np.random.default_rng(0), 4000, 20)
    assert drawn.sum(1).tolist() == [20] * 4000
    assert drawn.mean(0) == pytest.approx(1, abs=0.06)
    assert drawn.var(0) == pytest.approx(19 / 20, abs=0.08)
    assert float(np.cov(drawn[:, 0], drawn[:, 1])[0, 1]) == pytest.approx(-1 / 20, abs=0.05)


def test_seeds_that_answer_alike_leave_the_noise_of_the_pairs() -> None:
    """Twins add nothing: the error is that of one run, over its pairs."""
    (run,) = random_runs(1, pairs=400)
    found = Resampled([run, run, run], 3).mean([0, 1, 2], "accuracy")
    accuracy = float((run.true == run.predicted).mean())
    assert found.error == pytest.approx((accuracy * (1 - accuracy) / 400) ** 0.5, rel=0.06)


def test_seeds_that_agree_by_chance_leave_the_noise_of_the_pairs() -> None:
    """Four splits of other pairs with one and the same score: 300 of 400 right, and nobody would believe [.75, .75]."""
    true = np.zeros(100, dtype=np.int64)
    runs = [answers(true, np.random.default_rng(part).permutation(np.repeat([0, 1], [75, 25])), part) for part in range(4)]
    found = Resampled(runs, 3).mean(range(4), "accuracy")
    low, high = 0.75 + np.array([-1.96, 1.96]) * (0.75 * 0.25 / 400) ** 0.5
    assert (found.low, found.high) == (pytest.approx(low, abs=0.003), pytest.approx(high, abs=0.003))


@pytest.mark.parametrize(("right", "by"), [(301, "pairs"), (303, "seeds"), (311, "seeds"), (314, "seeds")])  # of 400
def test_the_interval_is_the_wider_of_students_and_the_pairs(right: int, by: str) -> None:
    """Beside 300 the seeds' variance is .01, .06, .8 and 1.3 times the pairs'; Student's quantile of 2 seeds is 12.7."""
    true = np.zeros(400, dtype=np.int64)
    runs = [answers(true, (np.arange(400) >= hits).astype(np.int64), part) for part, hits in enumerate((300, right))]
    found = Resampled(runs, 3).mean(range(2), "accuracy")
    scores = np.array([300, right]) / 400
    of_pairs, of_seeds = float((scores * (1 - scores) / 400).sum()) / 4, float(scores.var(ddof=1)) / 2
    reach = {"pairs": 1.96 * of_pairs**0.5, "seeds": scipy.stats.t.ppf(0.975, 1) * of_seeds**0.5}
    assert (found.by, max(reach, key=lambda kind: reach[kind])) == (by, by)
    assert found.low is not None
    assert found.high is not None
    assert found.freedom is not None
    assert found.error is not None
    if by == "pairs":
        assert found.high - found.value == pytest.approx(reach[by], rel=0.06)  # draws are not quite the formula's
        assert found.freedom > 1000
    else:
        assert found.freedom == pytest.approx(1, rel=0.15)  # Satterthwaite's, and not quite 1 for the same reason
        low = found.value - scipy.stats.t.ppf(0.975, found.freedom) * found.error
        assert (found.low, found.high) == (pytest.approx(max(low, 0)), pytest.approx(min(2 * found.value - low, 1)))
        assert found.value - low > reach["pairs"]
    design = (max(of_seeds, of_pairs)) ** 0.5  # what two splits can find is Student's all the same
    assert found.smallest == pytest.approx(design * sum(scipy.stats.t.ppf((0.975, 0.8), 1)), rel=0.25)


def test_the_variance_is_the_seeds_and_what_they_share_of_the_pairs() -> None:
    """Three runs with luck, on the same pairs, of which some are hard for all."""
    generator = np.random.default_rng(0)
    hard = generator.random(400)
    true = np.zeros(400, dtype=np.int64)
    hits = np.stack([hard + generator.normal(0, 0.1, 400) < share for share in (0.62, 0.7, 0.78)])
    found = Resampled([answers(true, (~row).astype(np.int64)) for row in hits], 3).mean(range(3), "accuracy")
    of_seeds = hits.mean(1).var(ddof=1) / 3
    of_pairs = hits.mean(0).var() / 400
    own = (hits.var(1).mean() / 400 - of_pairs) / 2
    assert of_pairs - own > 0.1 * of_seeds
    assert (found.error or 0) ** 2 == pytest.approx(of_seeds + of_pairs - own, rel=0.02)


def test_seeds_that_disagree_by_chance_have_no_fewer_degrees_of_freedom_than_seeds_have() -> None:
    true = np.zeros(400, dtype=np.int64)
    right = np.random.default_rng(0).permutation(400) < 200
    found = Resampled([answers(true, (~row).astype(np.int64)) for row in (right, ~right)], 3).mean(range(2), "accuracy")
    own = right.var() / 400  # and none that the seeds share: each draw of pairs leaves their mean as it is
    assert found.smallest is not None
    assert scipy.stats.nct.sf(scipy.stats.t.ppf(0.975, 1), 1, found.smallest / own**0.5) == pytest.approx(0.8, abs=0.03)


@pytest.mark.filterwarnings("error")
def test_a_draw_without_a_pair_of_a_tiny_test_part_is_left_out() -> None:
    true = np.zeros(8, dtype=np.int64)
    runs = [answers(true, np.repeat([0, 1], [6, 2]), part) for part in range(5)]
    resampled = Resampled(runs, 3)
    assert np.isnan(resampled.draws["accuracy"]).any()
    found = resampled.mean(range(5), "accuracy")
    assert found.error == pytest.approx((0.75 * 0.25 / 40) ** 0.5, rel=0.1)


def test_on_splits_without_a_common_pair_the_interval_is_students() -> None:
    runs = random_runs(5, resplit=True)
    scores = [float((run.true == run.predicted).mean()) for run in runs]
    found = Resampled(runs, 3).mean(range(5), "accuracy")
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(scores), scipy.stats.sem(scores))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.004), pytest.approx(high, abs=0.004))


def test_p_is_students_and_small_where_the_interval_leaves_0_out() -> None:
    resampled = Resampled([*random_runs(5, resplit=True), *random_runs(5, seed=9, right=0.74, resplit=True)], 3)
    gains = resampled.point["accuracy"][5:] - resampled.point["accuracy"][:5]
    found = resampled.difference(range(5), range(5, 10), "accuracy")
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(gains, 0).pvalue, rel=0.2)
    for seeds in itertools.combinations(range(5), 3):
        found = resampled.difference(seeds, [5 + at for at in seeds], "accuracy")
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        assert (found.p <= 0.05) == (found.low * found.high > 0)
    alike = resampled.difference([0, 1], [0, 1], "accuracy")
    assert (alike.value, alike.p) == (0, 1)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for a variance, where hundreds are estimated."""
    monkeypatch.setattr("empathy_kit.comparison.statistics.RESAMPLES", 300)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("resplit", [False, True])
def test_intervals_cover_the_truth_about_as_often_as_they_say(resplit: bool) -> None:
    """`benchmarks/coverage.py` does the same with more worlds and repeats, and commits what it found."""
    hits = 0
    for repeat in range(120):
        runs = random_runs(4, pairs=120, seed=repeat, resplit=resplit) + random_runs(4, pairs=120, seed=repeat, resplit=resplit)
        generator = np.random.default_rng(1000 + repeat)
        for at in range(4, 8):  # the second configuration: the same pairs, answers of its own
            guess = np.where(generator.random(120) < 0.7, runs[at].true, generator.integers(3, size=120))
            runs[at] = Answers(runs[at].ids, runs[at].true, guess)
        found = Resampled(runs, 3, seed=repeat).difference(range(4), range(4, 8), "accuracy")
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 120 <= 0.99


@pytest.mark.parametrize("seed", range(5))
def test_mcnemars_test_is_statsmodels_and_of_one_seed_so_is_the_exact_one(seed: int) -> None:
    (one,), (other,) = random_runs(1, seed=seed), random_runs(1, seed=seed)
    other = Answers(one.ids, one.true, np.roll(one.predicted, 1) if seed % 2 else np.where(one.predicted == 2, 1, one.predicted))
    test = paired_test([one], [other])
    table = [[0, test.lost], [test.gained, 0]]
    assert test.mcnemar == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert test.exact == pytest.approx(test.mcnemar)


def test_a_pair_that_every_seed_gets_right_counts_once() -> None:
    true = np.zeros(6, dtype=np.int64)
    wrong, right = np.ones(6, dtype=np.int64), np.zeros(6, dtype=np.int64)
    test = paired_test([answers(true, wrong)] * 3, [answers(true, right)] * 3)
    assert (test.gained, test.lost) == (18, 0)
    assert test.mcnemar == pytest.approx(2 / 2**18)
    assert test.exact == pytest.approx(2 / 2**6)


@pytest.mark.parametrize(("sizes", "total"), [([1, 1, 1], 1), ([3, 1, 2, 2], 4), ([5, 1], -4), ([1], 1), ([], 0)])
def test_sign_flips_are_all_flips(sizes: list[int], total: int) -> None:
    sums = [
        sum(sign * size for sign, size in zip(signs, sizes, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(sizes))
    ]
    assert sign_flip(sizes, total) == pytest.approx(np.mean([abs(value) >= abs(total) for value in sums]))


@pytest.mark.parametrize(("count", "total"), [(500, 500), (500, 60), (20_000, 600), (200_000, 900)])
def test_sign_flips_of_many_pairs_are_a_binomial_test(count: int, total: int) -> None:
    found = sign_flip([1] * count, total)
    assert found == pytest.approx(2 * scipy.stats.binom.sf((count + total) // 2 - 1, count, 0.5), rel=1e-8)
    assert sign_flip([2] * count, 2 * total) == pytest.approx(found, rel=1e-12)


def test_runs_on_other_pairs_are_not_tested() -> None:
    with pytest.raises(ValueError, match="different pairs"):
        paired_test(random_runs(1, resplit=True), [answers(np.zeros(200, np.int64), np.zeros(200, np.int64), part=7)])


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_smallest_difference_is_found_four_times_of_five(seeds: int) -> None:
    runs = [*random_runs(seeds, seed=0, resplit=True), *random_runs(seeds, seed=1, resplit=True, right=0.75)]
    found = Resampled(runs, 3).difference(range(seeds), range(seeds, 2 * seeds), "accuracy")
    assert found.error is not None
    assert found.freedom is not None
    assert found.smallest is not None
    assert found.by == "seeds"
    beyond = scipy.stats.nct.sf(scipy.stats.t.ppf(0.975, found.freedom), found.freedom, found.smallest / found.error)
    assert beyond == pytest.approx(0.8, abs=1e-6)


@pytest.mark.usefixtures("few_draws")
def test_the_smallest_difference_is_found_four_times_of_five_where_seeds_may_agree() -> None:
    """Five splits of other pairs, no luck of the seeds: every other design's interval is that of the pairs alone."""
    smallest = 0.125
    found = []
    for repeat in range(100):
        generator = np.random.default_rng(repeat)
        runs = []
        for share in (0.6, 0.6 + smallest):
            for part in range(5):
                predicted = (generator.random(80) >= share).astype(np.int64)
                runs.append(answers(np.zeros(80, np.int64), predicted, part))
        found.append(Resampled(runs, 3, seed=repeat).difference(range(5), range(5, 10), "accuracy"))
    assert np.median([each.smallest or 0 for each in found]) == pytest.approx(smallest, rel=0.1)
    assert np.mean([each.low is not None and each.low > 0 for each in found]) == pytest.approx(0.8, abs=0.1)


def test_calibration_is_the_bins_mean_distance() -> None:
    sure = np.array([[0.95, 0.05, 0.0], [0.95, 0.05, 0.0], [0.4, 0.3, 0.3], [1.0, 0.0, 0.0]])
    found = calibration(sure, np.array([0, 1, 0, 0]))
    assert found.counts == [0, 0, 0, 0, 1, 0, 0, 0, 0, 3]
    assert found.confidence[9] == pytest.approx(2.9 / 3)
    assert found.accuracy[9] == pytest.approx(2 / 3)
    assert found.ece == pytest.approx(3 / 4 * abs(2.9 / 3 - 2 / 3) + 1 / 4 * 0.6)


SETTINGS: dict[str, dict[str, object]] = {
    "T1": {"loss": "ce", "rationale": "none", "tasks": ["ER", "EX"]},
    "T2": {"loss": "ce", "rationale": "predicted", "tasks": ["ER", "EX"]},
    "T3": {"loss": "focal", "rationale": "none", "tasks": ["ER", "EX"], "-o loss.ER.gamma": 2, "-o loss.EX.gamma": 2},
    "T4": {"loss": "focal", "rationale": "predicted", "tasks": ["ER", "EX"], "-o loss.ER.gamma": 2, "-o loss.EX.gamma": 2},
}


def test_each_is_compared_with_the_first_and_with_all_that_differ_in_one_setting() -> None:
    assert contrasts(SETTINGS) == [("T1", "T2"), ("T1", "T3"), ("T1", "T4"), ("T2", "T4"), ("T3", "T4")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"-o loss.ER.gamma": 3, "-o loss.EX.gamma": 3}, {"-o loss.gamma"}),  # one option, of two tasks
        ({"-o loss.ER.gamma": 3, "-o loss.ER.power": 1}, {"-o loss.gamma", "-o loss.power"}),
        ({"loss": "mine", "-o loss.ER.gamma": 3, "-o loss.ER.alpha": 1}, {"loss"}),  # the options are another plugin's
        ({"trunk": "mean", "-o loss.EX.gamma": 3}, {"trunk", "-o loss.gamma"}),
        ({"-o trunk.hidden": 8}, {"-o trunk.hidden"}),
        ({"encoder": "mpnet", "freeze_layers": 6}, {"encoder"}),  # which has more layers
        ({"encoder": "mpnet", "precision": "bf16"}, {"encoder"}),  # which may be too slow without it
        ({"freeze_layers": 6}, {"freeze_layers"}),
        ({"precision": "bf16"}, {"precision"}),
    ],
)
def test_settings_are_counted_as_they_are_given(changes: dict[str, object], expected: set[str]) -> None:
    assert different(SETTINGS["T3"], {**SETTINGS["T3"], **changes}) == expected


def test_options_of_tasks_that_one_does_not_have_are_no_difference() -> None:
    alone = {"loss": "focal", "rationale": "none", "tasks": ["ER"], "-o loss.ER.gamma": 2}
    assert different(SETTINGS["T3"], alone) == {"tasks"}
