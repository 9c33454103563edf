"""How the pages put differences into words: which were found, which only tell trained models apart, and which are chance."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from empathy_kit.comparison.pages.summary import Contrast
from empathy_kit.comparison.statistics import Corrected, PairedTest, SeedEstimate


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    return importlib.import_module("blocks.reading")


def contrast(
    task: str, low: float | None, high: float | None, models: float, others: float | None, smallest: float = 0
) -> Contrast:
    """A difference, whose p after Holm of the trained models and of others of their recipes are given."""
    value = 0.0 if low is None or high is None else (low + high) / 2
    estimate = SeedEstimate(value, low, high, None, None, None, smallest, None)
    test, corrected = PairedTest(9, 1, models, models), Corrected(12, models, others, others)
    return Contrast("A", "B", [0, 1, 2], 100.0, task, [1, 1, 1], estimate, estimate, test, corrected)


REAL, LUCKY, ALONE = (
    contrast("ER", 0.1, 0.3, 0.001, 0.04),
    contrast("EX", -0.4, -0.1, 0.001, 0.2),
    contrast("IP", None, None, 0.001, None),
)
CHANCE = contrast("IP", -0.1, 0.1, 0.5, 0.6)


def test_a_difference_is_found_only_where_other_seeds_would_show_it_too(reading: Any) -> None:
    verdict = reading.verdict
    after = "After Holm's correction over 12 rows"
    assert verdict([REAL]) == f"{after} B has more right answers than A on ER (p = .040)."
    only = "among these trained models B has fewer right answers than A on EX (p = .001), but with other seeds this may be chance"
    assert verdict([LUCKY]) == f"{after} {only}."
    assert verdict([REAL, LUCKY, CHANCE]) == (
        f"{after} B has more right answers than A on ER (p = .040); {only}; "
        "the other difference of right answers cannot be told from chance."
    )
    assert verdict([LUCKY, ALONE]) == (
        f"{after} {only}; among these trained models B has fewer right answers than A on IP (p = .001), but one seed tells "
        "nothing of others."
    )
    assert verdict([CHANCE]) == f"{after} no difference of right answers can be told from chance (smallest p: .600)."


def test_macro_f1_is_read_too_because_claims_are_of_rare_levels(reading: Any) -> None:
    said = reading.macro_intervals
    uncorrected = (
        "In macro F1, by intervals that are not corrected, B is above A on ER and B is below A on EX; after the correction,"
    )
    assert said([REAL, LUCKY, CHANCE]) == f"{uncorrected} B is above A on ER."
    assert said([REAL]) == "In macro F1, after the correction too, B is above A on ER."
    assert said([LUCKY]) == (
        "In macro F1, by intervals that are not corrected, B is below A on EX; after the correction, none (smallest p: .200)."
    )
    assert said([CHANCE]) == "No interval of macro F1 leaves 0 out."
    assert said([ALONE]) == ""


def test_what_would_have_been_found_is_a_range_over_all_differences_of_a_task(reading: Any) -> None:
    power = reading.power
    said = power([contrast(task, 0, 1, 1, 1, least) for task, least in (("ER", 0.02), ("ER", 0.031), ("EX", 0.05))])
    assert said.endswith("is 2.0 to 3.1 (ER) and 5.0 (EX) pairs.")
    assert power([]) == ""
