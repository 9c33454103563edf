"""The page and the true server together: what is marked is what the model predicts for the text that stands there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import browsers
import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from asked import running
from page_server import POLICY
from pretend import ByWords, pretend_model

from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import Tokenization, TokenPair
from empathy_kit.service.app import Settings
from empathy_kit.service.guard import HEADERS

sync_api = browsers.library("playwright.sync_api", "Playwright")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

POST = "I failed again \U0001f622 and nobody knows"
TYPED = "e\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467 so sorry hear lonely"


def test_typing_shows_the_levels_and_marks_that_the_model_predicts(chromium: Browser) -> None:
    asked: list[str] = []
    complaints: list[str] = []
    with running() as server, chromium.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
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
        page.set_default_timeout(30_000)
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.locator("#token").fill("correct-horse-battery")
        page.locator("#token").press("Enter")
        page.locator("#seeker").fill(POST)
        page.locator("#draft-1").fill(TYPED)
        page.locator(".draft").first.locator(".card .level").first.wait_for()
        sync_api.expect(page.locator("#access")).to_be_hidden()


def test_a_long_paste_is_marked_where_a_real_tokenizer_read_it(chromium: Browser, tiny_roberta: Path) -> None:
    from transformers import AutoTokenizer

    line = "I hear you \U0001f49b, and \u05d0\u05e0\u05d9 too. "
    pasted = (line * (50_000 // len(line) + 1))[:50_000]
    tokenization = Tokenization(AutoTokenizer.from_pretrained(tiny_roberta), 128, "head-tail")
    model = replace(pretend_model(), tokenization=tokenization)
    with running(model=model) as server, chromium.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.locator("#seeker").fill(POST)
        page.evaluate("(text) => navigator.clipboard.writeText(text)", pasted)
        page.locator("#draft-1").focus()
        page.keyboard.press("ControlOrMeta+v")
        sync_api.expect(page.locator(".marked").first).to_have_text(pasted)
        sync_api.expect(page.locator(".notes").first).to_contain_text("It read only the start and the end (about 128 words")
        expected = model.predict([(POST, pasted)])[0]
        for card, task in zip(page.locator(".draft").first.locator(".card").all(), expected.tasks.values(), strict=True):
            quotes = [pasted[span.start : span.end] for span in task.evidence or ()]
            assert card.locator(".quotes q").all_text_contents() == quotes
        places = sorted(
            {place for task in expected.tasks.values() for span in task.evidence or () for place in (span.start, span.end)}
        )
        assert places[-1] > 49_000  # the end was read too
        stretches = page.locator(".marked").first.evaluate("(panel) => [...panel.childNodes].map((part) => part.textContent)")
        assert stretches == [
            pasted[start:end] for start, end in zip([0, *places], [*places, len(pasted)], strict=True) if end > start
        ]


class LevelsOnly(ByWords):
    """A model without a span head."""

    def _score(self, pairs: Sequence[TokenPair]) -> Iterator[Scored]:
        return (replace(each, evidence=None) for each in super()._score(pairs))


def test_a_model_without_a_span_head_in_a_folder_that_changed_is_described_as_both(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with running(engine=LevelsOnly(), folder=tmp_path) as server, chromium.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(f"http://127.0.0.1:{server.port}/")
        sync_api.expect(page.locator("#notice")).to_contain_text("The model's files have changed since the server started.")
        page.locator("#seeker").fill(POST)
        page.locator("#draft-1").fill(TYPED)
        sync_api.expect(page.locator(".notes").first).to_have_text(
            "This model gives levels only. It does not mark the words that they come from."
        )
        sync_api.expect(page.locator(".marked").first).to_be_hidden()


def test_the_stand_in_has_the_policy_of_the_server() -> None:
    assert HEADERS["content-security-policy"] == POLICY
