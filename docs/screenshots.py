"""Pictures of the feedback page for docs/service.md, of invented posts, from a server that runs.

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

POST = "My friends planned the whole trip without me. I only found out from the pictures. I keep wondering what I did wrong."
DRAFT = (
    "I'm so sorry, that makes me sad for you. I understand how lonely it must feel to be left out by people you trusted. "
    "What happened when you asked them about it?"
)
MOST = 150_000  # bytes of a picture


def main() -> None:
    """Write docs/page-light.webp and docs/page-dark.webp."""
    if len(sys.argv) != 2:
        sys.exit("expected the address of a running server, such as http://127.0.0.1:8000")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        sys.exit("chromium is missing; install it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 800}, reduced_motion="reduce")
            page.goto(sys.argv[1])
            page.locator("#seeker").fill(POST)
            page.locator("#draft-1").fill(DRAFT)
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
