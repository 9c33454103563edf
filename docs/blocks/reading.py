"""Committed results, read once; and how a number becomes words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from empathy_kit.comparison.finished import Results, read_finished
from empathy_kit.comparison.pages import Summary, summarise
from empathy_kit.comparison.pages.summary import Compared, Contrast
from empathy_kit.comparison.pages.words import chance, gain, interval, macro_gain
from empathy_kit.comparison.plan import PLAN, read_plan, run_folder
from empathy_kit.comparison.statistics import SeedEstimate
from empathy_kit.runs.record import RUN

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SURE = 0.05  # a corrected p-value at or below it is called a difference
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Comparison:
    """A committed comparison: its runs, and the figures of its report. Any run may be missing."""

    results: Results
    summary: Summary

    def row(self, name: str) -> Compared | None:
        """A configuration or yardstick."""
        return next((row for row in self.summary.rows if row.name == name), None)

    def rows(self, names: Iterable[str]) -> list[Compared]:
        """Those of some configurations and yardsticks that are there."""
        return [row for row in map(self.row, names) if row is not None]

    def contrasts(self, first: str, second: str) -> list[Contrast]:
        """Two configurations on every task; empty where one is missing."""
        return [found for found in self.summary.contrasts if (found.first, found.second) == (first, second)]


def begun(name: str) -> bool:
    """Whether a comparison is among the results, with all runs of a configuration and seed: something to tell of."""
    folder = RESULTS / name
    if not (folder / PLAN).exists():
        return False
    plan = read_plan(folder)
    return any(
        all((run_folder(folder, model, seed) / RUN).exists() for model in plan.models_of(configuration))
        for configuration in plan.configurations
        for seed in plan.seeds
    )


@cache
def comparison(name: str) -> Comparison:
    """A comparison of benchmarks/results."""
    results = read_finished(RESULTS / name)
    return Comparison(results, summarise(results))


@cache
def measured(name: str) -> Any:
    """The JSON of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(re.sub(r"\|  (?=\|)", "| ", line) for line in lines)


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def count(number: int) -> str:
    """A small number as a word."""
    return COUNTS[number] if number < len(COUNTS) else f"{number:,}"


def seeds_of(found: Comparison) -> str:
    """``five seeds``, with what is missing of those that were planned."""
    there, planned = len(found.summary.seeds), len(found.results.plan.seeds)
    plural = "" if there == 1 else "s"
    return f"{count(there)} seed{plural}" if there == planned else f"{count(there)} of {count(planned)} seeds"


def points(value: float) -> str:
    """A difference of scores in points: ``+2.8``."""
    return f"{100 * value:+z.1f}"


def _unmarked(text: str) -> str:
    """An interval without the letter that tables have behind it, for what kind it is."""
    return re.sub(r"\] [a-z]\b", "]", text)


def gains(contrasts: Sequence[Contrast]) -> str:
    """``+3.6 [-0.4, +7.6] (ER), ... and ... (IP) of 462 pairs``: right answers of the second less those of the first."""
    sizes = {f"{found.test_pairs:.0f}" for found in contrasts}
    if len(sizes) > 1:  # a label may be missing for some pairs
        return _unmarked(f"{listed([f'{gain(found)} ({found.task})' for found in contrasts])} pairs")
    size = sizes.pop()
    told = [f"{gain(found)} ({found.task})".replace(f" of {size}", "", 1) for found in contrasts]
    return _unmarked(f"{listed(told)} of {size} pairs")


def macro_gains(contrasts: Sequence[Contrast]) -> str:
    """The same in macro F1."""
    return _unmarked(listed([f"{macro_gain(found)} ({found.task})" for found in contrasts]))


def verdict(contrasts: Sequence[Contrast]) -> str:
    """Which of some differences were found, and which only tell these trained models apart.

    The exact test takes the models as they are: with few seeds and much luck in training it finds differences of recipes that
    do not differ. So a difference counts as found only where the larger of its p and that of the interval, which is over other
    seeds too, is small.
    """
    rows = max(each.corrected.rows for each in contrasts)
    after = f"After Holm's correction over {rows} row{'s' * (rows != 1)}"
    found = [each for each in contrasts if (p := each.corrected.recipes) is not None and p <= SURE]
    lucky = [each for each in contrasts if each not in found and each.corrected.models <= SURE]
    if not found and not lucky:
        known = [p for each in contrasts if (p := each.corrected.recipes) is not None]
        least = chance(min(known or [each.corrected.models for each in contrasts]))
        what = "none of these differences of right answers" if len(contrasts) > 1 else "no difference of right answers"
        return f"{after} {what} can be told from chance (smallest p: {least})."
    parts = [listed(_told(found, "recipes"))] if found else []
    for several, why in (
        ([each for each in lucky if each.corrected.recipes is not None], "with other seeds this may be chance"),
        ([each for each in lucky if each.corrected.recipes is None], "one seed tells nothing of others"),
    ):
        if several:
            parts.append(f"among these trained models {listed(_told(several, 'models'))}, but {why}")
    others = len(contrasts) - len(found) - len(lucky)
    if others:
        what = "differences of right answers cannot" if others > 1 else "difference of right answers cannot"
        parts.append(f"the other {what} be told from chance")
    return f"{after} {'; '.join(parts)}."


def _leaves_0_out(estimate: SeedEstimate) -> bool:
    low, high = estimate.low, estimate.high
    return low is not None and high is not None and low * high > 0


def _told(sure: Sequence[Contrast], what: Literal["models", "recipes"]) -> list[str]:
    told = []
    for pair in dict.fromkeys((each.first, each.second) for each in sure):
        for word, better in (("more", True), ("fewer", False)):
            where = [each for each in sure if (each.first, each.second) == pair and (each.accuracy.value > 0) == better]
            if where:
                tasks = listed([f"{each.task} (p {_equals(getattr(each.corrected, what))})" for each in where])
                told.append(f"{pair[1]} has {word} right answers than {pair[0]} on {tasks}")
    return told


def _equals(p: float) -> str:
    text = chance(p)
    return text if text.startswith("<") else f"= {text}"


def macro_intervals(contrasts: Sequence[Contrast]) -> str:
    """Which differences of macro F1 have an interval that leaves 0 out, and which of them are left after Holm's correction."""
    known = [(each, p) for each in contrasts if (p := each.corrected.macro_f1) is not None]
    if not known:
        return ""
    outside = [each for each, _ in known if _leaves_0_out(each.macro_f1)]
    left = [each for each, p in known if p <= SURE]
    if not outside:
        return "No interval of macro F1 leaves 0 out."
    if left == outside:
        return f"In macro F1, after the correction too, {_sides(outside)}."
    rest = _sides(left) if left else f"none (smallest p: {chance(min(p for _, p in known))})"
    return f"In macro F1, by intervals that are not corrected, {_sides(outside)}; after the correction, {rest}."


def _sides(several: Sequence[Contrast]) -> str:
    """``T3 is above T1 on EX``, and so on."""
    tasks: dict[tuple[str, str, str], list[str]] = {}
    for each in several:
        tasks.setdefault((each.second, "above" if each.macro_f1.value > 0 else "below", each.first), []).append(each.task)
    return listed([f"{second} is {side} {first} on {listed(where)}" for (second, side, first), where in tasks.items()])


def outcome(contrasts: Sequence[Contrast]) -> str:
    """What was found of right answers and of macro F1."""
    return sentences(verdict(contrasts), macro_intervals(contrasts))


def power(contrasts: Sequence[Contrast]) -> str:
    """What the design would have found, from the surest difference of a task to the least sure; nothing from one seed."""
    pairs: dict[str, list[float]] = {}
    for each in contrasts:
        if each.accuracy.smallest is not None:
            pairs.setdefault(each.task, []).append(each.accuracy.smallest * each.test_pairs)
    ends = [(task, *(f"{end:.1f}" for end in (min(several), max(several)))) for task, several in pairs.items()]
    parts = [f"{low if low == high else f'{low} to {high}'} ({task})" for task, low, high in ends]
    return (
        f"The smallest difference that this design finds four times of five, as a single test before Holm's correction, is "
        f"{listed(parts)} pairs."
        if parts
        else ""
    )


def zero(contrasts: Sequence[Contrast]) -> str:
    """Which intervals of macro F1 hold 0; nothing where there is no interval."""
    known = [each for each in contrasts if each.macro_f1.low is not None]
    without = [each.task for each in known if _leaves_0_out(each.macro_f1)]
    if not known:
        return ""
    if not without:
        return "These intervals hold 0." if len(known) > 1 else "This interval holds 0."
    return f"The interval on {listed(without)} leaves 0 out." if len(without) == 1 else f"Those on {listed(without)} leave 0 out."


def score(estimate: SeedEstimate, value: str) -> str:
    """A score with its interval, where it has one."""
    return _unmarked(f"{value} {interval(estimate)}".rstrip())


def sentences(*parts: str) -> str:
    """Sentences in a row, without the empty ones."""
    return " ".join(part for part in parts if part)


def processor(machine: Mapping[str, Any]) -> str:
    """The name of the processor that something was measured on, without its decoration."""
    return str(machine["processor"]).replace("(R)", "").replace(" Processor", "")
