"""The page and the true server together: what is marked is what the model predicts for the text that stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from asked import running

from empathy_kit.service.app import Settings

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

POST = "I failed again \U0001f622 and nobody knows"
TYPED = "e\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467 so sorry hear lonely"


def test_typing_shows_the_levels_and_marks_that_the_model_predicts(chromium: Browser) -> None:
    asked: list[str] = []
    complaints: list[str] = []
    with running() as server, chromium.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda problem: complaints.append(str(problem)))
        address = f"http://127.0.0.1:{server.port}/"
        page.goto(address)
        page.locator("#seeker").fill(POST)
        box = page.locator("#draft-1")
        box.press_sequentially(TYPED)
        expected = server.served.model.predict([(POST, TYPED)])[0]
        sync_api.expect(page.locator(".feedback").first).to_have_attribute("aria-busy", "false")
        sync_api.expect(page.locator(".marked").first).to_have_text(TYPED)
        quotes = {TYPED[span.start : span.end] for task in expected.tasks.values() for span in task.evidence or ()}
        assert quotes
        assert set(page.locator(".draft").first.locator(".quotes q").all_text_contents()) == quotes
        shown = page.locator(".draft").first.locator(".card .level").all_text_contents()
        assert shown == [expected["warm"].label, ("none", "weak", "strong")[expected["ER"].level]]  # ER is one of EPITOME's
        reply = server.predict({"seeker_post": POST, "response_post": TYPED}).json["predictions"][0]["tasks"]
        assert {name: task["label"] for name, task in reply.items()} == {n: task.label for n, task in expected.tasks.items()}
    assert complaints == []
    assert {url for url in asked if not url.startswith(address)} == set()


def test_the_page_asks_for_the_token_that_the_server_wants(chromium: Browser) -> None:
    with running(settings=Settings(token="correct-horse-battery")) as server, chromium.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(8000)
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.locator("#token").fill("correct-horse-battery")
        page.locator("#token").press("Enter")
        page.locator("#seeker").fill(POST)
        page.locator("#draft-1").fill(TYPED)
        page.locator(".draft").first.locator(".card .level").first.wait_for()
        sync_api.expect(page.locator("#access")).to_be_hidden()
