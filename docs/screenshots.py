"""Pictures of the feedback page for docs/service.md, of a pair of the bundled sample, from a server that runs.

    empathy-kit serve MODEL
    python docs/screenshots.py http://127.0.0.1:8000

Needs the dev extra, and Chromium.
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from empathy_kit.data.sources import load_corpus

PAIR = "219"  # its levels are all three that there are
MOST = 150_000  # bytes of a picture


def main() -> None:
    """Write docs/page-light.webp and docs/page-dark.webp."""
    if len(sys.argv) != 2:
        sys.exit("expected the address of a running server, such as http://127.0.0.1:8000")
    (pair,) = (pair for pair in load_corpus("sample").pairs if pair.pair_id == PAIR)
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        sys.exit("chromium is missing; install it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 800}, reduced_motion="reduce")
            page.goto(sys.argv[1])
            page.locator("#seeker").fill(pair.seeker)
            page.locator("#draft-1").fill(pair.response)
            page.locator(".level").first.wait_for()
            page.locator("h1").click()  # no caret in the picture
            bottom = page.locator(".cards").first.bounding_box()
            assert bottom is not None
            height = round(bottom["y"] + bottom["height"]) + 20
            page.set_viewport_size({"width": 1100, "height": height})
            _write(Path(__file__).parent / f"page-{scheme}.webp", page.screenshot())
        browser.close()


def _write(path: Path, png: bytes) -> None:
    content = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").save(content, "WEBP", lossless=True, method=6)
    if content.tell() > MOST:
        sys.exit(f"{path.name}: {content.tell():,} bytes, expected at most {MOST:,}")
    path.write_bytes(content.getvalue())


if __name__ == "__main__":
    main()
