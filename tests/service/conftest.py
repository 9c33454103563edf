"""A real browser for the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import browsers
import pytest
from page_server import PageServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE = 30_000  # milliseconds for what a page does next: a busy machine may take several seconds


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, one per module: while it runs, its event loop is this thread's, so that no other loop could start."""
    sync_api = browsers.library("playwright.sync_api", "Playwright")
    sync_api.expect.set_options(timeout=PATIENCE)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browsers.program(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    """The stand-in that answers as the test scripts it."""
    with PageServer() as running:
        yield running


class _Watch:
    """What a page asks for, and what it complains about."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.servers: list[str] = []  # of this test and those before it: their page may ask until the next one is there
        self.complaints: list[str] = []

    def on(self, page: Page) -> None:
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda problem: self.complaints.append(str(problem)))

    def check(self) -> None:
        """Every request went to the server, and nothing broke: no error, and no breach of the content security policy."""
        others = [asked for asked in self.asked if not asked.startswith(tuple(self.servers))]
        # Chromium logs a line about every answer that is no success; anything else is the page's own fault.
        broken = [text for text in self.complaints if not text.startswith("Failed to load resource")]
        self.asked.clear()
        self.complaints.clear()
        assert (others, broken) == ([], [])


@pytest.fixture(scope="module")
def _shared(chromium: Browser) -> Iterator[tuple[Page, _Watch]]:
    """One tab for all tests of a module: a new one costs more than most tests."""
    with chromium.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page, watch = context.new_page(), _Watch()
        page.set_default_timeout(PATIENCE)
        watch.on(page)
        yield page, watch


@pytest.fixture
def page(_shared: tuple[Page, _Watch], server: PageServer) -> Iterator[Page]:
    """The page, newly loaded; the test ends with a look at what it asked for and what it broke."""
    page, watch = _shared
    watch.servers.append(server.url)
    page.goto(server.url)
    yield page
    watch.check()


@pytest.fixture
def open_page(chromium: Browser, server: PageServer) -> Iterator[Callable[..., Page]]:
    """Opens the page in a browser context of its own, made with Playwright's options for one, and watched like `page`.

    A script runs before the page's own.
    """
    watch = _Watch()
    watch.servers.append(server.url)
    with ExitStack() as contexts:

        def opened(script: str = "", **options: Any) -> Page:
            page = contexts.enter_context(chromium.new_context(**options)).new_page()
            page.set_default_timeout(PATIENCE)
            watch.on(page)
            page.add_init_script(script)
            page.goto(server.url)
            return page

        yield opened
    watch.check()
