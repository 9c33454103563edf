"""Records and descriptions -> rich tables and lines. No torch: reports are rebuilt where it is not installed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from empathy_kit.data.schema import Schema
from empathy_kit.data.splits import PARTS
from empathy_kit.runs.record import Record

MARK = "*"  # on a level that was predicted right at most once, and on the macro F1 that includes it
TOO_SURE = "Macro F1's 95 % interval is too sure there: in simulations it holds the truth 59 to 92 % of the time."
ORACLE = "ORACLE: annotated spans were seen at test time; a pair without a span has level 0. Not comparable."
DASH = "-"  # a score that is undefined or was not measured
LONG = 3  # characters of a label; from here on the columns of a confusion matrix are numbered instead
LARGE = 0.15  # share of the pairs in one group that causes a warning
HEADLINE = (("accuracy", "accuracy"), ("weighted_f1", "weighted F1"), ("macro_f1", "macro F1"))


def number(value: float) -> str:
    """A score as the field writes it: ``.832``; a dash where it is undefined."""
    if math.isnan(value):
        return DASH
    return f"{value:z.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def random_precision(positives: int, pairs: int) -> float:
    """The expected average precision of a random ranking: more than the positives' share, the fewer the pairs (Bestgen 2015).

    NaN where there is no positive pair, whose ranking has no precision.
    """
    if not positives:
        return math.nan
    if pairs == 1:
        return 1.0
    harmonic = sum(1 / rank for rank in range(1, pairs + 1))
    return ((positives - 1) + harmonic * (pairs - positives) / pairs) / (pairs - 1)


def estimate(score: Mapping[str, float] | None) -> str:
    """A score with its interval: ``.832 [.79, .86]``; a dash where it is undefined."""
    if score is None:
        return DASH
    # "1.0", not "1.00": a row of good scores would not fit 80 columns.
    low, high = (f"{score[bound]:.2f}".replace("0.", ".", 1).replace("1.00", "1.0") for bound in ("low", "high"))
    return f"{number(score['value'])} [{low}, {high}]"


def _table(title: str, *headings: str | Text) -> Table:
    """A table that fits 80 columns: no lines between the columns, all but the first right-aligned.

    A heading of the kit's own is a `Text` where it has two lines: the console escapes the line ends of strings.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def score_table(record: Record) -> Table:
    """The headline scores, with the majority class below each task."""
    sizes = {name: scores["n"] for name, scores in record.scores.items()}
    n = next(iter(sizes.values()))
    pairs = f"{n} test pairs" if len(set(sizes.values())) == 1 else f"test pairs {_listed(sizes)}"
    table = _table(
        f"{record.title} on {record.data['name']}: {pairs}, 95 % bootstrap intervals, quadratic kappa",
        "",
        *(title for _, title in HEADLINE),
        "kappa",
    )
    for name, scores in record.scores.items():
        table.add_row(*score_row(name, scores))
        table.add_row(*majority_row(scores), style="dim")
    caution = too_sure((task.name, task.labels, record.scores[task.name]["confusion"]) for task in record.tasks.tasks)
    add_caution(table, caution)
    return table


def add_caution(table: Table, caution: str | None) -> None:
    """Explain the mark in a table below it."""
    if caution is not None:
        table.caption, table.caption_justify = f"{MARK} {caution}", "left"


def score_row(name: str, scores: Mapping[str, Any]) -> list[str]:
    """A task's headline scores and kappa; macro F1 is marked where its interval is too sure."""
    *cells, macro = (estimate(scores[key]) for key, _ in HEADLINE)
    return [name, *cells, macro + MARK * bool(barely_hit(scores["confusion"])), estimate(scores["kappa"])]


def majority_row(scores: Mapping[str, Any]) -> list[str]:
    """The same of the majority class."""
    # Its kappa is 0. Where it is always right there is only one level, and kappa is undefined.
    kappa = math.nan if scores["majority"]["accuracy"] == 1 else 0.0
    return [" majority", *(number(scores["majority"][key]) for key, _ in HEADLINE), number(kappa)]


def barely_hit(confusion: Sequence[Sequence[int]]) -> list[int]:
    """Levels that some pair has, and of which at most one pair was predicted right."""
    return [level for level, row in enumerate(confusion) if row[level] <= 1 and any(row)]


def too_sure(tasks: Iterable[tuple[str, Sequence[str], Sequence[Sequence[int]]]]) -> str | None:
    """A sentence on where macro F1's interval is too narrow, from each task's name, labels and confusion; None if nowhere."""
    levels = [
        f"{name} {labels[level]} ({confusion[level][level]} of {sum(confusion[level])})"
        for name, labels, confusion in tasks
        for level in barely_hit(confusion)
    ]
    return f"Predicted right at most once: {', '.join(levels)}. {TOO_SURE}" if levels else None


def class_tables(record: Record) -> Iterator[Table]:
    """Scores per label and confusion matrices: two tables for all tasks with the same labels."""
    by_labels: dict[tuple[str, ...], list[str]] = {}
    for task in record.tasks.tasks:
        by_labels.setdefault(task.labels, []).append(task.name)
    for labels, names in by_labels.items():
        # Long labels are listed below the table and numbered in it, so that every figure fits.
        numbered = max(map(len, labels)) > LONG
        shown = [str(at) for at in range(len(labels))] if numbered else labels
        headings = ("", "precision", "recall", Text("average\nprecision"), Text("by\nchance"), "F1")
        tables = (
            _table(f"By label, {record.title}; by chance: a random ranking's average precision", *headings),
            _table(f"True label down, predicted label across, {record.title}", "", *(f"-> {label}" for label in shown)),
        )
        for table in tables:
            if numbered:
                table.caption = "; ".join(f"{at}: {label}" for at, label in enumerate(labels))
                table.caption_justify = "left"
        for name in names:
            scores, last = record.scores[name], len(labels) - 1
            for level, row in enumerate(scores["confusion"]):
                title = f"{name} {shown[level]}"
                cells = [estimate(scores[key][level]) for key in ("precision", "recall", "average_precision")]
                cells += [number(random_precision(sum(row), scores["n"])), estimate(scores["f1"][level])]
                mark = MARK * (level in barely_hit(scores["confusion"]))
                tables[0].add_row(title + mark, *cells, end_section=level == last)
                tables[1].add_row(title, *map(str, row), end_section=level == last)
        yield from tables


def span_table(record: Record) -> Table | None:
    """Span scores, where the injector has a span head."""
    if record.spans is None:
        return None
    table = Table(title=f"Rationale extraction, {record.title}", title_justify="left")
    for title in ("task", "pairs", "token F1", "IOU F1"):
        table.add_column(title, justify="left" if title == "task" else "right")
    for name, scores in record.spans.items():
        if scores is not None:
            table.add_row(name, str(scores["pairs"]), estimate(scores["token_f1"]), estimate(scores["iou_f1"]))
    return table


def warnings(record: Record) -> Iterator[Text]:
    """Warnings that belong next to the scores."""
    if record.oracle:
        yield Text(ORACLE, "bold red")
    for task in record.tasks.tasks:
        scores = record.scores[task.name]
        for level in scores["never_predicted"]:
            pairs = have_it(sum(scores["confusion"][level]), "test pair")
            yield Text(f"{task.name} {task.labels[level]} was never predicted ({pairs})", "bold red")


def have_it(count: int, what: str) -> str:
    """``1 pair has it``, ``2 pairs have it``."""
    return f"{count:,} {what} has it" if count == 1 else f"{count:,} {what}s have it"


def calibration_line(record: Record) -> str | None:
    """What one temperature per task does to the test part's calibration error; None in records from before there was any."""
    if record.calibration is None:
        return None
    parts = (
        f"{task} {found['temperature']:.2f} ({number(found['ece_before'])} to {number(found['ece_after'])})"
        for task, found in record.calibration.items()
    )
    return f"temperature, and what it does to the expected calibration error: {', '.join(parts)}"


def data_lines(data: Mapping[str, Any]) -> Iterator[str]:
    """What the data has, and what of it cannot be used."""
    yield f"data {data['name']}: {data['pairs']:,} pairs, {data['seeker_posts']:,} seeker posts, sha256 {data['sha256'][:12]}"
    labelled = {name: sum(counts) for name, counts in data["class_counts"].items()}
    if any(count < data["pairs"] for count in labelled.values()):
        yield f"labelled pairs: {_listed(labelled)}; the others count in no loss and no score of that task"
    spans, repeated = data["spans"], data["duplicates"]
    lost, bare = _by_task(spans["lost"]), _by_task(spans["bare"])
    if spans["total"]:
        yield (
            f"spans: {spans['total']:,} annotated; {spans['exact']:,} found exactly, {spans['whitespace']:,} up to white space "
            f"and case, {spans['fuzzy']:,} word by word, {sum(found['count'] for found in lost.values()):,} not found"
        )
    if spans.get("unlabelled"):
        yield f"spans where the label is missing, not used: {spans['unlabelled']:,}"
    if lost:
        yield f"spans not found, not used: {_rows(lost)}"
    if bare:
        yield f"labels above the lowest without a span, left out of the span loss: {_rows(bare)}"
    columns = data["columns"]
    if columns["read"] or columns["ignored"]:
        read, ignored = ", ".join(columns["read"]) or "none", columns["ignored"]
        yield f"optional columns read: {read}; {ignored:,} other column{'s' * (ignored != 1)} ignored"
    if repeated["groups"]:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in repeated["agreement"].items())
        yield (
            f"duplicates: {repeated['groups']} pairs occur again ({repeated['surplus']} surplus rows, kept); "
            f"labels agree in {shares}; {repeated['conflicting']} conflict somewhere"
        )


def _listed(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in values.items())


def _by_task(entries: Mapping[str, Mapping[str, Any]] | Sequence[Sequence[Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Per task a "count" and the first "rows"; earlier records list each row with its task."""
    if isinstance(entries, Mapping):
        return entries
    rows: dict[str, list[int]] = {}
    for row, task in entries:
        rows.setdefault(task, []).append(row)
    return {task: {"count": len(found), "rows": found} for task, found in rows.items()}


def _rows(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{task} row{'s' * (found['count'] > 1)} {', '.join(map(str, found['rows']))}"
        + (f" and {found['count'] - len(found['rows']):,} more" if found["count"] > len(found["rows"]) else "")
        for task, found in tasks.items()
    )


def split_warnings(split: Mapping[str, Any]) -> Iterator[str]:
    """Warnings about a split."""
    pairs = sum(split["pairs"].values()) + split.get("unused", 0)  # the groups are those of all pairs
    yield from group_warnings(pairs, split["largest_group"])


def group_warnings(pairs: int, largest: int) -> Iterator[str]:
    """A warning about the largest group of some pairs, where it is a large share of them."""
    if largest > LARGE * pairs:
        yield (
            f"warning: {largest:,} of {pairs:,} pairs share a seeker id or seeker post and stay in one part; "
            "is every seeker_id one person's?"
        )


def split_lines(split: Mapping[str, Any]) -> Iterator[str]:
    """A split's sizes and leakage."""
    sizes = "/".join(f"{split['pairs'][name]:,}" for name in PARTS)
    yield f"split {split['kind']}, seed {split['seed']}: {sizes} pairs in {', '.join(PARTS)}, sha256 {split['sha256'][:12]}"
    if unused := split.get("unused"):
        yield f"left out of the training part: {unused:,} pairs (--train-share)"
    for part, shared in split["leakage"].items():
        total = split["pairs"][part]
        found = ", ".join(f"{text} {shared[key]}" for key, text in _LEAKS.items())
        yield f"also in train, of {total} {part} pairs: {found}"


_LEAKS = {"pairs": "whole pairs", "seekers": "seekers", "responses": "responses"}


def truncation_lines(truncation: Mapping[str, Any], truncate: str, pairs: int, names: Sequence[str]) -> Iterator[str]:
    """What truncation removes."""
    lost = ", ".join(
        f"{name} {gone} of {whole}"
        for name, gone, whole in zip(names, truncation["evidence_lost"], truncation["evidence"], strict=True)
    )
    yield (
        f"truncation to {truncation['max_tokens']} tokens ({truncate}): cuts {truncation['seekers']:,} seeker posts and "
        f"{truncation['responses']:,} responses of {pairs:,}"
    )
    if any(truncation["evidence"]):
        yield f"pairs that lose all their annotated evidence: {lost}"


def count_table(counts: Mapping[str, Any], schema: Schema, title: str) -> Table:
    """Class counts per task and label, as bars (the paper's Fig. 2)."""
    table = Table(title=title, title_justify="left")
    for heading in ("task", "label", "pairs", "share"):
        table.add_column(heading, justify="right" if heading in ("pairs", "share") else "left")
    table.add_column("")
    for task in schema.tasks:
        whole = sum(counts[task.name])
        for level, count in enumerate(counts[task.name]):
            share = count / whole if whole else 0.0
            table.add_row(
                task.name if level == 0 else "",
                task.labels[level],
                f"{count:,}",
                f"{100 * share:.1f} %",
                "█" * max(round(30 * share), count > 0),
                end_section=level == len(task.labels) - 1,
            )
    return table


def part_table(split: Mapping[str, Any], schema: Schema) -> Table:
    """Class counts per part."""
    table = Table(title="Labelled pairs of each part", title_justify="left")
    for heading in ("task", "label", *PARTS):
        table.add_column(heading, justify="right" if heading in PARTS else "left")
    for task in schema.tasks:
        for level, label in enumerate(task.labels):
            counts = (str(split["class_counts"][part][task.name][level]) for part in PARTS)
            table.add_row(task.name if level == 0 else "", label, *counts, end_section=level == len(task.labels) - 1)
    return table
