"""The blocks of docs/paper.md: what was found of each claim, with its picture, and what experts say of the labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from blocks.claims import (
    CLAIMS,
    accuracy_and_f1,
    beside_the_paper,
    cost,
    levels,
    not_measured,
    published,
    scores,
    size,
    told,
    unfinished,
)
from blocks.forest import CLAIM_PICTURES, EXPERTS, EXPERTS_PICTURE, MEDIAN
from blocks.reading import comparison, listed, measured, outcome, seeds_of, sentences, table
from empathy_kit.runs.report import number

TITLES = {  # in the order of the page
    "sharing": "One model for three tasks is better than three",
    "focal": "Focal loss helps where levels are rare",
    "rationales": "Rationales are not needed",
    "recurrence": "The GRU helps",
    "predecessor": "It is better than its predecessor",
}
FURTHER = {
    "sharing": (cost,),
    "learning": (accuracy_and_f1,),
    "recurrence": (accuracy_and_f1, size),
    "size": (levels, size),
    "size-paper": (beside_the_paper,),
    "predecessor": (published, size),
    "predecessor-size": (published, size),
    "imbalance": (scores,),
}
NEARER, FURTHER_AWAY = "nearer to the experts' median than the crowd is", "further from it than the crowd"


def summary() -> str:
    """The claims with what was found of each, in a few words."""
    return table(["claim", "found", "runs"], [[words, _in_short(name), _runs(name)] for name, words in TITLES.items()])


def _in_short(name: str) -> str:
    every = [each for side in CLAIMS[name].answers for each in side]
    return sentences(unfinished(CLAIMS[name].folder), outcome(every)) if every else "not measured yet"


def _runs(name: str) -> str:
    claim = CLAIMS[name]
    if not claim.answers:
        return "-"
    names = {name for pair in claim.pairs for name in pair}
    return str(sum(len(run.models) for name, runs in claim.comparison.results.runs.items() if name in names for run in runs))


def section(name: str) -> str:
    """A claim's differences and picture, and further tables of some."""
    contrasts = CLAIMS[name].contrasts
    if not contrasts:
        return not_measured(CLAIMS[name].folder)
    known = any(each.accuracy.low is not None for side in contrasts for each in side)  # one seed has no intervals
    picture = CLAIM_PICTURES[name].markdown(f"Differences{' with 95 % intervals' if known else ''}, task by task")
    return "\n\n".join((told(name), picture, *(more(name) for more in FURTHER.get(name, ()))))


def of_plugins(name: str, compared: str, section: str) -> str:
    """Where a plugin's page finds its scores."""
    there = f"{compared} in [docs/paper.md](../../docs/paper.md#{section})."
    return unfinished(CLAIMS[name].folder) or f"{seeds_of(CLAIMS[name].comparison).capitalize()} compare {there}"


def independence() -> str:
    """How much two mechanisms' labels have in common."""
    labels: dict[str, dict[str, int]] = {}  # id to task to level, of the pairs of all test parts
    for runs in comparison("reddit-grouped").results.runs.values():
        for run in runs:
            for task, said in run.answers.items():
                for one, level in zip(said.ids, said.true.tolist(), strict=True):
                    labels.setdefault(one, {})[task] = level
    tasks = comparison("reddit-grouped").summary.names
    told = []
    for one, other in combinations(tasks, 2):
        both = Counter((levels[one], levels[other]) for levels in labels.values() if one in levels and other in levels)
        told.append(f"{_information(both):.3f} ({one} and {other})")
    alone = [f"{_entropy(Counter(levels[task] for levels in labels.values() if task in levels)):.2f} ({task})" for task in tasks]
    return (
        f"What one mechanism's label tells of another's, their mutual information, is {listed(told)} bits, over the "
        f"{len(labels):,} pairs of all test parts. The labels' own entropies are {listed(alone)} bits. This is without the text: "
        "it does not bound what labels, or an encoder, can learn from each other once the posts are read."
    )


def _information(both: Counter[tuple[int, int]]) -> float:
    sides = [Counter[int](), Counter[int]()]
    for pair, count in both.items():
        for side, level in zip(sides, pair, strict=True):
            side[level] += count
    return abs(_entropy(sides[0]) + _entropy(sides[1]) - _entropy(both))  # abs: a zero may round to less


def _entropy(counts: Counter[Any]) -> float:
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values())


def experts() -> str:
    """Everyone's agreement with the experts' median and with the crowd, and who is nearer to the median than the crowd."""
    content = measured(EXPERTS)
    picture = EXPERTS_PICTURE.markdown(f"Quadratic kappa of every rater with the {MEDIAN}, with 95 % intervals")
    return "\n\n".join((_told(content), picture, *(_table(content["agreement"], reference) for reference in (MEDIAN, "crowd"))))


def experts_each_other() -> str:
    """Quadratic kappa of each two experts and of the crowd with each of them, and on which mechanisms the crowd's is lower."""
    content = measured(EXPERTS)["each_other"]
    first = next(iter(content.values()))
    lines = [[pair, *(_kappa(of_task["kappa"][pair]) for of_task in content.values())] for pair in first["kappa"]]
    for words, kappas in (
        ("two experts, the mean", [of_task["mean"]["experts"] for of_task in content.values()]),
        ("crowd and an expert, the mean", [of_task["mean"]["crowd"] for of_task in content.values()]),
        ("the second mean less the first", [of_task["crowd_above_experts"] for of_task in content.values()]),
    ):
        lines.append([words, *map(_kappa, kappas)])
    differences = {task: of_task["crowd_above_experts"] for task, of_task in content.items()}
    return "\n\n".join((table(["", *(f"{task}, kappa" for task in content)], lines), _crowd_told(differences)))


def _crowd_told(differences: Mapping[str, Mapping[str, float | None]]) -> str:
    """Whether the crowd agrees with an expert as two experts do, by the interval of each task's difference."""
    sides: dict[str, list[str]] = {"less": [], "more": [], "": []}
    for task, each in differences.items():
        low, high = each["low"] or 0.0, each["high"] or 0.0  # null where it is undefined
        sides["" if low * high <= 0 else "less" if high < 0 else "more"].append(task)
    apart = sides.pop("")
    told = [
        f"the crowd agrees {word} with an expert than two experts with each other on {listed(tasks)}"
        for word, tasks in sides.items()
        if tasks
    ]
    told += [f"on {listed(apart)} the two cannot be told apart"] if apart else []
    return f"By the interval of the difference, which is not corrected, {'; '.join(told)}."


def _table(agreement: Any, reference: str) -> str:
    raters = next(iter(agreement.values()))[reference]
    header = [
        f"with the {reference}",
        *(f"{task}, kappa" for task in agreement),
        *(f"{task}, accuracy" for task in agreement),
    ]
    lines = [
        [
            rater,
            *(_kappa(of_task[reference][rater]["kappa"]) for of_task in agreement.values()),
            *(number(of_task[reference][rater]["accuracy"]["value"]) for of_task in agreement.values()),
        ]
        for rater in raters
    ]
    return table(header, lines)


def _kappa(found: dict[str, float | None]) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "-"
    return f"{number(value)} [{low:.2f}, {high:.2f}]".replace("0.", ".")


def _told(content: Any) -> str:
    sides: dict[str, list[str]] = {NEARER: [], FURTHER_AWAY: []}
    looked = 0
    for task, of_task in content["agreement"].items():
        for rater, found in of_task[MEDIAN].items():
            above = found.get("kappa_above_the_crowds")
            if above is None or above["low"] is None or rater.startswith("expert"):  # an expert is part of the median
                continue
            looked += 1
            if above["low"] > 0 or above["high"] < 0:
                sides[NEARER if above["low"] > 0 else FURTHER_AWAY].append(f"{rater} ({task})")
    said = [f"{listed(raters)} {'are' if len(raters) > 1 else 'is'} {words}" for words, raters in sides.items() if raters]
    outside = sum(map(len, sides.values()))
    seeds = f"{content['seeds']} seed{'s' * (content['seeds'] != 1)}"
    return sentences(
        f"{content['pairs']} pairs.",
        f"The models have {seeds}, each with a split of its own of the {content['kept']:,} pairs that remain without these and "
        f"those of their seeker posts ({content['left_out']} pairs). Their agreements are means over the seeds, with intervals "
        "over pairs."
        if content["seeds"]
        else "Models that have seen none of these pairs are not measured yet. The intervals are over pairs.",
        f"By the interval of its difference of kappa, {listed(said)}." if said else "",
        f"{outside} of these {looked} intervals leave 0 out. They are not corrected: one of twenty does by chance alone.",
    )
