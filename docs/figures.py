"""Write every number of README and docs from the committed results of benchmarks/results.

    python docs/figures.py            write the pages and the pictures
    python docs/figures.py --check    change nothing, and fail where a page differs

A page holds a block from ``<!-- figures: NAME -->`` to ``<!-- end -->`` for each text with a number in it. `blocks` has a
function for each name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent))

from blocks import BLOCKS, PICTURES, ROOT
from blocks.drawing import told

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]
BLOCK = re.compile(r"<!-- figures: (?P<name>[^ ]+) -->\n(?P<text>.*?)<!-- end -->", re.DOTALL)


def written(text: str, page: str) -> str:
    """A page's text with all of its blocks made anew.

    Raises:
        click.ClickException: a block of an unknown name, or without an end.
    """
    names = BLOCK.finditer(text)
    unknown = [found["name"] for found in names if found["name"] not in BLOCKS]
    if unknown:
        raise click.ClickException(f"{page}: figures {unknown[0]}: no such block, expected one of {', '.join(sorted(BLOCKS))}")
    if text.count("<!-- figures: ") != len(BLOCK.findall(text)) or any(
        "<!-- fig" in each["text"] for each in BLOCK.finditer(text)
    ):
        raise click.ClickException(f"{page}: a block of figures has no <!-- end -->")
    return BLOCK.sub(lambda found: f"<!-- figures: {found['name']} -->\n{BLOCKS[found['name']]().strip()}\n<!-- end -->", text)


def stale() -> Iterator[Path]:
    """The pages and pictures that are not what the results give."""
    for page in PAGES:
        text = page.read_text("utf-8")
        if written(text, str(page.relative_to(ROOT))) != text:
            yield page
    for picture in PICTURES:
        words = picture.described()
        for path in picture.files if words else ():
            # The numbers alone are compared: another version of matplotlib draws the same figures with other paths.
            if not path.exists() or told(path.read_text("utf-8")) != words:
                yield path


@click.command()
@click.option("--check", is_flag=True, help="change nothing; fail where a page differs")
def main(*, check: bool) -> None:
    """Write every number of README and docs from committed results."""
    found = [str(path.relative_to(ROOT)) for path in stale()]
    if check:
        if found:
            raise click.ClickException(f"{', '.join(found)}: not what the results give; run python docs/figures.py")
        return
    for page in PAGES:
        text = page.read_text("utf-8")
        page.write_text(written(text, str(page.relative_to(ROOT))), "utf-8")
    for picture in PICTURES:
        for path, dark in picture.files.items() if picture.described() else ():
            path.write_text(picture.draw(dark=dark), "utf-8")
    click.echo(f"written: {', '.join(found)}" if found else "every page is what the results give")


if __name__ == "__main__":
    main()
