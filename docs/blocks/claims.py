"""The paper's claims: what the comparisons of benchmarks/questions.py and the experts' ratings say of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from blocks.reading import (
    Comparison,
    begun,
    comparison,
    listed,
    measured,
    outcome,
    power,
    seeds_of,
    sentences,
    table,
)
from blocks.tables import differences, rarest_levels, recalled, titled
from blocks.tables import scores as scores_of
from empathy_kit.comparison.pages.summary import Contrast
from empathy_kit.comparison.pages.words import COST, COSTS, cost_cells, label_of, score_cell
from empathy_kit.comparison.run import Run
from empathy_kit.comparison.statistics import correct
from empathy_kit.core.metrics import BATCH
from empathy_kit.runs.report import number

Pairs = tuple[tuple[str, str], ...]  # configurations, the first and the second of each difference


def not_measured(folder: str) -> str:
    """The text for a question whose comparison has no run."""
    return f"Not measured yet; `{_command(folder)}` measures it."


def unfinished(folder: str) -> str:
    """The text for a comparison that lacks runs; empty where none is missing. Means over other seeds would not choose fairly."""
    if not begun(folder):
        return not_measured(folder)
    results = comparison(folder).results
    missing, planned = len(results.missing), len(results.plan.runs())
    return f"{planned - missing} of {planned} runs are there; `{_command(folder)}` continues them." if missing else ""


def _command(folder: str) -> str:
    return f"python benchmarks/questions.py {folder.removeprefix('reddit-')}"


@dataclass(frozen=True)
class Claim:
    """A question, the comparison that answers it, and the differences that do."""

    folder: str  # of benchmarks/results
    pairs: Pairs  # that answer it
    further: Pairs = ()  # that stand next to these, and answer something else

    @property
    def comparison(self) -> Comparison:
        """The comparison, which has been run."""
        return comparison(self.folder)

    @property
    def answers(self) -> list[list[Contrast]]:
        """The differences that answer the question and have been measured, each on every task."""
        return self._measured(self.pairs)

    @property
    def contrasts(self) -> list[list[Contrast]]:
        """All differences that have been measured."""
        return self._measured(self.pairs + self.further)

    def _measured(self, pairs: Pairs) -> list[list[Contrast]]:
        found = self._corrected if begun(self.folder) else []
        return [side for pair in pairs if (side := [each for each in found if (each.first, each.second) == pair])]

    @property
    def _corrected(self) -> list[Contrast]:
        """All differences of the question. They are one table, and the correction is over its rows."""
        found = [each for pair in self.pairs + self.further for each in self.comparison.contrasts(*pair)]
        corrected = correct((each.test, each.accuracy, each.macro_f1) for each in found)
        return [replace(each, corrected=ps) for each, ps in zip(found, corrected, strict=True)]


CLAIMS = {
    "sharing": Claim("reddit-sharing", (("T1", "T1s"), ("T3", "T3s"))),
    "focal": Claim("reddit-grouped", (("T1", "T3"), ("T2", "T4"))),
    "rationales": Claim("reddit-grouped", (("T1", "T2"), ("T3", "T4"))),
    "recurrence": Claim("reddit-recurrence", (("T3", "T3-mean"), ("T3-attention", "T3-mean-attention"))),
    "size": Claim("reddit-size", tuple((f"T{at}", f"T{at}m") for at in range(1, 5))),
    "size-paper": Claim("reddit-size-paper", (("T1", "T1m"), ("T3", "T3m"))),
    "predecessor": Claim("reddit-predecessor", (("T1", "bi"),), (("bi", "bi-no-rationale"), ("bi", "bi-no-attention"))),
    "predecessor-size": Claim("reddit-predecessor-size", (("T1m", "bim"),)),
    "imbalance": Claim(
        "reddit-imbalance",
        tuple(
            ("T1", name)
            for name in ("focal", "weighted", "over", "under", "adjusted", "balanced", "ldam", "focal-weighted", "hurdle")
        ),
    ),
    "learning": Claim("reddit-learning", tuple(("T3", f"T3-{share}") for share in (75, 50, 25))),
}


def told(name: str) -> str:
    """A claim's differences, what can be told from chance, and what would have been found."""
    claim = CLAIMS[name]
    contrasts = [each for side in claim.contrasts for each in side]
    seeds = unfinished(claim.folder) or f"{seeds_of(claim.comparison).capitalize()}."
    return f"{differences(claim.folder, contrasts)}\n\n{sentences(seeds, outcome(contrasts), power(contrasts))}"


TIMES = ("training", "pairs/s")


def cost(name: str) -> str:
    """The size and time of a claim's configurations, whose runs were made together, and what their times depend on."""
    return f"{_costs(name, COSTS)}\n\n{sentences(COST, *CLAIMS[name].comparison.results.remarks)}"


def size(name: str) -> str:
    """The size alone, where other processors may have trained some of the runs."""
    return _costs(name, [column for column in COSTS if column not in TIMES])


def _costs(name: str, columns: Sequence[str]) -> str:
    found = CLAIMS[name].comparison
    rows = []
    for configuration, costs in found.summary.costs.items():
        cells = dict(zip(COSTS, cost_cells(costs), strict=True))
        rows.append([titled(found, configuration), *(cells[column] for column in columns)])
    return table(["", *columns], rows)


def scores(name: str) -> str:
    """Accuracy, macro F1 and the rarest level of every configuration, task by task."""
    found = CLAIMS[name].comparison
    rarest = rarest_levels(found.summary)
    parts = []
    for task in found.summary.tasks:
        level, lines = rarest[task.name], []
        for row in found.summary.ranked():
            if task.name not in row.cells:
                continue
            right, of, predicted = recalled(row, task.name, level)
            ranked = row.cells[task.name].average_precision
            lines.append(
                [
                    titled(found, row.name),
                    score_cell(row, task.name, "accuracy"),
                    score_cell(row, task.name, "macro_f1"),
                    f"{right} of {of}",
                    f"{right} of {predicted}",
                    number(ranked[level].value) if ranked else "-",
                ]
            )
        rare = label_of(task, level)
        parts.append(
            table([task.title, "accuracy", "macro F1", f"recall of {rare}", "its precision", "its average precision"], lines)
        )
    return "\n\n".join(parts)


def beside_the_paper(name: str) -> str:
    """The scores that the paper's Table 1 has, with its rows."""
    folder = CLAIMS[name].folder
    return f"Accuracy:\n\n{scores_of(folder, 'accuracy')}\n\nWeighted F1:\n\n{scores_of(folder, 'weighted_f1')}"


def accuracy_and_f1(name: str) -> str:
    """Accuracy and macro F1 of its configurations."""
    claim = CLAIMS[name]
    names = list(claim.comparison.results.runs)
    shown = {"Accuracy": "accuracy", "Macro F1": "macro_f1"}
    return "\n\n".join(f"{title}:\n\n{scores_of(claim.folder, metric, names)}" for title, metric in shown.items())


def levels(name: str) -> str:
    """How many pairs of every level each configuration gets right, task by task."""
    found = CLAIMS[name].comparison
    parts = []
    for task in found.summary.tasks:
        rows = [row for row in found.summary.ranked() if task.name in row.cells]
        every = range(len(task.labels))
        lines = []
        for row in rows:
            counts = [recalled(row, task.name, level) for level in every]
            lines.append([titled(found, row.name), *(f"{right} of {of} ({predicted})" for right, of, predicted in counts)])
        parts.append(table([task.title, *(label_of(task, level) for level in every)], lines))
    return "\n\n".join(("Right of all pairs of a level, over the seeds, and how often it is predicted:", *parts))


EVIDENCE = ("token_f1", "iou_f1")
# Sharma et al. (EMNLP 2020), on the Reddit part: accuracy, macro F1 averaged over batches of 32, token F1 and IOU F1 of the
# evidence, averaged in the same way (benchmarks/evidence.py). One model per mechanism, on a split that was not published.
PUBLISHED = {
    "ER": (0.794, 0.745, 0.536, 0.648),
    "EX": (0.926, 0.726, 0.716, 0.845),
    "IP": (0.840, 0.626, 0.574, 0.559),
}
ABLATIONS = {  # their accuracy and macro F1 without a part
    "without attention": {"ER": (0.755, 0.527), "EX": (0.920, 0.648), "IP": (0.833, 0.623)},
    "without rationales": {"ER": (0.785, 0.732), "EX": (0.915, 0.644), "IP": (0.833, 0.621)},
    "without pre-training on such posts": {"ER": (0.770, 0.690), "EX": (0.920, 0.653), "IP": (0.823, 0.614)},
}


def published(name: str) -> str:
    """Levels and evidence next to the published figures of the predecessor, by its own way to average F1 too."""
    found = CLAIMS[name].comparison
    parts = []
    below: dict[str, list[str]] = {}  # a configuration to the tasks where marking nothing has a higher F1
    for task in found.summary.tasks:
        lines: list[list[str]] = []
        unmarked: list[Mapping[str, float]] = []
        for row in found.summary.ranked():
            if task.name not in row.cells:
                continue
            cell = row.cells[task.name]
            runs = found.results.runs[row.name]
            spans = [(run.record.spans or {}).get(task.name) for run in runs]
            ours = [{score: float(each[score]["value"]) for score in EVIDENCE} for each in spans if each]
            theirs = [each for run in runs if (each := _in_their_way(name, run, task.name))]
            unmarked.extend(each["nothing_marked"] for each in theirs)
            if theirs and sum(each["model"]["token_f1"] - each["nothing_marked"]["token_f1"] for each in theirs) < 0:
                below.setdefault(row.name, []).append(task.name)
            evidence = (*_means(ours, len(runs)), *_means([each["model"] for each in theirs], len(runs)))
            scores = (number(cell.scores["accuracy"].value), number(cell.scores["macro_f1"].value), number(cell.batch_macro_f1))
            lines.append([titled(found, row.name), *scores, *evidence])
        if unmarked:
            lines.append(["a model that marks nothing, counted as all", *"-----", *_means(unmarked, len(unmarked))])
        if task.name in PUBLISHED:
            accuracy, batches, *evidence_of = map(number, PUBLISHED[task.name])
            lines.append(["Sharma et al. (2020): RoBERTa, its own split", accuracy, "-", batches, "-", "-", *evidence_of])
            for words, of_task in ABLATIONS.items():
                accuracy, batches = map(number, of_task[task.name])
                lines.append([f"the same {words}", accuracy, "-", batches, *"----"])
        batches = f"mean over batches of {BATCH}"
        of_evidence = ("token F1", "IOU F1", f"token F1, {batches}", f"IOU F1, {batches}")
        parts.append(table([task.title, "accuracy", "macro F1", f"macro F1, {batches}", *of_evidence], lines))
    if below:
        who = listed([f"{name} ({listed(tasks)})" for name, tasks in below.items()])
        said = "so this mean says little of how well evidence is found."
        parts.append(f"By the mean over batches, marking nothing has a higher token F1 than {who}, {said}")
    return "\n\n".join(parts)


def _in_their_way(name: str, run: Run, task: str) -> Any:
    """What benchmarks/evidence.py found of a task's model; None where it found nothing."""
    try:
        runs = measured(f"evidence-{name}")["runs"]
    except FileNotFoundError:
        return None
    found = next((each for part in run.models if (each := runs.get(f"{part.name}-{part.seed}", {}).get(task))), None)
    if found and found["recorded_token_f1"] != (run.record.spans or {})[task]["token_f1"]["value"]:
        raise ValueError(f"evidence-{name}.json: {run.name}-{run.seed} is another run; benchmarks/evidence.py makes it anew")
    return found


def _means(several: Sequence[Mapping[str, float]], expected: int) -> list[str]:
    """The mean of each score; dashes where it is missing for some."""
    return [number(fmean(each[score] for each in several)) if 0 < expected == len(several) else "-" for score in EVIDENCE]
