"""Records and descriptions -> rich tables and pictures. No torch: reports are rebuilt where no model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from empathy_kit.data.pairs import LEVELS, MECHANISM_TITLES, MECHANISMS
from empathy_kit.data.splits import PARTS
from empathy_kit.errors import KitError
from empathy_kit.record import Record

HEADLINE = (("accuracy", "accuracy"), ("weighted_f1", "weighted F1"), ("macro_f1", "macro F1"))

# A colour a level, told apart by readers with any colour vision (Okabe and Ito); the hatch does the same in print.
LEVEL_COLOURS = ("#999999", "#56B4E9", "#D55E00")
LEVEL_HATCHES = ("", "//", "xx")


def number(value: float) -> str:
    """A score as the field writes it: ``.832``."""
    return f"{value:z.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def estimate(score: Mapping[str, float]) -> str:
    """A score with its interval: ``.832 [.79, .86]``."""
    # "1.0", not "1.00": as wide as the others, or a row of good scores would not fit 80 columns.
    low, high = (f"{score[bound]:.2f}".replace("0.", ".", 1).replace("1.00", "1.0") for bound in ("low", "high"))
    return f"{number(score['value'])} [{low}, {high}]"


def _table(title: str, *headings: str) -> Table:
    """A table that fits 80 columns: no lines between the columns, all but the first to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def score_table(record: Record) -> Table:
    """The headline scores, the majority class beneath each."""
    n = record.scores[MECHANISMS[0]]["n"]
    table = _table(
        f"{record.title} on {record.data['name']}: {n} test pairs, 95 % bootstrap intervals, quadratic kappa",
        "",
        *(title for _, title in HEADLINE),
        "kappa",
    )
    for name, scores in record.scores.items():
        table.add_row(name, *(estimate(scores[key]) for key, _ in HEADLINE), estimate(scores["kappa"]))
        # Its kappa is 0 by definition: it agrees no more than chance.
        table.add_row(" majority", *(number(scores["majority"][key]) for key, _ in HEADLINE), number(0.0), style="dim")
    return table


def class_table(record: Record) -> Table:
    """Precision, recall and F1 a level, and where the level's pairs went."""
    table = _table(
        f"By level (true level down, predicted level across), {record.title}",
        "",
        "precision",
        "recall",
        "F1",
        *(f"-> {level}" for level in LEVELS),
    )
    for name, scores in record.scores.items():
        for level, row in enumerate(scores["confusion"]):
            table.add_row(
                f"{name} {LEVELS[level]}",
                *(estimate(scores[key][level]) for key in ("precision", "recall", "f1")),
                *(str(count) for count in row),
                end_section=level == len(LEVELS) - 1,
            )
    return table


def span_table(record: Record) -> Table | None:
    """Rationale extraction, where the injector has a span head."""
    if record.spans is None:
        return None
    table = Table(title=f"Rationale extraction, {record.title}", title_justify="left")
    for title in ("mechanism", "pairs", "token F1", "IOU F1"):
        table.add_column(title, justify="left" if title == "mechanism" else "right")
    for name, scores in record.spans.items():
        if scores is not None:
            table.add_row(name, str(scores["pairs"]), estimate(scores["token_f1"]), estimate(scores["iou_f1"]))
    return table


def warnings(record: Record) -> Iterator[Text]:
    """What a reader of the scores must not overlook."""
    if record.oracle:
        yield Text(
            "ORACLE: annotated spans were seen at test time; a pair without a span has level 0. Not comparable.", "bold red"
        )
    for name, scores in record.scores.items():
        for level in scores["never_predicted"]:
            count = sum(scores["confusion"][level])
            yield Text(f"level {LEVELS[level]} of {name} was never predicted ({count} test pairs have it)", "bold red")


def data_lines(data: Mapping[str, Any]) -> Iterator[str]:
    """What was found in the data, and what of it cannot be used."""
    yield f"data {data['name']}: {data['pairs']:,} pairs, {data['seeker_posts']:,} seeker posts, sha256 {data['sha256'][:12]}"
    spans, repeated = data["spans"], data["duplicates"]
    if spans["total"]:
        yield (
            f"spans: {spans['total']:,} annotated; {spans['exact']:,} found exactly, {spans['whitespace']:,} up to white space "
            f"and case, {spans['fuzzy']:,} word by word, {len(spans['lost']):,} not found"
        )
    if spans["lost"]:
        yield f"spans not found, not used: {_rows(spans['lost'])}"
    if spans["bare"] and spans["total"]:
        yield f"levels above 0 without a span, left out of the span loss: {_rows(spans['bare'])}"
    if repeated["groups"]:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in repeated["agreement"].items())
        yield (
            f"duplicates: {repeated['groups']} pairs occur again ({repeated['surplus']} surplus rows, kept); "
            f"labels agree in {shares}; {repeated['conflicting']} conflict somewhere"
        )


def _rows(entries: list[list[Any]]) -> str:
    rows: dict[str, list[str]] = {}
    for row, mechanism in entries:
        rows.setdefault(mechanism, []).append(str(row))
    return "; ".join(f"{mechanism} row{'s' * (len(found) > 1)} {', '.join(found)}" for mechanism, found in rows.items())


def split_lines(split: Mapping[str, Any]) -> Iterator[str]:
    """A split's sizes and leakage."""
    sizes = "/".join(f"{split['pairs'][name]:,}" for name in PARTS)
    yield f"split {split['kind']}, seed {split['seed']}: {sizes} pairs in {', '.join(PARTS)}, sha256 {split['sha256'][:12]}"
    for part, shared in split["leakage"].items():
        total = split["pairs"][part]
        found = ", ".join(f"{text} {shared[key]}" for key, text in _LEAKS.items())
        yield f"also in train, of {total} {part} pairs: {found}"


_LEAKS = {"pairs": "whole pairs", "seekers": "seekers", "responses": "responses"}


def truncation_lines(truncation: Mapping[str, Any], truncate: str, pairs: int) -> Iterator[str]:
    """What the length limit takes away."""
    lost = ", ".join(
        f"{name} {gone} of {whole}"
        for name, gone, whole in zip(MECHANISMS, truncation["evidence_lost"], truncation["evidence"], strict=True)
    )
    yield (
        f"truncation to {truncation['max_tokens']} tokens ({truncate}): cuts {truncation['seekers']:,} seeker posts and "
        f"{truncation['responses']:,} responses of {pairs:,}"
    )
    if any(truncation["evidence"]):
        yield f"pairs that lose all their annotated evidence: {lost}"


def count_table(counts: Mapping[str, Any], title: str) -> Table:
    """Class counts a mechanism and level, as bars (the paper's Fig. 2)."""
    table = Table(title=title, title_justify="left")
    for heading in ("mechanism", "level", "pairs", "share"):
        table.add_column(heading, justify="right" if heading in ("pairs", "share") else "left")
    table.add_column("")
    for name in MECHANISMS:
        whole = sum(counts[name])
        for level, count in enumerate(counts[name]):
            table.add_row(
                name if level == 0 else "",
                LEVELS[level],
                f"{count:,}",
                f"{100 * count / whole:.1f} %",
                "█" * max(round(30 * count / whole), count > 0),
                end_section=level == len(LEVELS) - 1,
            )
    return table


def part_table(split: Mapping[str, Any]) -> Table:
    """Class counts a part."""
    table = Table(title="Pairs of each level, by part", title_justify="left")
    table.add_column("part")
    for name in MECHANISMS:
        for level in LEVELS:
            table.add_column(f"{name} {level}", justify="right")
    for part in PARTS:
        table.add_row(part, *(str(count) for name in MECHANISMS for count in split["class_counts"][part][name]))
    return table


def class_picture(counts: Mapping[str, Any], title: str, path: Path) -> None:
    """Class counts a mechanism and level as a bar chart (the paper's Fig. 2): .svg, .png or .pdf.

    Raises:
        KitError: another suffix, or a place that cannot be written.
    """
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise KitError(f"--picture {path}: a {path.suffix or 'nameless'} file, expected .svg, .png or .pdf")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for level, label in enumerate(LEVELS):
        places = [index + (level - 1) * 0.27 for index in range(len(MECHANISMS))]
        bars = axes.bar(
            places,
            [counts[name][level] for name in MECHANISMS],
            0.25,
            label=f"level {label}",
            color=LEVEL_COLOURS[level],
            hatch=LEVEL_HATCHES[level],
            edgecolor="white",
        )
        axes.bar_label(bars)
    axes.set_xticks(range(len(MECHANISMS)), [f"{name}\n{MECHANISM_TITLES[name]}" for name in MECHANISMS])
    axes.set_ylabel("pairs")
    axes.set_title(title, parse_math=False)  # a dollar sign in a file's name is no formula
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path)
    except OSError as error:
        raise KitError(f"--picture {path}: cannot be written: {error.strerror}") from None
