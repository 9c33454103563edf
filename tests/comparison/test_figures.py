"""The report's pictures: any number of tasks and labels, told in words too."""

from __future__ import annotations

import re

import pytest
from made_up import ODD, made_up

from empathy_kit.comparison.finished import read_finished
from empathy_kit.comparison.pages import figures as drawing
from empathy_kit.comparison.pages import summarise
from empathy_kit.comparison.pages.diagram import diagram
from empathy_kit.comparison.pages.summary import Summary
from empathy_kit.data.schema import Schema, TaskSchema

NINE = Schema(tuple(TaskSchema(f"t{at}", "t", f"t{at}", tuple("abc" if at else "abcdefghijklmnop")) for at in range(9)))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Two tasks of 2 and 4 labels."""
    return summarise(read_finished(made_up(tmp_path_factory.mktemp("figures") / "odd", ["T1", "T3", "T2g"], 2, schema=ODD)))


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Nine tasks."""
    return summarise(read_finished(made_up(tmp_path_factory.mktemp("figures") / "nine", ["T1"], 2, schema=NINE)))


def test_confidence_begins_where_the_likeliest_of_the_labels_may_be(odd: Summary) -> None:
    panels = drawing._calibration(odd).axes
    assert [panel.get_xlim()[0] for panel in panels] == [0.5, 0.2]  # 1 / 2, and 1 / 4 a tenth lower


def test_the_scores_of_each_task_have_a_panel_and_each_score_begins_a_row(odd: Summary, nine: Summary) -> None:
    panels = drawing._scores(odd).axes
    assert [panel.get_title() for panel in panels] == [
        f"{name}, {score}" for score in ("accuracy", "macro F1") for name in ("warmth", "advice_given")
    ]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["T1", "T3", "T2g (ORACLE)", "majority", "T1-swapped"]
    shown = [panel for panel in drawing._scores(nine).axes if panel.get_visible()]
    assert len(shown) == 18
    left = {panel.get_title() for panel in shown if panel.get_subplotspec().is_first_col()}
    assert left == {f"t{at}, {score}" for at in (0, 4, 8) for score in ("accuracy", "macro F1")}


def test_the_line_of_an_interval_of_the_pairs_alone_is_broken(odd: Summary) -> None:
    panels = drawing._scores(odd).axes
    cells = [(row, name, metric) for metric in ("accuracy", "macro_f1") for name in odd.names for row in odd.rows]
    lines = [line for panel in panels for line in panel.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 3]
    expected = [row.cells[name].scores[metric].by == "pairs" for row, name, metric in cells]
    assert [line.is_dashed() for line in lines] == expected
    assert set(expected) == {True, False}


def test_pictures_are_told_in_words_and_hold_no_markup_of_others(odd: Summary) -> None:
    drawn = drawing.figures(odd)
    assert drawn.keys() == {"scores", "curves", "calibration", "classes"}
    for picture in drawn.values():
        assert "<i>" not in picture
        assert re.match(r'<svg role="img" aria-label="[^"]{50,}"', picture)
    assert "warmth &quot;$y$es | `or` &lt;i>so&lt;/i>&quot;: 333" in drawn["classes"]
    assert "T2g (ORACLE) advice_given accuracy" in drawn["scores"]


def test_the_model_is_drawn_with_a_head_per_task(odd: Summary, nine: Summary) -> None:
    heads = re.findall(r'<text x="765" y="[\d.]+">(.*?)</text>', diagram(odd))
    assert heads == ["warmth: no, $y$es | `or` &lt;i&gt;so&lt;/i&gt;", "advice_given: none at all, a hint…"]
    assert "GRU</text>" in diagram(odd)
    heads = re.findall(r'<text x="765" y="[\d.]+">(.*?)</text>', diagram(nine))
    assert heads == ["t0: a, b, c, d, e, f, g, h, i, j,…", *(f"t{at}: a, b, c" for at in range(1, 6)), "and 3 more"]
