"""How often intervals hold the truth, from what benchmarks/coverage.py simulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from blocks.reading import listed, measured, table

METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1"}
LUCK = "no difference, much luck"  # the world in which few seeds know least of their spread
HITS = ("once or never", "more often")


def coverage() -> str:
    """A row for each number of seeds and score, and the world of much luck in words."""
    rows = measured("coverage")["rows"]
    seeds = list(dict.fromkeys(row["seeds"] for row in rows))
    header = ["seeds", "score", "mean", "lowest, highest case", "the pairs' alone", "of these hold it", "percentile bootstrap"]
    lines = [
        [str(count), title, *_cells([row[metric] for row in rows if row["seeds"] == count])]
        for count in seeds
        for metric, title in METRICS.items()
    ]
    luck = [row for row in rows if row["world"] == LUCK]
    told = [f"{_by_seeds(luck, metric, seeds)} ({title})" for metric, title in METRICS.items()]
    alone = [f"{_held([row[metric]['pairs_alone'] for row in luck])} ({title})" for metric, title in METRICS.items()]
    counts = listed([str(count) for count in seeds])
    return (
        f"{table(header, lines)}\n\nIn the world of much luck, with {counts} seeds, the shares are {listed(told)}. Of "
        f"the intervals there that are the pairs' alone, {listed(alone)} hold it."
    )


def _cells(cases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    held, alone = [case["ours"] for case in cases], [case["pairs_alone"] for case in cases]
    yield f"{mean(held):.3f}"
    yield f"{min(held):.3f}, {max(held):.3f}"
    yield f"{mean(each['share'] for each in alone):.2f}"
    yield _held(alone)
    yield f"{mean(case['percentile'] for case in cases):.3f}"


def _by_seeds(rows: Sequence[Mapping[str, Any]], metric: str, seeds: Sequence[int]) -> str:
    return ", ".join(f"{mean(row[metric]['ours'] for row in rows if row['seeds'] == count):.3f}" for count in seeds)


def _held(alone: Sequence[Mapping[str, float]]) -> str:
    """How many of the intervals that are the pairs' alone hold the truth."""
    shares = sum(each["share"] for each in alone)
    return f"{sum(each['held'] for each in alone) / shares:.3f}" if shares else "-"


def one_run() -> str:
    """One run's interval of macro F1, where a rare level was hit once or never, and elsewhere."""
    lines = [
        [
            f"{row['share']:.3f}",
            f"{row['recall']:.2f}",
            *(f"{row[hits]['held']:.3f} of {row[hits]['parts']:,}" if hits in row else "-" for hits in HITS),
        ]
        for row in measured("coverage")["one_run"]
    ]
    return table(["the level's share of the pairs", "its true recall", *(f"hit {hits}" for hits in HITS)], lines)


def false_alarms() -> str:
    """How often the tests find a difference between one recipe and itself."""
    found = measured("false-alarms")
    rows = found["rows"]
    lines = [
        [world, *(_ends([row[test] for row in rows if row["world"] == world]) for test in ALARMS)]
        for world in dict.fromkeys(row["world"] for row in rows)
    ]
    return table(["simulated comparisons of one recipe with itself", *ALARMS.values()], lines)


ALARMS = {
    "mcnemar": "McNemar at 5 %",
    "exact": "sign-flip at 5 %",
    "exact_and_interval": "sign-flip at 5 %, and the interval leaves 0 out",
}


def _ends(shares: Sequence[float]) -> str:
    low, high = min(shares), max(shares)
    return f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
