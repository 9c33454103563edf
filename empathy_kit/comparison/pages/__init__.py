"""The report on a comparison: a self-contained HTML page, the same as Markdown, and tables for the terminal."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_kit.comparison.pages import words
from empathy_kit.comparison.pages.summarise import summarise
from empathy_kit.comparison.pages.summary import METRICS, Summary, to_json
from empathy_kit.comparison.pages.words import notes
from empathy_kit.errors import KitError, visible
from empathy_kit.files import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Summary", "as_markdown", "notes", "summarise", "to_json", "write"]

HTML, MARKDOWN = "report.html", "report.md"


def write(summary: Summary, folder: Path) -> list[Path]:
    """Write ``report.html`` and ``report.md`` into a comparison's folder.

    Raises:
        KitError: they cannot be written.
    """
    from empathy_kit.comparison.pages.diagram import diagram
    from empathy_kit.comparison.pages.figures import figures

    pages = {
        HTML: _rendered(HTML, summary, figures={**figures(summary), "model": diagram(summary)}),
        MARKDOWN: as_markdown(summary),
    }
    for name, text in pages.items():
        try:
            write_whole(folder / name, text)
        except OSError as error:
            raise KitError(f"{folder / name}: cannot be written: {error.strerror}") from None
    return [folder / name for name in pages]


def as_markdown(summary: Summary) -> str:
    """The text of ``report.md``, which has no pictures to draw."""
    return _rendered(MARKDOWN, summary)


def _rendered(name: str, summary: Summary, **more: Any) -> str:
    template = _environment(escape=name == HTML).get_template(f"{name}.j2")
    text = template.render(summary=summary, METRICS=METRICS, words=words, **more)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _environment(*, escape: bool) -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    templates = resources.files(__name__) / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda wanted: (templates / wanted).read_text(encoding="utf-8")),
        autoescape=escape,  # noqa: S701 - for Markdown, the filter md escapes untrusted text
        undefined=StrictUndefined,
        # Every value becomes part of one line of the page; only the figures, which are marked safe, have line breaks.
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    more: dict[str, Any] = {"md": words.markdown, "code": words.code}
    environment.filters.update(more)
    return environment
