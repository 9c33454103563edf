"""A real browser for the page. Skips where Playwright or Chromium is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from page_server import PageServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, one per module: while it runs, its event loop is this thread's, so that no other loop could start."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    """The stand-in that answers as the test scripts it."""
    with PageServer() as running:
        yield running


@pytest.fixture
def page(chromium: Browser, server: PageServer) -> Iterator[Page]:
    """The page, opened; every test ends with a look at what it asked for and what it broke."""
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda problem: complaints.append(str(problem)))
    page.set_default_timeout(8000)
    page.goto(server.url)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(server.url)] == []
    # Chromium logs a line about every answer that is no success; anything else is the page's own fault.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
