"""Over- and undersampling: what an epoch shows, and that it balances several tasks at once as far as one pair's weight may go."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from empathy_kit import KitError, Sampler, Task
from empathy_kit.builtin.samplers import everything, over, under
from empathy_kit.core.samplers import frequencies
from empathy_kit.data.sources import load_corpus
from empathy_kit.testing import Check, sampler_checks

# How many pairs of EPITOME's Reddit part have each combination of levels of ER, EX and IP.
# fmt: off
REDDIT = {
    "000": 703, "001": 70, "002": 917, "010": 46, "011": 4, "012": 11, "020": 229, "021": 5, "022": 52,
    "100": 470, "101": 28, "102": 289, "110": 33, "112": 7, "120": 46, "121": 2, "122": 20, "200": 76,
    "201": 5, "202": 46, "210": 3, "220": 20, "222": 2,
}
# fmt: on
# With their defaults, tests/testing/test_conformance_kit.py judges them.
PROMISES = [
    pytest.param(check, id=f"{spec.name}-{check}")
    for spec, options in (
        (Sampler("over", over), {"power": 0.5, "most": 1000.0}),
        (Sampler("under", under), {"power": 0.3, "least": 0.001}),
    )
    for check in sampler_checks(spec, options=options)
]


@pytest.mark.parametrize("check", PROMISES)
def test_promise(check: Check) -> None:
    check()


def reddit() -> Tensor:
    return torch.tensor([[int(level) for level in levels] for levels, pairs in REDDIT.items() for _ in range(pairs)])


def sample() -> Tensor:
    return torch.tensor([pair.levels for pair in load_corpus("sample").pairs])


def tasks_of(labels: Tensor) -> list[Task]:
    counts = [torch.bincount(column[column >= 0]).tolist() for column in labels.T]
    return [Task(f"T{at}", tuple(map(str, range(len(count)))), tuple(count)) for at, count in enumerate(counts)]


def epoch(build: Any, labels: Tensor, *, seed: int = 0, **options: Any) -> Tensor:
    positions: Tensor = build(tasks_of(labels), labels, **options)(Generator().manual_seed(seed))
    return positions


def shares(labels: Tensor, weights: Tensor | None = None) -> list[list[float]]:
    """Of each task, the share of each label among the labelled pairs."""
    weights = torch.ones(len(labels)) if weights is None else weights
    found = []
    for column in labels.T:
        counts = torch.bincount(column[column >= 0], weights[column >= 0].double())
        found.append((counts / counts.sum()).tolist())
    return found


def rounded(values: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(value, 2) for value in row] for row in values]


def test_all_shows_every_pair_once_and_draws_no_random_number() -> None:
    generator = Generator().manual_seed(5)
    before = generator.get_state()
    positions = everything(tasks_of(sample()), sample())(generator)
    assert torch.equal(positions, torch.arange(300))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(("task", "common", "rare"), [(0, 2037, 152), (1, 2604, 104), (2, 1626, 114)])
def test_for_one_task_they_are_the_classical_ones(task: int, common: int, rare: int) -> None:
    labels = reddit()[:, task : task + 1]
    assert torch.bincount(labels[epoch(over, labels, most=1000.0)][:, 0]).tolist() == [common] * 3
    assert torch.bincount(labels[epoch(under, labels, least=0.001)][:, 0]).tolist() == [rare] * 3


def test_an_epoch_of_over_shows_every_pair_once_and_none_more_than_most_times() -> None:
    for most in (1.0, 2.5, 10.0):
        times = torch.bincount(epoch(over, reddit(), most=most), minlength=3084)
        assert times.min() == 1
        assert times.max() == math.ceil(most)


def test_an_epoch_of_under_shows_no_pair_twice_the_rarest_always_and_others_another_time() -> None:
    labels = reddit()
    first, second = (set(epoch(under, labels, seed=seed).tolist()) for seed in (0, 1))
    rare = set((labels[:, 1:] == 1).any(1).nonzero()[:, 0].tolist())  # level 1 of EX or IP
    assert len(first) == len(epoch(under, labels))
    assert rare <= first
    assert rare <= second
    assert len(first & second) < 0.8 * len(first)


def test_what_their_descriptions_say_of_epitomes_label_counts() -> None:
    labels = reddit()
    assert rounded(shares(labels)) == [[0.66, 0.29, 0.05], [0.84, 0.03, 0.12], [0.53, 0.04, 0.44]]
    balanced = torch.tensor([[0.517, 0.295, 0.188], [0.621, 0.145, 0.234], [0.483, 0.159, 0.358]])
    repeated, cut = epoch(over, labels), epoch(under, labels)
    assert round(len(repeated) / 3084, 1) == 2.3
    assert round(len(cut) / 3084, 2) == 0.23
    assert torch.tensor(shares(labels[repeated])).sub(balanced).abs().max() < 0.001
    assert torch.tensor(shares(labels[cut])).sub(balanced).abs().max() < 0.005
    unbounded = epoch(over, labels, most=1000.0)
    assert round(len(unbounded) / 3084, 1) == 4.4
    assert round(int(torch.bincount(unbounded).max()), -2) == 500


@pytest.mark.parametrize(("build", "option"), [(over, {"most": 1000.0}), (under, {"least": 0.001})])
def test_without_a_bound_every_label_of_every_task_has_an_equal_share(build: Any, option: dict[str, Any]) -> None:
    labels = reddit()
    shown = labels[epoch(build, labels, **option)]
    assert torch.tensor(shares(shown)).sub(1 / 3).abs().max() * len(shown) <= len(REDDIT)  # one pair per combination of labels


def test_within_the_bound_no_other_frequencies_come_nearer_to_equal_shares() -> None:
    labels = reddit()
    kind = torch.unique(labels, dim=0, return_inverse=True)[1]
    best = frequencies(labels, power=1.0, fewest=1.0, most=10.0)

    def distance(often: Tensor) -> float:
        return sum(math.log(1 / 3 / share) / 3 for row in shares(labels, often) for share in row)

    generator = Generator().manual_seed(0)
    for spread in (0.01, 0.1, 1.0):
        for _ in range(20):
            factors = (spread * torch.randn(len(REDDIT), generator=generator)).exp()
            assert distance((best * factors[kind]).clamp(1, 10)) >= distance(best) - 1e-9


def test_the_same_ratio_between_pairs_is_the_same_balance() -> None:
    repeated = frequencies(reddit(), power=1.0, fewest=1.0, most=10.0)
    cut = frequencies(reddit(), power=1.0, fewest=0.1, most=1.0)
    assert (repeated - 10 * cut).abs().max() < 1e-4


@pytest.mark.parametrize("build", [over, under])
def test_power_0_leaves_the_shares_as_they_are_and_between_they_go_by_a_power_of_the_counts(build: Any) -> None:
    labels = reddit()
    assert torch.equal(epoch(build, labels, power=0.0).sort().values, torch.arange(3084))
    column = labels[:, :1]
    (found,) = shares(column[epoch(build, column, power=0.5)])
    roots = torch.tensor([2037.0, 895.0, 152.0]).sqrt()
    assert found == pytest.approx((roots / roots.sum()).tolist(), abs=2e-3)


def test_where_tasks_contradict_each_other_they_meet_in_between() -> None:
    """Label 1 of the first task is label 2 of the second: it cannot have both a half and a third of the pairs."""
    labels = torch.tensor([[0, 0]] * 60 + [[0, 1]] * 30 + [[1, 2]] * 10)
    often = frequencies(labels, power=1.0, fewest=1.0, most=1000.0)
    assert shares(labels, often)[0][1] == pytest.approx(5 / 12, abs=1e-6)  # the mean, which has the least divergence
    assert shares(labels, often)[1] == pytest.approx([7 / 24, 7 / 24, 5 / 12], abs=1e-6)


def test_a_task_that_is_another_by_another_name_changes_nothing() -> None:
    column = reddit()[:, :1]
    once = frequencies(column, power=1.0, fewest=1.0, most=10.0)
    twice = frequencies(column.expand(-1, 2), power=1.0, fewest=1.0, most=10.0)
    assert torch.allclose(once, twice, atol=1e-5)


def test_shares_are_of_labelled_pairs_and_a_missing_label_moves_nothing() -> None:
    labels = torch.tensor([[0, 0]] * 60 + [[1, 0]] * 20 + [[-1, 0]] * 10 + [[-1, 1]] * 45 + [[-1, -1]] * 5)
    repeated = epoch(over, labels, most=1000.0)
    assert torch.tensor(shares(labels[repeated])).sub(0.5).abs().max() < 0.01
    assert torch.bincount(repeated)[-5:].tolist() == [1] * 5  # teaches nothing: never repeated
    cut = frequencies(labels, power=1.0, fewest=0.001, most=1.0)
    assert cut[-1] == pytest.approx(float(cut[:-5].mean()))  # nor kept at the cost of those that teach
    assert torch.equal(epoch(over, torch.full((4, 2), -1)).sort().values, torch.arange(4))
    absent = torch.cat([reddit(), torch.full((3084, 1), -1)], 1)
    bounds = {"power": 1.0, "fewest": 1.0, "most": 10.0}
    assert (frequencies(absent, **bounds) - frequencies(reddit(), **bounds)).abs().max() < 1e-3


@pytest.mark.parametrize("build", [over, under])
def test_epochs_hardly_differ_in_length_or_shares_and_are_exact_on_average(build: Any) -> None:
    labels = sample()
    tasks, kinds = tasks_of(labels), torch.unique(labels, dim=0, return_inverse=True)[1]
    often = (
        frequencies(labels, power=1.0, fewest=1.0, most=10.0)
        if build is over
        else frequencies(labels, power=1.0, fewest=0.1, most=1.0)
    )
    expected = torch.bincount(kinds, often)
    draws, generator, total = build(tasks, labels), Generator().manual_seed(0), torch.zeros(300)
    for _ in range(400):
        positions = draws(generator)
        total += torch.bincount(positions, minlength=300)
        assert abs(len(positions) - float(often.sum())) < 1
        assert (torch.bincount(kinds[positions], minlength=len(expected)) - expected).abs().max() < 1
    assert (total / 400 - often).abs().max() < 0.12  # 4 standard errors or more of what is drawn


def test_a_pair_of_a_rare_label_that_stands_alone_is_shown() -> None:
    labels = torch.tensor([[0]] * 99 + [[1]])
    assert Counter(epoch(over, labels).tolist())[99] == 10
    assert 99 in epoch(under, labels).tolist()


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (over, {"most": 0.5}, "sampler over: option 'most' is 0.5; expected 1 to 1000"),
        (over, {"power": 1.5}, "sampler over: option 'power' is 1.5; expected 0 to 1"),
        (under, {"least": 0.0}, "sampler under: option 'least' is 0.0; expected 0.001 to 1"),
        (under, {"power": -1.0}, "sampler under: option 'power' is -1.0; expected 0 to 1"),
    ],
)
def test_an_option_out_of_range_is_refused(build: Any, options: dict[str, float], message: str) -> None:
    with pytest.raises(KitError) as error:
        build(tasks_of(sample()), sample(), **options)
    assert str(error.value) == message
