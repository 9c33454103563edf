"""Many tests at once: Holm's correction, and what it is applied to."""

from __future__ import annotations

import pytest
from statsmodels.stats.multitest import multipletests

from empathy_kit.comparison.statistics import Corrected, PairedTest, SeedEstimate, correct, holm


@pytest.mark.parametrize("values", [[0.01, 0.04, 0.03, 0.5], [0.2], [], [0.001, 0.001, 1.0]])
def test_holm_is_statsmodels(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda: 0)  # which statsmodels calls, and which takes half a second here
    expected = multipletests(values, method="holm")[1].tolist() if values else []
    assert holm(values) == pytest.approx(expected)


def test_recipes_differ_where_the_models_do_and_other_seeds_would() -> None:
    def row(exact: float, accuracy: float | None, macro_f1: float | None) -> tuple[PairedTest, SeedEstimate, SeedEstimate]:
        first, second = (SeedEstimate(0.1, None, None, None, None, None, None, p) for p in (accuracy, macro_f1))
        return PairedTest(0, 0, exact, exact), first, second

    assert correct([row(0.01, 0.2, 0.03), row(0.02, 0.001, 0.5), row(0.001, None, None)]) == [
        Corrected(3, 0.02, 0.4, 0.09),  # 2 x .01, 2 x .2, 3 x .03
        Corrected(3, 0.02, 0.06, 1.0),  # 1 x .02, 3 x .02, 2 x .5
        Corrected(3, 0.003, None, None),
    ]
    assert correct([]) == []
