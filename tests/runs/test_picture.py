"""The class counts as a picture: three formats, any tasks and labels, and text that is no formula."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from empathy_kit.data.schema import EPITOME, Schema, TaskSchema
from empathy_kit.errors import KitError
from empathy_kit.runs.picture import class_picture, draw_classes

COUNTS = {"ER": [20, 9, 1], "EX": [26, 1, 3], "IP": [16, 1, 13]}
OTHERS = Schema(
    (
        TaskSchema("warmth", "warmth", "warmth", ("no", "yes")),
        TaskSchema("advice", "how much advice", "advice given", ("none at all", "a hint", "a $5 plan for $6", "all of it")),
    )
)


def drawn(schema: Schema, counts: dict[str, list[int]]) -> tuple[list[int], list[str], list[str], list[str]]:
    """Heights of the bars, what stands on them, the tasks' names, the legend."""
    axes = Figure().subplots()
    draw_classes(axes, counts, schema)
    legend = axes.get_legend()
    return (
        [int(bar.get_height()) for bar in axes.patches],
        [text.get_text() for text in axes.texts],
        [label.get_text() for label in axes.get_xticklabels()],
        [] if legend is None else [text.get_text() for text in legend.get_texts()],
    )


def test_tasks_with_the_same_labels_share_a_legend() -> None:
    heights, numbers, names, legend = drawn(EPITOME, COUNTS)
    assert heights == [20, 26, 16, 9, 1, 1, 1, 3, 13]  # level by level, the tasks side by side
    assert numbers == [str(height) for height in heights]
    assert names == ["ER\nemotional reactions", "EX\nexplorations", "IP\ninterpretations"]
    assert legend == ["0", "1", "2"]


def test_a_label_that_starts_with_an_underscore_stands_in_the_legend() -> None:
    """matplotlib leaves such a label out of a legend."""
    labels = ("_none", "$a$", "__all")
    schema = Schema((TaskSchema("care", "care", "care", labels), TaskSchema("time", "time", "time", labels)))
    *_, legend = drawn(schema, {"care": [3, 2, 1], "time": [1, 2, 3]})
    assert legend == ["_none", "\\$a\\$", "__all"]


def test_bars_of_tasks_with_other_labels_bear_their_own_which_are_no_formulas() -> None:
    counts = {"warmth": [60, 36], "advice": [40, 30, 20, 0]}
    heights, numbers, names, legend = drawn(OTHERS, counts)
    assert heights == [60, 40, 36, 30, 20, 0]
    labels = ["60\nno", "40\nnone at all", "36\nyes", "30\na hint", "20\na \\$5 plan for \\$6", "0\nall of it"]
    assert numbers == labels
    assert names == ["warmth", "advice\nhow much advice"]
    assert legend == []


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_the_picture_is_written_in_three_formats(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"levels{suffix}"
    class_picture(COUNTS, EPITOME, "costs $5_a_$6: pairs of each level", path)  # a file's name, not a formula
    assert path.read_bytes().startswith(start)
    class_picture({"warmth": [1, 0]}, OTHERS.select(["warmth"]), "", path)  # one task alone


def test_a_picture_that_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    for name, reason in (
        ("levels.gif", "a .gif file, expected .svg, .png or .pdf"),
        ("levels", "a nameless file, expected .svg, .png or .pdf"),
        ("no/levels.svg", "cannot be written: No such file or directory"),
    ):
        with pytest.raises(KitError) as error:
            class_picture(COUNTS, EPITOME, "", tmp_path / name)
        assert str(error.value) == f"--picture {tmp_path / name}: {reason}"
    assert list(tmp_path.iterdir()) == []
