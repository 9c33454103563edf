"""What the page says where there is nothing to judge, where a post is too long, and where the server cannot answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import browsers
import pytest
from page_server import EPITOME, PageServer, Reply, answer, error, levels, model, predicted

sync_api = browsers.library("playwright.sync_api", "Playwright")
expect = sync_api.expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

POST = "I was passed over again, and my boss smiled about it."
DRAFT = "That sounds bitter."


def write(page: Page, draft: str, post: str = POST) -> None:
    page.locator("#seeker").fill(post)
    page.locator("#draft-1").fill(draft)


def status(page: Page) -> Locator:
    return page.locator(".status").first


def level(page: Page) -> Locator:
    """The first mechanism's level, where there is one."""
    return page.locator(".level:visible").first


def serve_model(server: PageServer, page: Page, **changed: Any) -> None:
    """The page, opened again on another model."""
    server.model = Reply(model(**changed))
    page.reload()


def test_an_empty_answer_has_no_levels(page: Page, server: PageServer) -> None:
    expect(status(page)).to_have_text("Nothing to judge yet: write an answer.")
    write(page, DRAFT)
    expect(level(page)).to_have_text("none")
    page.locator("#draft-1").fill("")
    expect(status(page)).to_have_text("Nothing to judge yet: write an answer.")
    expect(level(page)).to_have_count(0)
    expect(page.locator(".marked").first).to_be_hidden()
    page.locator("#draft-1").fill(" \n\u3000\t")
    expect(status(page)).to_have_text("Nothing to judge yet: there are only spaces so far.")
    assert server.asked == [(POST, DRAFT)]


def test_a_missing_seeker_post_is_asked_for_where_the_model_reads_it(page: Page, server: PageServer) -> None:
    write(page, DRAFT, " ")
    expect(status(page)).to_have_text("Nothing to judge yet: the post you are answering is missing. The model reads both.")
    page.locator("#seeker").fill(POST)
    expect(level(page)).to_have_text("none")
    assert server.asked == [(POST, DRAFT)]


def test_a_model_without_seeker_posts_needs_none(page: Page, server: PageServer) -> None:
    serve_model(server, page, reads_seekers=False)
    expect(page.locator("#seeker-hint")).to_have_text("This model reads your answer only, not this post.")
    write(page, DRAFT, "")
    expect(level(page)).to_have_text("none")
    assert server.asked == [("", DRAFT)]


def test_a_model_without_seeker_posts_is_sent_none_however_long_it_is(page: Page, server: PageServer) -> None:
    serve_model(server, page, reads_seekers=False, limits={"pairs": 64, "characters": len(DRAFT), "bytes": 1000})
    write(page, DRAFT, POST)
    expect(level(page)).to_have_text("none")
    assert server.asked == [("", DRAFT)]


@pytest.mark.parametrize(("truncate", "part"), [("head", "the start"), ("head-tail", "the start and the end")])
def test_a_post_that_the_model_did_not_read_whole_is_named(page: Page, server: PageServer, truncate: str, part: str) -> None:
    serve_model(server, page, truncate=truncate)
    server.replies[DRAFT] = predicted({name: answer(DRAFT, 0) for name in EPITOME}, seeker=True, response=True)
    write(page, DRAFT)
    ending = f"is longer than the model reads. It read only {part} (about 64 words and parts of words)."
    expect(page.locator(".notes").first.locator("li")).to_have_text(
        [f"Your answer {ending}", f"The post you are answering {ending}"]
    )


def test_a_model_without_a_span_head_marks_nothing_and_says_so(page: Page, server: PageServer) -> None:
    serve_model(server, page, marks_evidence=False)
    server.replies[DRAFT] = predicted({name: answer(DRAFT, 1, evidence=False) for name in EPITOME})
    write(page, DRAFT)
    expect(page.locator(".notes").first).to_have_text(
        "This model gives levels only. It does not mark the words that they come from."
    )
    expect(page.locator(".marked").first).to_be_hidden()
    expect(page.locator(".quotes")).to_have_count(0)
    expect(page.get_by_role("status")).to_contain_text("It does not mark the words that they come from.")


def test_a_model_that_has_changed_on_disk_is_named(page: Page, server: PageServer) -> None:
    serve_model(server, page, changed_since_start=True)
    words = (
        "The model's files have changed since the server started. The levels here still come from the earlier model. "
        "Whoever runs the server can restart it."
    )
    expect(page.locator("#notice")).to_have_text(words)
    expect(page.get_by_role("status")).to_have_text(words)
    write(page, DRAFT)
    expect(level(page)).to_have_text("none")
    expect(page.locator("#notice")).to_have_text(words)
    serve_model(server, page, changed_since_start=False)
    expect(page.locator("#seeker-hint")).to_have_text("The model reads your answer together with this post.")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_refusal_is_shown_in_the_words_of_the_server_and_the_next_keystroke_tries_again(page: Page, server: PageServer) -> None:
    server.replies[DRAFT] = error(500, "internal_error", "something went wrong in the server")
    write(page, "Good so far.")
    expect(level(page)).to_have_text("none")
    page.locator("#draft-1").fill(DRAFT)
    expect(status(page)).to_have_text(
        "The server could not judge this answer: something went wrong in the server. The next keystroke tries again."
    )
    expect(level(page)).to_have_count(0)
    page.wait_for_timeout(300)
    assert len(server.asked) == 2
    page.locator("#draft-1").press("End")
    page.locator("#draft-1").press("!")
    expect(level(page)).to_have_text("none")
    expect(status(page)).to_have_text("")


@pytest.mark.parametrize(
    ("code", "field", "words"),
    [
        ("empty_post", "response_post", "Nothing to judge yet: there are only spaces so far."),
        ("empty_post", "seeker_post", "Nothing to judge yet: the post you are answering is missing. The model reads both."),
        ("invalid_text", "response_post", "Your answer holds something that is no text. The next keystroke tries again."),
        ("too_long", "seeker_post", "The post you are answering is too long: the server accepts at most 100,000 characters."),
    ],
)
def test_what_the_server_finds_wrong_with_a_post_is_put_plainly(
    page: Page, server: PageServer, code: str, field: str, words: str
) -> None:
    server.replies["\u200b"] = error(422, code, f"pair 0, {field}: found something else", pair=0, field=field)
    write(page, "\u200b")
    expect(status(page)).to_contain_text(words)


def test_a_busy_server_is_asked_again_when_it_said(page: Page, server: PageServer) -> None:
    busy = error(429, "too_busy", "Too many requests.", headers={"Retry-After": "1"})
    server.replies[DRAFT] = [busy, levels(DRAFT, er=2)]
    write(page, DRAFT)
    expect(status(page)).to_have_text("The server is busy. The page tries again in 1 second.")
    expect(level(page)).to_have_text("strong")
    expect(status(page)).to_have_text("")
    assert len(server.asked) == 2


def test_a_server_that_is_gone_is_named_and_found_again(page: Page, server: PageServer) -> None:
    write(page, DRAFT)
    expect(level(page)).to_have_text("none")
    server.stop()
    page.locator("#draft-1").fill("It went away.")
    expect(status(page)).to_have_text("The server does not answer. The page keeps trying.")
    expect(page.locator(".feedback").first).to_have_class("feedback old")
    server.replies["It went away."] = levels("It went away.", er=1)
    server.again()
    expect(level(page)).to_have_text("weak")
    expect(status(page)).to_have_text("")
    expect(page.locator(".feedback").first).to_have_class("feedback")


def test_a_server_that_starts_after_the_page_is_found(page: Page, server: PageServer) -> None:
    good, server.model = server.model, Reply(b"<h1>Bad gateway</h1>", 502)
    page.reload()
    expect(page.locator("#notice")).to_have_text("The server does not answer. The page keeps trying.")
    write(page, DRAFT)
    expect(status(page)).to_have_text("Connecting to the server …")
    server.model = good
    expect(level(page)).to_have_text("none")
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("content", [{}, [], {"schema": {"tasks": []}}, {"schema": {"tasks": [None]}}])
def test_a_server_that_does_not_say_what_its_model_is_is_named_and_asked_again(
    page: Page, server: PageServer, content: Any
) -> None:
    server.model = Reply(content)
    page.reload()
    expect(page.locator("#notice")).to_have_text(
        "The server sent something that this page does not understand. The page keeps trying."
    )
    server.model = Reply(model())
    write(page, DRAFT)
    expect(level(page)).to_have_text("none", timeout=20_000)


def test_a_token_is_asked_for_sent_and_kept_in_memory_alone(page: Page, server: PageServer) -> None:
    server.token = "Bearer sesame"
    page.reload()
    field = page.get_by_label("This server asks for an access token")
    expect(field).to_be_focused()
    expect(status(page)).to_have_text("The server asks for an access token, at the top of the page.")
    field.fill(" sesame ")
    page.get_by_role("button", name="Use this token").click()
    expect(field).to_be_hidden()
    expect(page.locator("#seeker")).to_be_focused()  # not lost with the form
    expect(page.locator("#notice")).to_be_hidden()
    write(page, DRAFT)
    expect(level(page)).to_have_text("none")
    assert server.tokens[-2:] == ["Bearer sesame", "Bearer sesame"]
    assert page.url == server.url
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    expect(field).to_be_visible()


def test_each_wrong_token_is_refused_for_screen_readers_too(page: Page, server: PageServer) -> None:
    server.token = "Bearer sesame"
    page.reload()
    field, told = page.get_by_label("This server asks for an access token"), page.get_by_role("status")
    expect(told).to_have_text("The server asks for an access token, at the top of the page.")
    for wrong in ("\u043a\u043b\u044e\u0447", "\u043a\u043b\u044e\u0447", "wrong", "wrong"):
        field.fill(wrong)
        expect(field).not_to_have_attribute("aria-invalid", "true")
        expect(told).to_be_empty()  # a region that changes from a text to the same text is silent
        field.press("Enter")
        expect(told).to_have_text("The server does not accept this token.")
        expect(page.locator("#notice")).to_have_text("The server does not accept this token.")
        expect(field).to_have_value("")
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(r"The server does not accept this token\. Whoever runs"))


def test_a_token_that_is_asked_for_later_takes_no_focus_and_loses_no_text(page: Page, server: PageServer) -> None:
    write(page, DRAFT)
    expect(level(page)).to_have_text("none")
    server.token = "Bearer later"
    page.locator("#draft-1").press("End")
    page.locator("#draft-1").press("!")
    expect(status(page)).to_have_text("The server asks for an access token, at the top of the page.")
    expect(page.locator("#draft-1")).to_be_focused()
    page.get_by_label("This server asks for an access token").fill("later")
    page.get_by_label("This server asks for an access token").press("Enter")
    expect(level(page)).to_have_text("none")
    expect(page.locator("#draft-1")).to_have_value(f"{DRAFT}!")


def test_a_text_beyond_the_limit_is_not_sent(page: Page, server: PageServer) -> None:
    serve_model(server, page, limits={"pairs": 64, "characters": 10, "bytes": 1000})
    write(page, "\U0001f49b" * 10, "short")  # ten characters, and twenty units
    expect(level(page)).to_have_text("none")
    page.locator("#draft-1").fill("\U0001f49b" * 11)
    expect(status(page)).to_have_text("Your answer is too long: the server accepts at most 10 characters.")
    page.locator("#seeker").fill("eleven sign")
    page.locator("#draft-1").fill("fine")
    expect(status(page)).to_have_text("The post you are answering is too long: the server accepts at most 10 characters.")
    assert len(server.asked) == 1


@pytest.mark.parametrize("sign", ["\\ud83d", "\\ude22", "\\0"], ids=["half an emoji", "its other half", "NUL"])
def test_what_is_no_text_is_sent_as_one_sign_that_moves_no_mark(page: Page, server: PageServer, sign: str) -> None:
    server.replies["\ufffd so sorry"] = predicted(
        {name: answer("\ufffd so sorry", 1, "so sorry") if name == "ER" else answer("", 0) for name in EPITOME}
    )
    page.locator("#seeker").fill(POST)
    page.locator("#draft-1").evaluate(f"(box) => {{ box.value = '{sign} so sorry'; box.dispatchEvent(new Event('input')); }}")
    expect(page.locator(".marked mark")).to_have_text("so sorry")


@pytest.mark.parametrize("content", [b"nonsense", b"[]", {"digest": "one"}, {"digest": "one", "predictions": [{"tasks": {}}]}])
def test_an_answer_that_makes_no_sense_is_named(page: Page, server: PageServer, content: Any) -> None:
    server.replies[DRAFT] = Reply(content)
    write(page, DRAFT)
    expect(status(page)).to_have_text(
        "The server sent something that this page does not understand. The next keystroke tries again."
    )
    expect(level(page)).to_have_count(0)


def test_a_slow_answer_is_announced_as_slow(page: Page, server: PageServer) -> None:
    gate = server.hold(DRAFT)
    write(page, DRAFT)
    expect(status(page)).to_have_text("The model is reading …")
    gate.set()
    expect(level(page)).to_have_text("none")
    expect(status(page)).to_have_text("")


def test_a_server_with_another_model_by_now_is_asked_what_it_is(page: Page, server: PageServer) -> None:
    write(page, "First.")
    expect(level(page)).to_have_text("none")
    server.model = Reply(model({"warmth": "warmth"}, ("cold", "warm"), digest="two"))
    labels = ("cold", "warm")
    server.replies[DRAFT] = predicted({"warmth": answer(DRAFT, 1, labels=labels)}, digest="two")
    page.locator("#draft-1").fill(DRAFT)
    expect(level(page)).to_have_text("warm")
    expect(page.locator(".card:visible")).to_have_count(1)
    assert server.asked[1:] == [(POST, DRAFT), (POST, DRAFT)]
    expect(page.locator("#origin")).to_contain_text("The levels are the labels of the data that the model learnt from.")
    server.model = Reply(model(digest="three"))
    server.replies["Again."] = predicted({name: answer("Again.", 0) for name in EPITOME}, digest="three")
    page.locator("#draft-1").fill("Again.")
    expect(level(page)).to_have_text("none")
    expect(page.locator("#origin")).to_contain_text("The levels are 0 (none), 1 (weak) and 2 (strong).")
