"""The best recipe: what validation parts chose, and what it gives on one test part."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

import numpy as np

from blocks.claims import unfinished
from blocks.reading import Comparison, comparison, count, listed, measured, sentences, table
from blocks.tables import rarest_levels, titled
from blocks.yardsticks import ALL, MEAN, ONE, WORDS, Measure, above, scored, simpler
from empathy_kit.comparison.pages.words import label_of
from empathy_kit.comparison.run import Run
from empathy_kit.config import RunConfig, configure
from empathy_kit.core.calibration import calibration, tempered
from empathy_kit.core.metrics import Estimate, Floats, Ints, Scores, macro_f1, score
from empathy_kit.plugins import OURS
from empathy_kit.runs.report import MARK, barely_hit, estimate, number, too_sure

Score = Callable[[Ints, Ints, int], float]  # true and predicted levels (N,), how many levels there are

TUNING, IMBALANCE, INGREDIENTS, BEST = "reddit-tuning", "reddit-imbalance", "reddit-ingredients", "reddit-best"
HELD_OUT = "held-out"
PLACES = ("low", "middle", "high")  # the three values that are tried of each option, as the end of a configuration's name
AIMS = {  # accuracy and macro F1, set for the recipe before it was measured
    "ER": (0.83, 0.79),
    "EX": (0.94, 0.77),
    "IP": (0.845, 0.60),
}


def tuned() -> str:
    """What was tried of each remedy's option, and the mean macro F1 of the validation part, which chooses."""
    if instead := unfinished(TUNING):
        return instead
    found = comparison(TUNING)
    merits, best = _tried(found), tuned_places()
    lines = [[name, "-", number(merit), "", ""] for name, merit in merits.items() if name.rpartition("-")[2] not in PLACES]
    for name, place in best.items():
        options = [found.results.runs[f"{name}-{at}"][0].record.config["options"] for at in PLACES]  # with the defaults
        option = next(route for route in options[0] if len({str(each.get(route)) for each in options}) > 1)
        cells = [f"{each[option]}: {number(merits[f'{name}-{at}'])}" for at, each in zip(PLACES, options, strict=True)]
        kind, last = option.split(".")[0], option.rpartition(".")[2]  # every task has the same
        shown = (f"**{cell}**" if at == place else cell for at, cell in zip(PLACES, cells, strict=True))
        lines.append([name, f"`-o {kind}.{last}`", *shown])
    ids = {one for runs in found.results.runs.values() for said in runs[0].validation.values() for one in said.ids}
    ids -= _tested(INGREDIENTS)
    seen = f"Of the {len(ids)} pairs that chose, {len(ids & held_out())} are among those that the best recipe is tested on."
    return f"{table(['', 'option', *PLACES], lines)}\n\n{seen}"


def tuned_places() -> dict[str, str]:
    """Remedy to its best value's place."""
    merits = _tried(comparison(TUNING))
    remedies = dict.fromkeys(name.rpartition("-")[0] for name in merits if name.rpartition("-")[2] in PLACES)
    return {name: max(PLACES, key=lambda at: merits[f"{name}-{at}"]) for name in remedies}


def _tried(found: Comparison) -> dict[str, float]:
    # The remedies are then compared on the splits of the ingredients, of which this is the first.
    return {name: fmean(values) for name, values in _by_run(found, macro_f1, _tested(INGREDIENTS)).items()}


def held_out() -> set[str]:
    """The pairs that the best recipe is tested on, by their ids in predictions: none of them chooses a remedy or ingredient."""
    return set(measured(HELD_OUT)["ids"])


def remedies() -> str:
    """The validation scores of the remedies for imbalance, each with its chosen option, and which of them the recipe has."""
    if instead := unfinished(IMBALANCE):
        return instead
    found, (name, following, *_) = comparison(IMBALANCE), _remedies()
    options = [f"`-o {route} {of}`" for route, of in found.results.plan.configurations[name].options.items()]
    remedy = f"{name} with {listed(options)}" if options else name
    best, second = (fmean(_by_run(found, macro_f1, held_out())[each]) for each in (name, following))
    behind = number(best - second) if best - second >= 0.001 else "less than .001"
    told = (
        f"The recipe has {remedy}: the best of those that are part of the kit and leave the head free. The next of them, "
        f"{following}, is {behind} behind."
    )
    return f"{_candidates(found, name)}\n\n{told}"


def _remedies() -> list[str]:
    """The best recipe's remedy, then the others that it could have: a preset names the kit's own plugins, and a head besides."""
    found = comparison(IMBALANCE)
    records = {name: runs[0].record for name, runs in found.results.runs.items()}
    ours = {name for name, each in records.items() if {said["distribution"] for said in each.plugins.values()} == {OURS}}
    return ranked(found, {name for name in ours if records[name].config["head"] == RunConfig().head})


def ingredients() -> str:
    """The validation scores of what else the best recipe may be made of."""
    if instead := unfinished(INGREDIENTS):
        return instead
    found = comparison(INGREDIENTS)
    return _candidates(found, ranked(found)[0])


def best_recipe() -> RunConfig:
    """What validation parts chose, with the larger encoder: what `--preset best` has to be."""
    found = comparison(INGREDIENTS)
    parts = found.results.plan.configurations[ranked(found)[0]]
    remedy = comparison(IMBALANCE).results.plan.configurations[_remedies()[0]]
    options = {route: float(of) for route, of in {**parts.options, **remedy.options}.items()}
    larger = {"encoder": "mpnet", "freeze_layers": 8, "data": "sample", "threads": None}
    return configure(parts, {**larger, "loss": remedy.loss, "sampler": remedy.sampler, "options": options})


def _candidates(found: Comparison, best_of_them: str) -> str:
    """Macro F1 and accuracy of the validation parts, means over tasks and seeds, of the configurations to choose from."""
    merits, accuracies = (_by_run(found, each, held_out()) for each in (macro_f1, _accuracy))
    lines = []
    for name, of_splits in merits.items():
        mean = number(fmean(of_splits))
        cells = [f"**{mean}**" if name == best_of_them else mean, ", ".join(map(number, of_splits))]
        lines.append([titled(found, name), *cells, number(fmean(accuracies[name]))])
    return table(["", "macro F1, validation", "of each split", "accuracy, validation"], lines)


def ranked(found: Comparison, among: Container[str] | None = None) -> list[str]:
    """Configurations by the mean macro F1 of their runs on the validation parts, the best first."""
    merits = _by_run(found, macro_f1, held_out())
    return sorted((name for name in merits if among is None or name in among), key=lambda name: -fmean(merits[name]))


def _tested(folder: str) -> set[str]:
    """The test pairs of all splits of a comparison."""
    first = next(iter(comparison(folder).results.runs.values()))
    return {one for run in first for said in run.answers.values() for one in said.ids}


def _by_run(found: Comparison, score_of: Score, without: Container[str]) -> dict[str, list[float]]:
    """A score of every run, its mean over tasks, on its validation pairs but for those that another comparison tests."""
    every = found.results.runs
    return {name: [fmean(_validated(run, score_of, without)) for run in runs] for name, runs in every.items()}


def _validated(run: Run, score_of: Score, without: Container[str]) -> Iterator[float]:
    for task in run.record.tasks.tasks:
        said = run.validation[task.name]
        kept = np.array([one not in without for one in said.ids])
        yield score_of(said.true[kept], said.predicted[kept], len(task.labels))


def _accuracy(true: Ints, predicted: Ints, _: int) -> float:
    return float((true == predicted).mean())


SCORES: dict[str, tuple[str, Score]] = {"accuracy": ("accuracy", _accuracy), "macro_f1": ("macro F1", macro_f1)}


def best() -> str:
    """The recipe's scores on its test part, of single models and of their mean probabilities, next to the aims and yardsticks."""
    if instead := unfinished(BEST):
        return instead
    found = comparison(BEST)
    ((name, runs),) = found.results.runs.items()
    if any({*said.ids} != held_out() for run in runs for said in run.answers.values()):
        raise ValueError(f"{BEST} tests other pairs than {HELD_OUT}.json has: python benchmarks/held_out.py")
    together, means = _averaged(runs)
    tasks, rarest = [*together], rarest_levels(found.summary)
    others = simpler(found.results.yardsticks, tasks)
    every = {MEAN: means, **{each: scored(answers) for each, answers in others.items()}}
    titles = {MEAN: MEAN, **{each: titled(found, each) for each in others}}
    measures = [*_measures(runs, every), _ranking(found, name, every)]
    parts = [line for each in measures for line in _lines(each, titles if each is measures[0] else {}, every)]
    chance = [number(found.summary.by_chance[task][rarest[task]]) for task in tasks]
    parts.append([f"{measures[-1].shown}, by chance", *chance])
    errors = [calibration(together[task], runs[0].answers[task].true).ece for task in tasks]
    parts.append([f"expected calibration error, {MEAN}", *map(number, errors)])
    parts += [[f"right of the pairs of a rare level, {who}", *_rare(scores, rarest)] for who, scores in every.items()]
    size = len(runs[0].answers[tasks[0]].ids)
    labels = {task.name: task.labels for task in runs[0].record.tasks.tasks}
    caution = too_sure(
        (task if who == MEAN else f"{who} {task}", labels[task], scores[task].confusion)
        for who, scores in every.items()
        for task in tasks
    )
    told = sentences(
        f"{titled(found, name)}: {count(len(runs))} seeds on one split.",
        f"Its {size} test pairs are left out of the validation scores of this section.",
        "Each model's probabilities are calibrated by its own temperatures before their mean is taken.",
        "Intervals are over pairs.",
        f"{MARK} {caution}" if caution else "",
        *(f"Below its aim with {who}: {_named(each.below_aims(who) for each in measures)}." for who in (ONE, ALL)),
        *(
            f"Below a yardstick with {who}: {_named(each.below_yardsticks(who) for each in measures)}."
            for who in (ONE, ALL)
            if others
        ),
    )
    return f"{told}\n\n{table(['', *tasks], parts)}"


def _lines(measure: Measure, titles: Mapping[str, str], every: Mapping[str, Mapping[str, Scores]]) -> Iterator[list[str]]:
    """The table's rows of one score; titles has more than the names of who is in the rows."""
    yield [f"{measure.shown}, one model: mean (lowest to highest)", *map(_spread, measure.single.values())]
    for who, several in measure.several.items():
        marks = [MARK * (measure.title == "macro F1" and bool(barely_hit(every[who][task].confusion))) for task in several]
        yield [f"{measure.shown}, {titles.get(who, who)}", *map(_marked, several.values(), marks)]
    if measure.aims:
        yield [f"{measure.shown}, the aim", *map(number, measure.aims.values())]


def _measures(runs: Sequence[Run], every: Mapping[str, Mapping[str, Scores]]) -> Iterator[Measure]:
    tasks = [*every[MEAN]]
    for at, (metric, (title, score_of)) in enumerate(SCORES.items()):
        single = {
            task: [
                score_of(run.answers[task].true, run.answers[task].predicted, len(every[MEAN][task].confusion)) for run in runs
            ]
            for task in tasks
        }
        several = {who: {task: getattr(scores[task], metric) for task in tasks} for who, scores in every.items()}
        yield Measure(title, {task: task for task in tasks}, single, several, {task: AIMS[task][at] for task in tasks})


def _ranking(found: Comparison, name: str, every: Mapping[str, Mapping[str, Scores]]) -> Measure:
    """Average precision of each task's rarest level, which needs no threshold."""
    rarest, row = rarest_levels(found.summary), found.row(name)
    names, single = {}, {}
    for task in found.summary.tasks:
        ranked_by = row.cells[task.name].average_precision if row else None
        names[task.name] = label_of(task, rarest[task.name])
        single[task.name] = ranked_by[rarest[task.name]].runs if ranked_by else []
    several = {who: {task: scores[task].average_precision[rarest[task]] for task in names} for who, scores in every.items()}
    return Measure("average precision", names, single, several, {})


def in_short() -> str:
    """The recipe's scores in a sentence; nothing before they are measured."""
    if unfinished(BEST):
        return ""
    found = comparison(BEST)
    ((_, runs),) = found.results.runs.items()
    _, means = _averaged(runs)
    told = [
        f"{title} is {listed([f'{number(getattr(each, metric).value)} ({task})' for task, each in means.items()])}, "
        f"where the aim was {listed([number(AIMS[task][at]) for task in means])}"
        for at, (metric, (title, _)) in enumerate(SCORES.items())
    ]
    better = [
        f"{WORDS[name]} has a higher macro F1, {listed([f'{number(value)} ({task})' for task, value in of_tasks.items()])}"
        for name, answers in simpler(found.results.yardsticks, [*means]).items()
        if (of_tasks := above(answers, means))
    ]
    told += [f"on the same pairs {listed(better)}"] if better else []
    return (
        "**The best recipe** that validation parts chose (`--preset best`), with a larger encoder and the mean of "
        f"{count(len(runs))} models, on a test part that was looked at once: {'; '.join(told)}."
    )


def _averaged(runs: Sequence[Run]) -> tuple[dict[str, Floats], dict[str, Scores]]:
    """The runs' mean probabilities, and their scores."""
    together = {task: _together(runs, task) for task in AIMS if task in runs[0].answers}
    return together, {task: score(runs[0].answers[task].true, rows, 0, seed=0) for task, rows in together.items()}


def _rare(means: Mapping[str, Scores], rarest: Mapping[str, int]) -> Iterator[str]:
    for task, found in means.items():
        level = rarest[task]
        row = found.confusion[level]
        yield f"{task} {level}: {row[level]} of {sum(row)}, predicted {sum(each[level] for each in found.confusion)} times"


def _named(those: Iterable[Iterable[str]]) -> str:
    names = [name for several in those for name in several]
    return listed(names) if names else "nothing"


def _marked(found: Estimate | None, mark: str) -> str:
    return "-" if found is None else estimate(asdict(found)) + mark


def _spread(values: Sequence[float]) -> str:
    return f"{number(fmean(values))} ({number(min(values))} to {number(max(values))})"


def _together(runs: Sequence[Run], task: str) -> Floats:
    temperatures = [float((run.record.calibration or {})[task]["temperature"]) for run in runs]
    every = [tempered(run.probabilities[task], heat) for run, heat in zip(runs, temperatures, strict=True)]
    found: Floats = np.mean(every, axis=0)
    return found
