"""The best recipe's scores next to its aims and to simpler models, and where they are below these."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from blocks.reading import listed
from empathy_kit.comparison.statistics import Answers
from empathy_kit.core.metrics import Estimate, Scores, macro_f1, score

WORDS = {"tfidf": "TF-IDF", "tfidf-balanced": "TF-IDF with balanced classes"}  # by the yardsticks' names
MEAN = "the mean of their probabilities"
ONE, ALL = "one model", "the models' mean"


@dataclass(frozen=True)
class Measure:
    """One score on the recipe's test part, task by task."""

    title: str
    names: dict[str, str]  # task to what is scored of it, in words
    single: dict[str, list[float]]  # task to the score of every model
    several: dict[str, dict[str, Estimate | None]]  # of the models' mean and of every yardstick, by task; None where undefined
    aims: dict[str, float]  # by task; empty where none was set

    @property
    def shown(self) -> str:
        """The title with what is scored, where that is not the whole of a task."""
        return self.title if self.aims else f"{self.title} of {listed([*self.names.values()])}"

    def own(self, who: str, task: str) -> float:
        """The recipe's score as it is shown, or one that is printed like its aim would be below it."""
        if who == ONE:
            return round(fmean(self.single[task]), 3)
        mean = self.several[MEAN][task]
        return math.nan if mean is None else round(mean.value, 3)

    def below_aims(self, who: str) -> list[str]:
        """The tasks where the recipe is below its aim."""
        return [f"{self.title} of {self.names[task]}" for task, aim in self.aims.items() if self.own(who, task) < aim]

    def below_yardsticks(self, who: str) -> Iterator[str]:
        """The tasks where it is below a yardstick, and below which."""
        for task, name in self.names.items():
            others = {by: scores[task] for by, scores in self.several.items() if by != MEAN}
            better = [by for by, found in others.items() if found is not None and round(found.value, 3) > self.own(who, task)]
            if better:
                yield f"{self.title} of {name} ({', '.join(better)})"


def simpler(yardsticks: Mapping[str, Mapping[int, Mapping[str, Answers]]], tasks: Sequence[str]) -> dict[str, dict[str, Answers]]:
    """Yardstick to task to its answers on the test part of the only split; those alone that have all tasks."""
    of_split = {name: next(iter(yardsticks.get(name, {}).values()), {}) for name in WORDS}
    return {name: {task: of[task] for task in tasks} for name, of in of_split.items() if {*tasks} <= {*of}}


def scored(answers: Mapping[str, Answers]) -> dict[str, Scores]:
    """A yardstick's scores, with intervals over pairs."""
    known = {task: (said.true, said.probabilities) for task, said in answers.items()}
    return {task: score(true, rows, 0, seed=0) for task, (true, rows) in known.items() if rows is not None}


def above(answers: Mapping[str, Answers], own: Mapping[str, Scores]) -> dict[str, float]:
    """The tasks, with a yardstick's macro F1, where it is above the recipe's as both are shown."""
    every = {task: macro_f1(said.true, said.predicted, len(own[task].confusion)) for task, said in answers.items()}
    return {task: value for task, value in every.items() if round(value, 3) > round(own[task].macro_f1.value, 3)}
