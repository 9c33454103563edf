"""Tables and lines: what they say, in the width of a pipe, and what they must not leave unsaid."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import RenderableType
from sklearn.metrics import average_precision_score
from test_record import make_record
from test_report_lines import COUNTS, SPLIT

from empathy_kit.cli.console import KitConsole
from empathy_kit.config import RunConfig, configure, to_dict
from empathy_kit.data.schema import EPITOME, Schema, TaskSchema
from empathy_kit.errors import KitError
from empathy_kit.runs.record import verify
from empathy_kit.runs.report import (
    TOO_SURE,
    calibration_line,
    class_tables,
    count_table,
    estimate,
    number,
    part_table,
    random_precision,
    score_table,
    span_table,
    warnings,
)


def about(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.04, "high": value + 0.03}


def make_scores(never: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "n": 60,
        "accuracy": about(0.8321),
        "weighted_f1": about(0.8159),
        "macro_f1": about(0.6549),
        "kappa": about(-0.0512),
        "majority": {"accuracy": 0.671, "weighted_f1": 0.539, "macro_f1": 0.268},
        "precision": [about(0.9), about(0.5), about(0.1)],
        "recall": [about(0.91), about(0.51), about(0.11)],
        "f1": [about(0.92), about(0.52), about(0.12)],
        "average_precision": [about(0.93), about(0.53), about(0.13)],
        "batch_macro_f1": 0.7,
        "confusion": [[40, 1, 0], [3, 9, 0], [5, 2, 0]],
        "never_predicted": list(never),
    }


RECORD = make_record(
    data={"name": "sample"}, scores={"ER": make_scores((2,)), "EX": make_scores(), "IP": make_scores()}, spans=None
)
SPANS = {"ER": {"pairs": 12, "token_f1": about(0.5), "iou_f1": about(0.25)}, "EX": None, "IP": None}
ORACLE = make_record(
    oracle=True,
    config=to_dict(RunConfig(rationale="gold")),
    data={"name": "sample"},
    scores=RECORD.scores,
    spans=SPANS,
)


def shown(table: RenderableType | None, width: int = 80) -> str:
    assert table is not None
    console = KitConsole()
    console.file, console.width = io.StringIO(), width
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "text"), [(0.8321, ".832"), (1.0, "1.000"), (0.0, ".000"), (-0.0512, "-.051"), (0.99999, "1.000"), (-1.0, "-1.000")]
)
def test_a_score_is_written_as_the_field_writes_it(value: float, text: str) -> None:
    assert number(value) == text


def test_an_estimate_has_its_interval() -> None:
    assert estimate({"value": 0.832, "low": 0.794, "high": 1.0}) == ".832 [.79, 1.0]"


def one_class_table(record: Any) -> RenderableType:
    table, _ = class_tables(record)
    return table


def cells(row: str) -> list[str]:
    return [cell for cell in re.split(r"\s{2,}", row.strip()) if cell]


def test_the_score_table_sets_the_majority_class_beneath_every_headline_score() -> None:
    lines = shown(score_table(RECORD)).splitlines()
    assert lines[0].strip() == "focal on sample: 60 test pairs, 95 % bootstrap intervals, quadratic kappa"
    at = next(index for index, line in enumerate(lines) if line.split()[:1] == ["ER"])
    assert lines[at].split(maxsplit=1) == ["ER", ".832 [.79, .86] .816 [.78, .85] .655 [.61, .68]* -.051 [-.09, -.02]"]
    assert cells(lines[at + 1]) == ["majority", ".671", ".539", ".268", ".000"]


def test_kappa_is_a_dash_where_it_is_undefined_for_the_run_and_for_the_majority() -> None:
    alone = {**make_scores(), "kappa": None, "majority": {"accuracy": 1.0, "weighted_f1": 1.0, "macro_f1": 0.333}}
    record = make_record(config=to_dict(RunConfig(tasks=("ER",))), data={"name": "sample"}, scores={"ER": alone}, spans=None)
    rows = [line for line in shown(score_table(record)).splitlines() if re.match(r" ?(ER|majority)", line)]
    assert [row.split()[-1] for row in rows] == ["-", "-"]


def test_where_a_level_was_hit_once_or_never_macro_f1s_interval_is_said_to_be_too_sure() -> None:
    once, often = ({**make_scores(), "confusion": [[40, 1, 0], [3, 9, 0], [5, 2 - hits, hits]]} for hits in (1, 2))
    record = make_record(data={"name": "sample"}, scores={"ER": make_scores((2,)), "EX": once, "IP": often}, spans=None)
    table = score_table(record)
    assert table.caption == f"* Predicted right at most once: ER 2 (0 of 7), EX 2 (1 of 7). {TOO_SURE}"
    marked = {line.split()[0]: "*" in line for line in shown(table).splitlines() if line[:2] in ("ER", "EX", "IP")}
    assert marked == {"ER": True, "EX": True, "IP": False}
    assert re.findall(r"[A-Z]{2} \d\*", shown(one_class_table(record))) == ["ER 2*", "EX 2*"]
    whole = make_record(data={"name": "sample"}, scores=dict.fromkeys(("ER", "EX", "IP"), often), spans=None)
    assert score_table(whole).caption is None
    assert "*" not in shown(score_table(whole)) + shown(one_class_table(whole))


def test_a_level_that_no_pair_has_is_not_said_to_be_predicted_right_too_seldom() -> None:
    scores = {**make_scores(), "confusion": [[0, 0, 0], [3, 9, 0], [1, 2, 5]]}
    record = make_record(config=to_dict(RunConfig(tasks=("ER",))), data={"name": "sample"}, scores={"ER": scores}, spans=None)
    assert score_table(record).caption is None
    assert "*" not in shown(score_table(record)) + shown(one_class_table(record))


def test_how_often_such_an_interval_holds_the_truth_was_measured() -> None:
    content = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "coverage.json").read_text("utf-8"))
    held = [row["once or never"]["held"] for row in content["one_run"] if "once or never" in row]
    share = f"{100 * min(held):.0f} to {100 * max(held):.0f} %"
    assert f"Macro F1's 95 % interval is too sure there: in simulations it holds the truth {share} of the time." == TOO_SURE


def test_tables_lose_no_figure_at_80_columns() -> None:
    for table in (
        score_table(RECORD),
        one_class_table(RECORD),
        span_table(ORACLE),
        count_table(COUNTS, EPITOME, "counts"),
        part_table(SPLIT, EPITOME),
    ):
        narrow, wide = (re.findall(r"-?[\d.]*\d", shown(table, width)) for width in (80, 200))
        assert sorted(narrow) == sorted(wide)


def test_even_the_widest_rows_keep_every_figure_at_80_columns() -> None:
    perfect = make_scores()
    for name in ("precision", "recall", "f1", "average_precision"):
        perfect[name] = [{"value": 1.0, "low": 1.0, "high": 1.0}] * 3
    perfect["accuracy"] = perfect["weighted_f1"] = perfect["macro_f1"] = {"value": 1.0, "low": 0.65, "high": 1.0}
    config = to_dict(RunConfig(tasks=("ER",)))
    record = make_record(config=config, data={"name": "sample"}, scores={"ER": perfect}, spans=None)
    for table in (score_table(record), *class_tables(record)):
        text = shown(table)
        assert "\u2026" not in text
        assert len(text.splitlines()) <= 12  # no cell goes on in a second line
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_the_class_tables_set_average_precision_next_to_recall_and_show_where_each_levels_pairs_went() -> None:
    scores, pairs = (
        next(line.split(maxsplit=2) for line in shown(table).splitlines() if "ER 2" in line) for table in class_tables(RECORD)
    )
    assert scores == ["ER", "2*", ".100 [.06, .13] .110 [.07, .14] .130 [.09, .16]   .172 .120 [.08, .15]"]  # 7 of 60 pairs
    assert [part.strip() for part in pairs] == ["ER", "2", "5    2    0"]
    text = shown(one_class_table(RECORD), 200)
    assert "By label, focal; by chance: a random ranking's average precision" in text
    headings = [" ".join(part.split()) for part in text.splitlines()[1:3]]
    assert headings == ["average by", "precision recall precision chance F1"]


def test_no_table_of_a_report_has_an_escape() -> None:
    for table in (score_table(ORACLE), *class_tables(ORACLE), span_table(ORACLE)):
        assert "\\" not in shown(table)


@pytest.mark.parametrize(("positives", "pairs"), [(1, 1), (1, 5), (2, 6), (3, 7), (5, 5)])
def test_what_a_random_ranking_has_is_the_mean_over_all_rankings(positives: int, pairs: int) -> None:
    rankings = [
        average_precision_score([at in places for at in range(pairs)], range(pairs, 0, -1))
        for places in itertools.combinations(range(pairs), positives)
    ]
    assert random_precision(positives, pairs) == pytest.approx(np.mean(rankings))
    assert math.isnan(random_precision(0, pairs))


def test_the_average_precision_of_a_label_that_no_test_pair_has_is_a_dash() -> None:
    scores = {**make_scores(), "average_precision": [None, None, None]}
    record = make_record(config=to_dict(RunConfig(tasks=("ER",))), data={"name": "sample"}, scores={"ER": scores}, spans=None)
    row = next(line for line in shown(one_class_table(record)).splitlines() if "ER 1" in line)
    assert " ".join(row.split()) == "ER 1 .500 [.46, .53] .510 [.47, .54] - .250 .520 [.48, .55]"


def test_an_oracle_is_stamped_in_every_table_and_warned_of() -> None:
    for table in (score_table(ORACLE), one_class_table(ORACLE), span_table(ORACLE)):
        assert "ORACLE" in shown(table)
    assert next(warnings(ORACLE)).plain == (
        "ORACLE: annotated spans were seen at test time; a pair without a span has level 0. Not comparable."
    )
    for table in (score_table(RECORD), one_class_table(RECORD)):
        assert "ORACLE" not in shown(table)


def test_a_level_that_was_never_predicted_gets_a_loud_line() -> None:
    (line,) = warnings(RECORD)
    assert line.plain == "ER 2 was never predicted (7 test pairs have it)"
    assert "bold" in str(line.style)
    once = {**make_scores((2,)), "confusion": [[40, 1, 0], [3, 9, 0], [1, 0, 0]]}
    record = make_record(config=to_dict(RunConfig(tasks=("ER",))), data={"name": "sample"}, scores={"ER": once}, spans=None)
    assert [line.plain for line in warnings(record)] == ["ER 2 was never predicted (1 test pair has it)"]


def test_the_span_table_is_there_only_with_a_span_head_and_leaves_out_what_has_no_gold() -> None:
    assert span_table(RECORD) is None
    text = shown(span_table(ORACLE))
    assert ".500 [.46, .53]" in text
    assert ".250 [.21, .28]" in text
    assert "EX" not in text


def test_the_count_table_is_the_papers_figure_2_as_bars() -> None:
    lines = [line for line in shown(count_table(COUNTS, EPITOME, "made: pairs of each label")).splitlines() if "%" in line]
    assert [line.count("█") for line in lines] == [20, 9, 1, 26, 1, 3, 16, 1, 13]
    assert "66.7 %" in lines[0]
    one_of_many = shown(count_table({name: [10_000, 1, 0] for name in COUNTS}, EPITOME, "")).splitlines()
    assert [line.count("█") for line in one_of_many if "%" in line][:3] == [30, 1, 0]  # few is not none


OTHERS = Schema(
    (
        TaskSchema("warmth", "warmth", "warmth", ("no", "yes")),
        TaskSchema("advice", "how much advice", "advice given", ("none at all", "a hint", "a $5 plan", "all of it")),
    )
)


def test_the_part_table_counts_each_level_in_each_part() -> None:
    rows = [line.split("│")[2:-1] for line in shown(part_table(SPLIT, EPITOME)).splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows[:3]] == [["0", *["20"] * 3], ["1", *["9"] * 3], ["2", *["1"] * 3]]


def test_tasks_of_other_labels_have_tables_too() -> None:
    two = {
        **make_scores(),
        "n": 40,
        "confusion": [[20, 3], [9, 8]],
        **{name: [about(0.5)] * 2 for name in ("precision", "recall", "f1", "average_precision")},
    }
    four = {
        **make_scores((1,)),
        "n": 37,
        "confusion": [[9, 0, 1, 2]] * 4,
        **{name: [about(0.25)] * 4 for name in ("precision", "recall", "f1", "average_precision")},
    }
    record = make_record(
        config=to_dict(configure(RunConfig(), {"schema": OTHERS})), data={"name": "t"}, scores={"warmth": two, "advice": four}
    )
    assert "test pairs warmth 40, advice 37" in " ".join(shown(score_table(record)).split())
    short, moved, long, long_moved = (shown(table) for table in class_tables(record))
    assert "-> no" in moved
    assert "-> yes" in moved
    assert "warmth yes" in short
    assert "-> 3" in long_moved  # long labels are numbered in the table, and named below it
    assert "advice 2" in long
    for table in (long, long_moved):
        assert "0: none at all; 1: a hint; 2: a $5 plan; 3: all of it" in " ".join(table.split())
    for table in (short, moved, long, long_moved):
        assert max(len(line.rstrip()) for line in table.splitlines()) <= 80
        assert "\u2026" not in table
    assert [line.plain for line in warnings(record)] == ["advice a hint was never predicted (12 test pairs have it)"]
    counts = {"warmth": [60, 36], "advice": [40, 30, 20, 6]}
    assert "a hint" in shown(count_table(counts, OTHERS, ""))
    split = {**SPLIT, "class_counts": dict.fromkeys(("train", "validation", "test"), counts)}
    assert re.findall(r"all of it.*?(\d+)", shown(part_table(split, OTHERS))) == ["6"]


def test_a_run_reports_what_its_temperatures_do_to_the_calibration_error() -> None:
    found = {"ER": {"temperature": 1.314, "ece_before": 0.0621, "ece_after": 0.031}}
    assert calibration_line(make_record(calibration=found)) == (
        "temperature, and what it does to the expected calibration error: ER 1.31 (.062 to .031)"
    )
    assert calibration_line(make_record()) is None


def test_a_run_that_is_not_there_is_not_said_to_be_unfinished(tmp_path: Path) -> None:
    with pytest.raises(KitError) as error:
        verify(tmp_path / "nosuch")
    assert str(error.value) == (
        f"{tmp_path / 'nosuch'}: no such folder, expected a finished run; `empathy-kit runs list` shows those of runs/"
    )
