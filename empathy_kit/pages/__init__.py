"""The report on a comparison: one page that stands alone, the same as Markdown, and the tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_kit.comparison import write_whole
from empathy_kit.data.pairs import LEVELS, MECHANISM_TITLES, MECHANISMS
from empathy_kit.errors import KitError
from empathy_kit.pages.summary import METRICS, Cell, Contrast, Row, Summary, summarise, to_json
from empathy_kit.report import number
from empathy_kit.statistics import Estimate

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Summary", "notes", "summarise", "tables", "to_json", "write"]

HTML, MARKDOWN = "report.html", "report.md"
MODEL = (
    "Seeker post and response post go through one shared encoder. Of the response, a rationale injector may add states. All "
    "of it goes through one GRU. A head for each of the three mechanisms reads the GRU and gives the level."
)


def write(summary: Summary, folder: Path) -> list[Path]:
    """Write ``report.html`` and ``report.md`` into a comparison's folder.

    Raises:
        KitError: they cannot be written.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    from empathy_kit.pages.figures import figures

    templates = resources.files(__name__) / "templates"
    words: dict[str, Any] = {
        "summary": summary,
        "METRICS": METRICS,
        "MECHANISMS": MECHANISMS,
        "TITLES": MECHANISM_TITLES,
        "LEVELS": LEVELS,
        "MODEL": MODEL,
        "NOTHING": f"{'No two configurations have a seed in common' if summary.apart else 'There is one configuration'}: "
        "nothing to compare.",
        "cell": score_cell,
        "value": number,
        "interval": interval,
        "gain": gain,
        "gains": gains,
        "run_cell": run_cell,
        "mean_cell": mean_cell,
        "smallest": smallest,
        "of_seeds": of_seeds,
        "chance": chance,
        "notes": list(notes(summary)),
    }
    paths = []
    for name in (HTML, MARKDOWN):
        environment = Environment(
            loader=FunctionLoader(lambda wanted: (templates / wanted).read_text(encoding="utf-8")),
            autoescape=name == HTML,  # noqa: S701 - in Markdown there is nothing to escape for
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        more = {"figures": figures(summary)} if name == HTML else {}
        text = environment.get_template(f"{name}.j2").render(**words, **more)
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        try:
            write_whole(folder / name, text)
        except OSError as error:
            raise KitError(f"{folder / name}: cannot be written: {error.strerror}") from None
        paths.append(folder / name)
    return paths


def interval(estimate: Estimate) -> str:
    """``[.79, .86]``; nothing where there is one seed alone."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{_short(estimate.low)}, {_short(estimate.high)}]"


def _short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)


def score_cell(cell: Cell, metric: str) -> str:
    """``.832 [.79, .86]``."""
    return f"{number(cell.scores[metric].value)} {interval(cell.scores[metric])}".rstrip()


def gain(contrast: Contrast) -> str:
    """A difference of accuracy as pairs of a test part: ``+4.3 of 463 [-2.1, +10.7]``."""
    size = contrast.test_pairs
    found = contrast.accuracy
    text = f"{found.value * size:+z.1f} of {size:.0f}"
    return text if found.low is None or found.high is None else f"{text} [{found.low * size:+.1f}, {found.high * size:+.1f}]"


def gains(contrast: Contrast) -> str:
    """The same, seed by seed: ``+7, 0, -2``."""
    return ", ".join(f"{pairs:+d}" if pairs else "0" for pairs in contrast.gains)


def run_cell(cell: Cell, at: int) -> str:
    """All scores of one run."""
    return " / ".join(number(cell.runs[metric][at]) for metric in METRICS)


def mean_cell(cell: Cell) -> str:
    """Mean and standard deviation of all runs, a score: ``.792 ± .015 / ...``."""
    assert cell.deviation is not None
    return " / ".join(f"{number(cell.scores[metric].value)} ± {number(cell.deviation[metric])}" for metric in METRICS)


def of_seeds(seeds: list[int], summary: Summary) -> str:
    """`` (3 of 5 seeds)``, where some are missing."""
    return "" if len(seeds) == len(summary.seeds) else f" ({len(seeds)} of {len(summary.seeds)} seeds)"


def smallest(contrast: Contrast) -> str:
    """The smallest difference of accuracy that this design would find four times of five, in pairs."""
    found = contrast.accuracy.smallest
    return "not known" if found is None else f"{found * contrast.test_pairs:.1f} of {contrast.test_pairs:.0f}"


def chance(p: float) -> str:
    """A p-value: ``.034``, ``< .001``."""
    return "< .001" if p < 0.001 else number(p) if p < 0.9995 else "1"


def tables(summary: Summary) -> Iterator[Table]:
    """The scores and the differences, for the terminal."""
    from rich.table import Table

    for metric in ("accuracy", "macro_f1"):
        table = Table(title=f"{METRICS[metric]}, means over the seeds, 95 % intervals", title_justify="left")
        table.add_column("")
        for name in MECHANISMS:
            table.add_column(name, justify="right")
        for row in summary.rows:
            label = f"{row.name} (ORACLE)" if row.kind == "oracle" else row.name
            style = {"run": None, "oracle": "red", "yardstick": "dim"}[row.kind]
            label += of_seeds(row.seeds, summary)
            table.add_row(label, *(score_cell(row.cells[name], metric) for name in MECHANISMS), style=style)
        yield table
    if summary.contrasts:
        table = Table(title="Differences in accuracy, as pairs of a test part", title_justify="left")
        for heading in ("", "mechanism", "pairs", "only second / only first right", "p, Holm"):
            table.add_column(heading, justify="left" if heading in ("", "mechanism") else "right")
        for found in summary.contrasts:
            table.add_row(
                f"{found.first} -> {found.second}{of_seeds(found.seeds, summary)}",
                found.mechanism,
                gain(found),
                f"{found.test.gained} / {found.test.lost}",
                chance(found.corrected),
            )
        yield table


def notes(summary: Summary) -> Iterator[str]:
    """What a reader of the figures must not overlook."""
    oracles = [row.name for row in summary.rows if row.kind == "oracle"]
    if oracles:
        yield f"ORACLE: {', '.join(oracles)} saw annotated spans at test time, which give the level away; compared with nothing."
    alone = [row.name for row in summary.rows if len(row.seeds) < 2 and row.kind != "yardstick"]
    alone += [f"{found.first} to {found.second}" for found in summary.contrasts if len(found.seeds) < 2]
    if alone:
        whose = "" if len(summary.seeds) < 2 else f" of {', '.join(dict.fromkeys(alone))}"
        yield f"One seed{whose}: there is no interval, because nobody can know from it how much another seed would change."
    if summary.missing:
        shown = ", ".join(summary.missing[:6]) + (f" and {len(summary.missing) - 6} more" if len(summary.missing) > 6 else "")
        yield f"Not there yet: {shown}."
    if summary.uneven:
        other = "seeds and splits" if summary.resplit else "seeds"
        yield f"Means are not all over the same {other}; differences are, each over the seeds that both have."
    for first, second in summary.apart:
        yield f"{first} and {second} have no seed in common, and are not compared."
    for row in summary.rows:
        yield from _never(row)
    for name, used in summary.plugins.items():
        for plugin in used:
            yield f"{name}: {plugin}."


def _never(row: Row) -> Iterator[str]:
    if row.kind == "yardstick":
        return
    for name, cell in row.cells.items():
        for level, count in enumerate(cell.never):
            if count:
                yield f"{row.name} never predicted level {LEVELS[level]} of {name} in {count} of {len(row.seeds)} runs."
