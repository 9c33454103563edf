"""The pages' blocks on claims that are not measured yet, with invented runs: what they will say, and that they can."""

from __future__ import annotations

import csv
import importlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from made_up import PAIRS, made_up_run
from sklearn.metrics import accuracy_score, f1_score

from empathy_kit.comparison.plan import write_plan
from empathy_kit.comparison.run import Run
from empathy_kit.comparison.statistics import SeedEstimate
from empathy_kit.runs.report import number

ROOT = Path(__file__).parents[2]
CLAIMS = ("sharing", "learning", "recurrence", "imbalance", "predecessor", "predecessor-size", "size", "size-paper")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A block by its name, from invented runs of every question with two seeds."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("docs", "benchmarks"):
            patch.syspath_prepend(str(ROOT / folder))
        questions = importlib.import_module("questions").QUESTIONS
        made = importlib.import_module("blocks").BLOCKS
        reading = importlib.import_module("blocks.reading")
        patch.setattr(reading, "RESULTS", results)
        tested = [f"{questions['best'].one_split:04x}{at:012x}" for at in range(PAIRS)]  # the ids of invented runs
        (results / "held-out.json").write_text(json.dumps({"ids": tested}), encoding="utf-8")
        for several in (reading.comparison, reading.measured):
            several.cache_clear()

        def block(name: str) -> str:
            question = name.removeprefix("claim-")
            folder = results / f"reddit-{question}"
            if question in questions and not folder.exists():
                invent(folder, questions[question])
            return str(made[name]())

        yield block
        for several in (reading.comparison, reading.measured):
            several.cache_clear()
    sys.modules.pop("questions")


def invent(folder: Path, question: Any) -> None:
    plan = replace(question.plan, seeds=question.plan.seeds[:2])
    (folder / "runs").mkdir(parents=True)
    write_plan(plan, folder)
    for position, (model, _) in enumerate(plan.models.items()):
        for seed in plan.seeds:
            config = plan.config(model, seed)
            run = folder / "runs" / f"{model}-{seed}"
            made_up_run(run, config, position, seed, config.split_seed, 0.0)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_says_what_was_found_and_how_small_a_difference_would_have_been(blocks: Callable[[str], str], name: str) -> None:
    said = blocks(f"claim-{name}")
    pairs = importlib.import_module("blocks.claims").CLAIMS[name].pairs
    assert [pair for pair in pairs if f"| {' to '.join(pair)} | ER |" not in said] == []
    assert "After Holm's correction" in said
    assert "as a single test before Holm's correction, is " in said
    assert f'<img src="claim-{name}-light.svg"' in said


def test_a_claim_that_asks_for_it_shows_levels_costs_and_published_figures(blocks: Callable[[str], str]) -> None:
    size = blocks("claim-size")
    assert "Right of all pairs of a level, over the seeds, and how often it is predicted:" in size
    assert "| T4m: focal + predicted, encoder mpnet | 1 |" in size  # one model, in the table of its size
    sharing = blocks("claim-sharing")
    assert sharing.count("one model per task | 3 |") == 2
    assert "Times of different machines, or of one with other work on it, are not comparable." in sharing
    curve = [line for line in blocks("claim-learning").splitlines() if line.startswith("| T3") and ":" in line]
    assert [line[2:].partition(":")[0] for line in curve] == ["T3", "T3-75", "T3-50", "T3-25"] * 2
    predecessor = blocks("claim-predecessor")
    assert "| Sharma et al. (2020): RoBERTa, its own split | .840 | - | .626 | - | - | .574 | .559 |" in predecessor
    assert "| the same without attention | .833 | - | .623 | - | - | - | - |" in predecessor
    assert "| T3 in the paper: RoBERTa, its own split, one run | .806 |" in blocks("claim-size-paper")


def validated(runs: Mapping[str, Sequence[Run]], without: Container[str] = ()) -> dict[str, float]:
    """Scikit-learn's mean macro F1 of every configuration on its validation pairs, but for some."""
    scores: dict[str, list[float]] = {}
    for name, several in runs.items():
        for said in (said for run in several for said in run.validation.values()):
            kept = [at for at, one in enumerate(said.ids) if one not in without]
            value = f1_score(said.true[kept], said.predicted[kept], labels=[0, 1, 2], average="macro", zero_division=0)
            scores.setdefault(name, []).append(value)
    return {name: fmean(values) for name, values in scores.items()}


def test_validation_parts_choose_options_and_ingredients(blocks: Callable[[str], str]) -> None:
    comparison = importlib.import_module("blocks.reading").comparison
    _, _, tuned = (blocks(name).splitlines() for name in ("ingredients", "claim-imbalance", "tuning"))
    merits = validated(comparison("reddit-tuning").results.runs)
    assert tuned[0] == "| | option | low | middle | high |"
    seen = f"Of the {PAIRS} pairs that chose, 0 are among those that the best recipe is tested on."
    assert tuned[2 + 1 + 9 :] == ["", seen]  # cross-entropy has no option
    focal = {gamma: merits[f"focal-{at}"] for gamma, at in ((1, "low"), (2, "middle"), (4, "high"))}
    cells = [f"{gamma}: {number(merit)}" for gamma, merit in focal.items()]
    expected = [f"**{at}**" if merit == max(focal.values()) else at for at, merit in zip(cells, focal.values(), strict=True)]
    assert f"| focal | `-o loss.gamma` | {' | '.join(expected)} |" in tuned
    ours = {"T1", "focal", "weighted", "over", "under", "focal-weighted"}  # not of a plugin, and without a head of its own
    for name, folder, among in (("ingredients", "reddit-ingredients", None), ("remedies", "reddit-imbalance", ours)):
        made = blocks(name).splitlines()
        merits = validated(comparison(folder).results.runs)
        best = max((each for each in merits if among is None or each in among), key=merits.__getitem__)
        assert [line[2:].partition(":")[0] for line in made if "**" in line] == [best]
    assert made[-1].startswith(f"The recipe has {best}: " if best == "T1" else f"The recipe has {best} with `-o ")


def test_a_pair_that_the_best_recipe_is_tested_on_chooses_no_ingredient(
    blocks: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("best", "ingredients"):
        blocks(name)
    recipe = importlib.import_module("blocks.recipe")
    found, (tested, _) = recipe.comparison(recipe.INGREDIENTS), recipe.comparison(recipe.BEST).results.runs["best"]
    runs = {name: [first, overlapping(second, tested)] for name, (first, second) in found.results.runs.items()}
    changed = replace(found, results=replace(found.results, runs=runs))
    merits = validated(runs, {one for said in tested.answers.values() for one in said.ids})
    assert merits != pytest.approx(validated(runs))
    comparison = recipe.comparison
    monkeypatch.setattr(recipe, "comparison", lambda name: changed if name == recipe.INGREDIENTS else comparison(name))
    said = [line.split(" | ")[:2] for line in recipe.ingredients().splitlines()[2:]]
    shown = {name[2:].partition(":")[0]: cell.strip("*") for name, cell in said}
    assert shown == {name: number(merit) for name, merit in merits.items()}


def overlapping(run: Run, other: Run) -> Run:
    """The run with half of its validation part among the pairs that another split tests."""
    half = PAIRS // 2
    parts = {
        task: replace(said, ids=(*other.answers[task].ids[:half], *said.ids[half:])) for task, said in run.validation.items()
    }
    return replace(run, validation=parts)


def test_the_best_recipe_stands_next_to_its_aims_by_single_models_and_by_their_mean(
    blocks: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = blocks("best")
    folder = importlib.import_module("blocks.reading").RESULTS / "reddit-best"
    tables = [list(csv.DictReader(path.read_text().splitlines())) for path in sorted(folder.glob("runs/*/predictions.csv"))]
    true = np.array([int(row["ER_true"]) for row in tables[0]])
    chances = np.array([[[float(row[f"ER_p{level}"]) for level in range(3)] for row in rows] for rows in tables])
    single = [accuracy_score(true, each.argmax(1)) for each in chances]
    calibrated = np.sqrt(chances) / np.sqrt(chances).sum(2, keepdims=True)  # the temperature of the invented runs is 2
    predicted = calibrated.mean(0).argmax(1)
    spread = f"{number(fmean(single))} ({number(min(single))} to {number(max(single))})"
    assert f"\n| accuracy, one model: mean (lowest to highest) | {spread} |" in said
    assert f"\n| accuracy, the mean of their probabilities | {number(accuracy_score(true, predicted))} [" in said
    assert f"| ER 2: {sum(predicted[true == 2] == 2)} of {sum(true == 2)}, predicted {sum(predicted == 2)} times |" in said
    assert "\n| accuracy, the aim | .830 | .940 | .845 |\n" in said
    assert "\n| macro F1, the aim | .790 | .770 | .600 |\n" in said
    recipe = importlib.import_module("blocks.recipe")
    every = "accuracy of ER, accuracy of EX, accuracy of IP, macro F1 of ER, macro F1 of EX and macro F1 of IP"
    for aim, missed in ((1.0, every), (0.0, "nothing")):
        monkeypatch.setattr(recipe, "AIMS", dict.fromkeys(recipe.AIMS, (aim, aim)))
        for who in ("one model", "the models' mean"):
            assert f"Below its aim with {who}: {missed}." in recipe.best()


def test_an_interval_that_is_too_sure_is_marked_in_the_best_recipe_too(
    blocks: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "* Predicted right at most once: IP " in (said := blocks("best"))  # no invented run has level 1 of it
    assert [line.count("*") for line in said.splitlines() if line.startswith("| macro F1, the mean of their")] == [1]
    recipe = importlib.import_module("blocks.recipe")
    scored = recipe.score

    def barely(*arguments: Any, **options: Any) -> Any:
        found = scored(*arguments, **options)
        return replace(found, confusion=[*found.confusion[:2], [found.confusion[2][0], sum(found.confusion[2][1:]) - 1, 1]])

    monkeypatch.setattr(recipe, "score", barely)
    said = recipe.best()
    assert "* Predicted right at most once: ER " in said
    assert [line.count("*") for line in said.splitlines() if line.startswith("| macro F1, the mean of their")] == [3]


@pytest.mark.parametrize(("name", "planned"), [("ingredients", 14), ("tuning", 28), ("best", 2)])
def test_a_comparison_that_is_not_finished_chooses_nothing(
    blocks: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, name: str, planned: int
) -> None:
    blocks(name)
    claims = importlib.import_module("blocks.claims")
    found = claims.comparison(f"reddit-{name}")
    missing = [found.results.plan.runs()[-1]]
    monkeypatch.setattr(claims, "comparison", lambda _: replace(found, results=replace(found.results, missing=missing)))
    assert blocks(name) == f"{planned - 1} of {planned} runs are there; `python benchmarks/questions.py {name}` continues them."


def test_a_claim_whose_comparison_lacks_runs_says_so_instead_of_a_number_of_seeds(
    blocks: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Two of three seeds." not in blocks("claim-recurrence")
    claims = importlib.import_module("blocks.claims")
    found = claims.comparison("reddit-recurrence")
    missing = [found.results.plan.runs()[-1]]
    monkeypatch.setattr(claims, "comparison", lambda _: replace(found, results=replace(found.results, missing=missing)))
    said = "7 of 8 runs are there; `python benchmarks/questions.py recurrence` continues them. After Holm's correction "
    assert said in blocks("claim-recurrence")
    assert f"| The GRU helps | {said}" in blocks("claims")


def test_a_claim_is_summarised_by_the_difference_that_answers_it(blocks: Callable[[str], str]) -> None:
    said = blocks("claim-predecessor")
    assert "| bi to bi-no-attention | ER |" in said
    (answer,) = importlib.import_module("blocks.claims").CLAIMS["predecessor"].answers  # T1 to bi, which has three models
    outcome = importlib.import_module("blocks.reading").outcome(answer)
    assert f"| {outcome} | 8 |" in blocks("claims")


def test_one_seed_has_no_intervals_in_the_words_on_its_picture_either(
    blocks: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 'alt="Differences with 95 % intervals, task by task"' in blocks("claim-sharing")
    claims = importlib.import_module("blocks.claims")
    found, none = claims.comparison("reddit-sharing"), SeedEstimate(0.1, None, None, None, None, None, None, None)
    alone = [replace(each, accuracy=none, macro_f1=none) for each in found.summary.contrasts]
    monkeypatch.setattr(claims, "comparison", lambda _: replace(found, summary=replace(found.summary, contrasts=alone)))
    assert 'alt="Differences, task by task"' in blocks("claim-sharing")


def test_a_plugins_page_says_where_its_scores_are(blocks: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    blocks("claim-imbalance")
    there = "[docs/paper.md](../../docs/paper.md#focal-loss)"
    assert blocks("scores-ordinal") == f"Two seeds compare `hurdle` with cross-entropy in {there}."
    monkeypatch.setattr(importlib.import_module("blocks.paper"), "unfinished", lambda folder: f"Not measured yet: {folder}.")
    assert blocks("scores-ordinal") == "Not measured yet: reddit-imbalance."


def test_a_comparison_of_which_no_configuration_is_complete_is_not_measured_yet(
    blocks: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reading, questions = importlib.import_module("blocks.reading"), importlib.import_module("questions").QUESTIONS
    blocks("claim-sharing")
    folder, plan = tmp_path / "reddit-sharing", replace(questions["sharing"].plan, seeds=(0, 1))
    shutil.copytree(reading.RESULTS / "reddit-sharing", folder)
    monkeypatch.setattr(reading, "RESULTS", tmp_path)
    for model, seed in plan.runs():
        if (model, seed) != ("T1s.ER", 0):  # one of the three models of a configuration
            shutil.rmtree(folder / "runs" / f"{model}-{seed}")
    assert blocks("claim-sharing") == "Not measured yet; `python benchmarks/questions.py sharing` measures it."
    assert not reading.begun("reddit-nowhere")


EXPERTS = {
    "seeds": 5, "pairs": 50, "kept": 3028, "left_out": 56,
    "agreement": {
        "ER": {
            "experts' median": {
                "expert1": {"kappa": (0.9, 0.8, 0.95), "above": (0.2, 0.1, 0.3)},
                "crowd": {"kappa": (0.7, 0.6, 0.8), "above": None},
                "T3": {"kappa": (0.4, 0.2, 0.6), "above": (-0.3, -0.5, -0.1)},
                "somebody": {"kappa": (0.6, 0.4, 0.7), "above": (-0.1, -0.3, 0.1)},
            }
        }
    },
}  # fmt: skip


def test_experts_are_not_praised_for_agreeing_with_themselves(blocks: Callable[[str], str]) -> None:
    content = json.loads(json.dumps(EXPERTS))
    for found in content["agreement"].values():
        for rater, each in found["experts' median"].items():
            scores = {"kappa": interval(each["kappa"]), "accuracy": {"value": 0.5}}
            found["experts' median"][rater] = scores | (
                {"kappa_above_the_crowds": interval(each["above"])} if each["above"] else {}
            )
        found["crowd"] = found["experts' median"]
    reading = importlib.import_module("blocks.reading")
    (reading.RESULTS / "experts.json").write_text(json.dumps(content))
    said = blocks("experts")
    assert "By the interval of its difference of kappa, T3 (ER) is further from it than the crowd." in said
    assert "1 of these 2 intervals leave 0 out. They are not corrected: one of twenty does by chance alone." in said


def interval(values: list[float]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), values, strict=True))


def test_what_labels_tell_of_each_other_is_counted_and_not_judged(blocks: Callable[[str], str]) -> None:
    paper = importlib.import_module("blocks.paper")
    same = Counter({(0, 0): 5, (1, 1): 5})
    assert paper._information(same) == pytest.approx(1.0)
    assert paper._information(Counter({(0, 0): 5, (0, 1): 5, (1, 0): 5, (1, 1): 5})) == pytest.approx(0.0)
