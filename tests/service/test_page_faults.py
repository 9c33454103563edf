"""The page never waits in silence: in an older browser, where it fails itself, and where a server gives nothing to go by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import browsers
import pytest
from page_server import PageServer, Reply, error, model

sync_api = browsers.library("playwright.sync_api", "Playwright")
expect = sync_api.expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

POST = "The letter came today. I have not opened it."
DRAFT = "That sounds heavy."
FAILED = "The page failed in this browser. Reload it. If that does not help, use a newer browser."
QUIET = "console.error = () => {};"  # the page reports its fault there too, which would count as a complaint


def write(page: Page, draft: str = DRAFT) -> None:
    page.locator("#seeker").fill(POST)
    page.locator("#draft-1").fill(draft)


def test_a_browser_of_2023_is_enough(open_page: Callable[..., Page], server: PageServer) -> None:
    page = open_page("delete String.prototype.toWellFormed; delete AbortSignal.any; delete AbortSignal.timeout;")
    write(page)
    expect(page.locator(".level").first).to_have_text("none")
    page.locator("#draft-1").evaluate("(box) => { box.value = '\\ud83d'; box.dispatchEvent(new Event('input')); }")
    server.until_asked(2)
    assert server.asked == [(POST, DRAFT), (POST, "\ufffd")]


def test_a_browser_that_cannot_show_the_model_is_named(open_page: Callable[..., Page]) -> None:
    page = open_page(f"{QUIET} delete Element.prototype.replaceChildren;")
    expect(page.locator("#notice")).to_have_text(FAILED)
    expect(page.get_by_role("status")).to_have_text(FAILED)


def test_a_browser_that_cannot_ask_is_named_and_the_next_keystroke_tries_again(page: Page, server: PageServer) -> None:
    page.evaluate(f"() => {{ {QUIET} globalThis.kept = JSON.stringify; JSON.stringify = undefined; }}")
    write(page)
    expect(page.locator(".status").first).to_have_text(FAILED)
    expect(page.locator(".level:visible")).to_have_count(0)
    assert server.asked == []
    page.evaluate("() => { JSON.stringify = kept; }")
    page.locator("#draft-1").fill(f"{DRAFT} Go on.")
    expect(page.locator(".level").first).to_have_text("none")


def test_a_server_that_never_answers_counts_as_gone_after_half_a_minute(
    open_page: Callable[..., Page], server: PageServer
) -> None:
    page = open_page()
    page.clock.install()
    page.reload()
    expect(page.locator(".feedback").first).to_be_visible()  # it knows the model, so that a keystroke starts its timer
    page.clock.pause_at(page.evaluate("Date.now() / 1000") + 60)  # or it would go on by itself
    gate = server.hold(DRAFT)
    write(page)
    page.clock.run_for(100)
    server.until_asked(1)
    page.clock.run_for(29_000)
    expect(page.locator(".status").first).to_have_text("The model is reading …")
    page.clock.run_for(1_000)
    expect(page.locator(".status").first).to_have_text("The server does not answer. The page keeps trying.")
    gate.set()
    page.clock.run_for(1_000)
    expect(page.locator(".level").first).to_have_text("none")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("", "The server does not describe its model: no reason was given. The page keeps trying."),
        ("It is busy elsewhere.", "The server does not describe its model: It is busy elsewhere. The page keeps trying."),
    ],
)
def test_a_server_that_refuses_to_describe_its_model_is_named_and_asked_again(
    page: Page, server: PageServer, reason: str, words: str
) -> None:
    server.model = error(400, "unknown_host", reason)
    page.reload()
    expect(page.locator("#notice")).to_have_text(words)
    expect(page.get_by_role("status")).to_have_text(words)
    server.model = Reply(model())
    write(page)
    expect(page.locator(".level").first).to_have_text("none")
    expect(page.locator("#notice")).to_be_hidden()
