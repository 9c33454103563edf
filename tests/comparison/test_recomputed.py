"""What a run's record holds twice, or other files hold too, is compared: an edited record is not believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import PAIRS, made_up, rewrite_record

from empathy_kit import KitError
from empathy_kit.comparison.finished import read_finished

EDITED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an oracle that is called none": (
        lambda content: content.update(oracle=False),
        "/run.json: oracle is false, but --rationale gold is an oracle",
    ),
    "a plugin that the settings do not name": (
        lambda content: content["plugins"]["loss"].update(name="focal"),
        "/run.json: its loss is 'focal', but ce in its settings",
    ),
    "test pairs": (
        lambda content: content["split"]["pairs"].update(test=PAIRS + 1, train=1000 - 2 * PAIRS - 1),
        ": the counts of the test part in run.json are not those of predictions.csv",
    ),
    "labels of test pairs": (
        lambda content: move(content["split"]["class_counts"], "train", "test"),
        ": the counts of the test part in run.json are not those of predictions.csv",
    ),
    "labels of validation pairs": (
        lambda content: move(content["split"]["class_counts"], "train", "validation"),
        ": the counts of the validation part in run.json are not those of validation.csv",
    ),
    "labels of training pairs": (
        lambda content: content["split"]["class_counts"]["train"].update(EX=[0, 500, 100]),
        "/run.json: the pairs or labels of the parts do not add up to those of the data",
    ),
    "pairs of the data": (
        lambda content: content["data"].update(pairs=3000),
        "/run.json: the pairs or labels of the parts do not add up to those of the data",
    ),
    "pairs of the data and the training part": (
        lambda content: (content["data"].update(pairs=3000), content["split"]["pairs"].update(train=3000 - 2 * PAIRS)),
        ": the counts of its data are not those of {first}, but the sha256 is the same; one of them was changed",
    ),
    "pairs that --train-share leaves out": (
        lambda content: (content["split"]["pairs"].update(train=100), content["split"].update(unused=900 - 2 * PAIRS)),
        ": the counts of its split are not those of {first}, but the sha256 is the same; one of them was changed",
    ),
}


def move(counts: dict[str, dict[str, list[int]]], one: str, other: str) -> None:
    """A pair with level 0 of ER from one part to another."""
    counts[one]["ER"][0] -= 1
    counts[other]["ER"][0] += 1


@pytest.mark.parametrize("case", EDITED)
def test_what_can_be_computed_again_is_not_believed(tmp_path: Path, case: str) -> None:
    folder = made_up(tmp_path / "made-up", ["T1", "T2g"], 1)
    change, message = EDITED[case]
    rewrite_record(folder / "runs" / "T2g-0", change)
    with pytest.raises(KitError) as error:
        read_finished(folder)
    assert str(error.value) == f"{folder / 'runs' / 'T2g-0'}{message.format(first=folder / 'runs' / 'T1-0')}"


def test_a_third_partys_injector_is_believed(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "made-up", ["T1", "mine"], 1, changes={"mine": {"rationale": "mine"}})
    rewrite_record(folder / "runs" / "mine-0", lambda content: content.update(oracle=True))
    assert read_finished(folder).runs["mine"][0].record.oracle
