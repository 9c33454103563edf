"""What the report tells of its own figures: which interval, what family, what ranks, and what is no estimate."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from made_up import ODD, made_up

from empathy_kit.comparison.finished import read_finished
from empathy_kit.comparison.pages import summarise, write
from empathy_kit.comparison.pages.summary import Summary
from empathy_kit.comparison.pages.terminal import tables
from empathy_kit.comparison.pages.words import CORRECTED, batch_cell, family, ranked_cell
from empathy_kit.data.schema import EPITOME
from empathy_kit.runs.report import number


@pytest.fixture(scope="module", params=["three of three", "two of two and four"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three configurations, one of the first task alone, three seeds; reported on."""
    schema, missing = (EPITOME, 0.0) if request.param == "three of three" else (ODD, 0.2)
    made = tmp_path_factory.mktemp("meaning") / "made-up"
    alone = {"alone": {"tasks": schema.names[:1]}}
    made_up(made, ["T1", "T3", "alone"], 3, schema=schema, missing=missing, changes=alone)
    write(summarise(read_finished(made)), made)
    return made


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return summarise(read_finished(folder))


def test_every_interval_is_said_to_be_students_or_the_pairs(folder: Path, summary: Summary) -> None:
    page, text = ((folder / file).read_text(encoding="utf-8") for file in ("report.html", "report.md"))
    explained = "s: Student's interval over the seeds; p: the interval over the pairs alone, where it is the wider of the two."
    for found in (html.unescape(page), text):
        assert explained in found
        intervals = re.findall(r"\[[-+]?\d*\.\d+, [-+]?\d*\.\d+\](.{2})", found)
        assert len(intervals) >= 30
        assert set(intervals) <= {" s", " p"}
    by = [cell.scores[metric].by for row in summary.rows for cell in row.cells.values() for metric in cell.scores]
    assert set(by) == {"seeds", "pairs"}
    scores, *others = tables(summary)
    assert scores.caption == explained.rstrip(".")
    shown = [cell for table in (scores, *others) for column in table.columns for cell in column.cells]
    assert {cell[-2:] for cell in map(str, shown) if "[" in cell} <= {" s", " p"}


def test_the_differences_say_what_holms_correction_is_over(folder: Path, summary: Summary) -> None:
    rows, pairs = len(summary.contrasts), len({(each.first, each.second) for each in summary.contrasts})
    told = (
        f"{CORRECTED} The correction is over all {rows} rows of this table: {pairs} contrasts, each on every task that both "
        "have. These are all contrasts in the folder; another configuration in it makes the correction stricter."
    )
    assert family(summary) == told
    assert f"<caption>{told}</caption>" in html.unescape((folder / "report.html").read_text("utf-8"))
    assert told in (folder / "report.md").read_text("utf-8")
    assert [table.caption for table in tables(summary)][-1] == told


def test_average_precision_stands_next_to_recall_with_that_of_a_random_ranking_below(folder: Path, summary: Summary) -> None:
    page, text = ((folder / file).read_text(encoding="utf-8") for file in ("report.html", "report.md"))
    by_title = {str(table.title): table for table in tables(summary)}
    for task in summary.tasks:
        levels = range(len(task.labels))
        row = summary.rows[0]
        ranked = [ranked_cell(row, task.name, level) for level in levels]
        if task.name in row.cells:
            assert all(re.fullmatch(r"\d*\.\d{3} \(\d?\.\d\d to \d?\.\d\d\)", cell) for cell in ranked)
            for cell in ranked:
                assert f"</td><td>{cell}</td>" in page
                assert f" | {cell} |" in text
        base = [number(value) for value in summary.by_chance[task.name]]
        assert "".join(f"<td>-</td><td>{share}</td>" for share in base) in page
        assert f"| a random ranking (expected) | {' | '.join(f'- | {share}' for share in base)} |" in text
        shown = by_title[f"{task.name} by label: recall / average precision, means over the seeds"]
        last = [list(column.cells)[-1] for column in shown.columns]
        assert last == ["a random ranking", *(f"- / {share}" for share in base)]


def test_f1_by_batches_is_named_and_called_no_estimate(folder: Path, summary: Summary) -> None:
    page, text = ((folder / file).read_text(encoding="utf-8") for file in ("report.html", "report.md"))
    told = (
        "The mean of macro F1 over batches of 32 consecutive test pairs, and over the seeds. It does not estimate macro F1 "
        "over all pairs, because a batch without a rare label leaves that label out. Published figures of the EPITOME data are "
        "computed in this way."
    )
    assert f"<p>{told}</p>" in page
    assert f"## macro F1, mean over batches of 32\n\n{told}\n" in text
    assert "<caption>macro F1, mean over batches of 32</caption>" in page
    for row in summary.rows:
        cells = [batch_cell(row, name) for name in summary.names]
        assert "".join(f"<td>{cell}</td>" for cell in cells) in page
        assert f"| {row.label} | {' | '.join(cells)} |" in text


def test_agreement_between_labels_is_called_that_and_limits_no_model(folder: Path) -> None:
    told = (
        "Agreement between labels is that of pairs labelled more than once. It is no upper limit for a model: the best "
        "possible score on these pairs is higher, because a prediction can equal one label where two differ."
    )
    for file in ("report.html", "report.md"):
        text = (folder / file).read_text(encoding="utf-8")
        assert told in text
        assert "agreement between labels (3 pairs labelled more than once)" in text
