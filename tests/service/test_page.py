"""The page in a real browser: what it shows of a prediction, that marks never drift, and that the last keystroke wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import browsers
import pytest
from page_server import PAGE, PageServer, answer, error, levels, model, predicted

sync_api = browsers.library("playwright.sync_api", "Playwright")
expect = sync_api.expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

POST = "Nobody came to my birthday, and I sat there with the cake."
DRAFT = "I am so sorry. It must have hurt to wait. Who did you hope would come?"

# The marked copy as [text, classes of the marks around it, outermost first], one entry per stretch of text.
STRETCHES = """
(panel) => {
  const walker = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const around = [];
    for (let at = walker.currentNode.parentElement; at !== panel; at = at.parentElement) around.unshift(at.className);
    found.push([walker.currentNode.data, around]);
  }
  return found;
}
"""
SOLID, DOTTED, WAVY = "mark hue0 line0", "mark hue1 line1", "mark hue2 line2"


def write(page: Page, draft: str, post: str = POST) -> None:
    page.locator("#seeker").fill(post)
    page.locator("#draft-1").fill(draft)


def stretches(page: Page) -> list[list[object]]:
    return list(page.locator(".marked").first.evaluate(STRETCHES))


def card(page: Page, title: str, draft: int = 1) -> sync_api.Locator:
    return page.locator(".draft").nth(draft - 1).get_by_role("article", name=title)


@pytest.mark.parametrize(
    "before",
    [
        "",
        "Hello.\n\nTwo lines, and a tab:\t",
        "\U0001f49b\U0001f49b ",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd ",
        "e\u0301e\u0323\u0302 ",
        "\u05d0\u05e0\u05d9 \u05db\u05d0\u05df. ",
        "\u0645\u06cc\u200c\u062f\u0627\u0646\u0645\u060c ",
        "<b>&amp;</b> ",
    ],
    ids=["nothing", "lines", "emoji", "joined emoji", "combining", "Hebrew", "Persian", "markup"],
)
def test_marks_stand_on_the_characters_of_the_evidence(page: Page, server: PageServer, before: str) -> None:
    draft = f"{before}I am so sorry \U0001f49b today."
    quote = "so sorry \U0001f49b"
    server.replies[draft] = predicted({"ER": answer(draft, 1, quote), "EX": answer(draft, 0), "IP": answer(draft, 0)})
    write(page, draft)
    expect(page.locator(".marked mark")).to_have_text(quote)
    assert stretches(page) == [[f"{before}I am ", []], [quote, [SOLID]], [" today.", []]]
    expect(card(page, "Emotional reactions").locator("q").first).to_have_text(quote)


def test_overlapping_evidence_has_all_its_patterns(page: Page, server: PageServer) -> None:
    server.replies[DRAFT] = predicted(
        {
            "ER": answer(DRAFT, 1, "I am so sorry. It must"),
            "EX": answer(DRAFT, 2, "Who did you hope would come?"),
            "IP": answer(DRAFT, 2, "sorry. It must have hurt"),
        }
    )
    write(page, DRAFT)
    expect(page.locator(".marked mark").first).to_be_visible()
    assert stretches(page) == [
        ["I am so ", [SOLID]],
        ["sorry. It must", [SOLID, WAVY]],
        [" have hurt", [WAVY]],
        [" to wait. ", []],
        ["Who did you hope would come?", [DOTTED]],
    ]


def test_each_mechanism_has_level_confidence_and_what_the_next_level_needs(page: Page, server: PageServer) -> None:
    server.replies[DRAFT] = predicted(
        {"ER": answer(DRAFT, 0, sure=0.71), "EX": answer(DRAFT, 1, sure=0.998), "IP": answer(DRAFT, 2, sure=0.9)}
    )
    write(page, DRAFT)
    warmth, asking, understanding = (card(page, name) for name in ("Emotional reactions", "Explorations", "Interpretations"))
    meters = [each.get_by_role("meter") for each in (warmth, asking, understanding)]
    expect(meters[0]).to_have_attribute("aria-valuetext", "none, 71\u00a0% sure")
    assert [meter.get_attribute("aria-valuenow") for meter in meters] == ["0", "1", "2"]
    assert [meter.get_attribute("aria-valuemax") for meter in meters] == ["2", "2", "2"]
    expect(warmth.locator(".verdict")).to_have_text("none 71\u00a0% sure")
    expect(asking.locator(".verdict")).to_have_text("weak over 99\u00a0% sure")
    expect(warmth).to_contain_text("To reach “weak”")
    expect(warmth).to_contain_text("Show that you care.")
    expect(asking).to_contain_text("To reach “strong”")
    expect(asking).to_contain_text("Ask about one particular thing in their post")
    for each in (warmth, asking):
        example = each.locator(".example q").inner_text()
        assert example not in DRAFT + POST
    expect(understanding).to_contain_text("This is the highest level.")
    expect(understanding.locator(".example")).to_have_count(0)
    filled = "(bar) => Promise.all(bar.firstChild.getAnimations().map((each) => each.finished))"
    filled += ".then(() => Math.round(100 * bar.firstChild.offsetWidth / bar.offsetWidth))"
    assert [meter.evaluate(filled) for meter in meters] == [0, 50, 100]


def test_an_uncertain_model_is_shown_as_uncertain(page: Page, server: PageServer) -> None:
    server.replies[DRAFT] = predicted(
        {"ER": answer(DRAFT, 1, sure=0.45, uncertain=True), "EX": answer(DRAFT, 0), "IP": answer(DRAFT, 0)}
    )
    write(page, DRAFT)
    warmth = card(page, "Emotional reactions")
    expect(warmth.locator(".verdict")).to_have_text("weak Uncertain 45\u00a0% sure")
    expect(warmth).to_contain_text("The model wavers between weak and none.")
    expect(warmth.get_by_role("meter")).to_have_attribute("aria-valuetext", "weak, 45\u00a0% sure, uncertain")
    expect(page.locator(".uncertain")).to_have_count(1)


def test_a_model_of_other_tasks_is_shown_under_its_own_names_without_advice(page: Page, server: PageServer) -> None:
    labels = ("none at all", "a hint", "a suggestion", "a clear plan")
    tasks = {"ER": "warmth of another kind", "advice": "how much advice", "pace": "pace", "tone": "tone"}
    server.model.content.clear()
    server.model.content.update(model(tasks, labels))
    server.replies[DRAFT] = predicted({name: answer(DRAFT, at, DRAFT[:4], labels=labels) for at, name in enumerate(tasks)})
    page.reload()
    write(page, DRAFT)
    expect(card(page, "How much advice").locator(".verdict")).to_have_text("a hint 80\u00a0% sure")
    expect(card(page, "Tone").get_by_role("meter")).to_have_attribute("aria-valuemax", "3")
    expect(page.locator(".what, .example, .top")).to_have_count(0)
    expect(page.locator("#origin")).to_contain_text("The levels are the labels of the data")
    assert stretches(page)[0] == [DRAFT[:4], [SOLID, DOTTED, WAVY, "mark hue0 line1"]]


WATCH = """
() => {
  globalThis.changes = 0;
  const everything = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(() => changes++).observe(document.querySelector("main"), everything);
}
"""


@pytest.mark.parametrize("aborts", [True, False])
def test_an_older_answer_that_comes_last_is_never_shown(page: Page, server: PageServer, aborts: bool) -> None:
    if not aborts:  # an abort can come too late: the answer has arrived, and its reader runs next
        page.evaluate("AbortController.prototype.abort = () => {}")
    older, newer = "You poor thing.", "You poor thing. What happened?"
    server.replies[older] = levels(older, er=2)
    server.replies[newer] = predicted({"ER": answer(newer, 1), "EX": answer(newer, 1, "What happened?"), "IP": answer(newer, 0)})
    gate = server.hold(older)
    write(page, older)
    server.until_asked(1)
    page.locator("#draft-1").fill(newer)
    expect(page.locator(".marked mark")).to_have_text("What happened?")
    page.evaluate(WATCH)
    gate.set()
    page.wait_for_timeout(200)
    assert page.evaluate("changes") == 0
    expect(card(page, "Emotional reactions").locator(".level")).to_have_text("weak")


def test_an_older_refusal_that_comes_last_is_never_shown(page: Page, server: PageServer) -> None:
    page.evaluate("AbortController.prototype.abort = () => {}")
    server.replies["Older."] = error(500, "internal_error", "something went wrong in the server")
    gate = server.hold("Older.")
    write(page, "Older.")
    server.until_asked(1)
    page.locator("#draft-1").fill(DRAFT)
    expect(page.locator(".marked").first).to_have_text(DRAFT)
    page.evaluate(WATCH)
    gate.set()
    page.wait_for_timeout(200)
    assert page.evaluate("changes") == 0


def test_a_keystroke_aborts_the_older_request(page: Page, server: PageServer) -> None:
    gate = server.hold("Older.")
    write(page, "Older.")
    server.until_asked(1)
    with page.expect_event("requestfailed") as aborted:
        page.locator("#draft-1").fill(DRAFT)
    assert aborted.value.failure == "net::ERR_ABORTED"
    assert aborted.value.post_data_json["pairs"] == [{"seeker_post": POST, "response_post": "Older."}]
    gate.set()


def test_an_answer_about_an_older_seeker_post_is_never_shown(page: Page, server: PageServer) -> None:
    server.replies[DRAFT] = [levels(DRAFT, er=1), levels(DRAFT, er=2)]  # the newer one is answered first
    gate = server.hold("An older post.")
    write(page, DRAFT, "An older post.")
    server.until_asked(1)
    page.locator("#seeker").fill(POST)
    expect(card(page, "Emotional reactions").locator(".level")).to_have_text("weak")
    gate.set()
    page.wait_for_timeout(200)
    expect(card(page, "Emotional reactions").locator(".level")).to_have_text("weak")
    assert server.asked == [("An older post.", DRAFT), (POST, DRAFT)]


def test_feedback_is_greyed_at_once_where_the_text_changes_and_its_marks_stay_with_their_text(
    page: Page, server: PageServer
) -> None:
    changed = f"Oh. {DRAFT}"
    for text in (DRAFT, changed):
        server.replies[text] = predicted({"ER": answer(text, 1, "I am so sorry"), "EX": answer(text, 0), "IP": answer(text, 0)})
    write(page, DRAFT)
    expect(page.locator(".marked mark")).to_have_text("I am so sorry")
    gate = server.hold(changed)
    # In the same turn of the event loop as the keystroke, before any answer or timer.
    at_once = page.locator("#draft-1").evaluate(
        "(box, text) => { box.value = text; box.dispatchEvent(new Event('input'));"
        "const feedback = document.querySelector('.feedback');"
        "return [feedback.className, feedback.getAttribute('aria-busy'), feedback.querySelector('.marked').textContent]; }",
        changed,
    )
    assert at_once == ["feedback old", "true", DRAFT]
    assert stretches(page) == [["I am so sorry", [SOLID]], [DRAFT.removeprefix("I am so sorry"), []]]
    gate.set()
    expect(page.locator(".feedback.old")).to_have_count(0)
    assert stretches(page)[:2] == [["Oh. ", []], ["I am so sorry", [SOLID]]]


def test_requests_wait_for_a_pause_and_the_last_keystroke_wins(page: Page, server: PageServer) -> None:
    page.locator("#seeker").fill(POST)
    page.locator("#draft-1").press_sequentially(DRAFT)
    expect(page.locator(".marked").first).to_have_text(DRAFT)
    assert server.asked[-1] == (POST, DRAFT)
    before = len(server.asked)
    page.evaluate(
        "(text) => { const box = document.querySelector('#draft-1');"
        "for (let end = 1; end <= text.length; end++) {"
        " box.value = text.slice(0, end); box.dispatchEvent(new Event('input')); } }",
        "one turn of the loop",
    )
    expect(page.locator(".marked").first).to_have_text("one turn of the loop")
    assert server.asked[before:] == [(POST, "one turn of the loop")]


def test_two_drafts_are_compared(page: Page, server: PageServer) -> None:
    second = "That is hard."
    server.replies |= {DRAFT: levels(DRAFT, er=2), second: levels(second, er=1)}
    write(page, DRAFT)
    expect(card(page, "Emotional reactions").locator(".level")).to_have_text("strong")
    page.get_by_role("button", name="Compare with a second draft").click()
    expect(page.get_by_label("Draft 2", exact=True)).to_be_focused()
    expect(page.get_by_label("Draft 2", exact=True)).to_have_value(DRAFT)
    page.get_by_label("Draft 2", exact=True).fill(second)
    expect(card(page, "Emotional reactions", 2).locator(".level")).to_have_text("weak")
    expect(card(page, "Emotional reactions", 2)).to_contain_text("Draft 1: strong")
    expect(card(page, "Emotional reactions", 1)).to_contain_text("Draft 2: weak")
    expect(page.get_by_role("heading", name="Feedback on draft")).to_have_text(["Feedback on draft 1", "Feedback on draft 2"])
    gate = server.hold("Changed.")
    page.get_by_label("Draft 1", exact=True).fill("Changed.")
    expect(card(page, "Emotional reactions", 2).locator(".other")).to_be_empty()  # the level was that of an older text
    gate.set()
    expect(card(page, "Emotional reactions", 2)).to_contain_text("Draft 1: none")
    asked = len(server.asked)
    page.get_by_role("button", name="Hide the second draft").click()
    expect(page.get_by_label("Your answer", exact=True)).to_have_value("Changed.")
    expect(page.locator(".draft").nth(1)).to_be_hidden()
    expect(card(page, "Emotional reactions", 1)).not_to_contain_text("Draft 2")
    page.get_by_label("Your answer", exact=True).fill(DRAFT)
    expect(card(page, "Emotional reactions").locator(".level")).to_have_text("strong")
    assert server.asked[asked:] == [(POST, DRAFT)]  # nobody asks for a draft that is hidden


def test_a_card_names_no_level_of_the_other_draft_that_is_of_an_older_post(page: Page, server: PageServer) -> None:
    compare, other = page.locator("#compare"), card(page, "Emotional reactions").locator(".other")
    write(page, DRAFT)
    compare.click()
    expect(other).to_have_text("Draft 2: none")
    compare.click()
    page.locator("#seeker").fill("A newer post.")
    server.hold(DRAFT)
    compare.click()
    expect(other).to_be_empty()


def test_markup_in_the_posts_stays_text(page: Page, server: PageServer) -> None:
    hostile = "<img src=x onerror=alert(1)><script>document.title = 'taken'</script>"
    server.replies[hostile] = predicted({"ER": answer(hostile, 1, hostile), "EX": answer(hostile, 0), "IP": answer(hostile, 0)})
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    write(page, hostile, hostile)
    expect(page.locator(".marked mark")).to_have_text(hostile)
    expect(card(page, "Emotional reactions").locator(".quotes q")).to_have_text(hostile)
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "Feedback on your answer"


def test_nothing_is_stored(page: Page, server: PageServer) -> None:
    write(page, DRAFT)
    expect(page.locator(".marked").first).to_have_text(DRAFT)
    stored = page.evaluate(
        "async () => [localStorage.length, sessionStorage.length, document.cookie, (await indexedDB.databases()).length,"
        "(await caches.keys()).length, (await navigator.serviceWorker.getRegistrations()).length, location.href, history.state]"
    )
    assert stored == [0, 0, "", 0, 0, 0, server.url, None]
    assert page.context.cookies() == []
    page.reload()
    expect(page.locator("#draft-1")).to_have_value("")
    assert page.locator("#seeker").input_value() == ""


def test_a_long_paste_freezes_nothing(page: Page, server: PageServer) -> None:
    line = "I hear you \U0001f49b, and \u05d0\u05e0\u05d9 too. "
    long = (line * (50_000 // len(line) + 1))[:50_000]
    server.replies[long] = predicted({"ER": answer(long, 1, line), "EX": answer(long, 0), "IP": answer(long, 0)}, response=True)
    page.evaluate("(text) => navigator.clipboard.writeText(text)", long)
    page.evaluate(
        "() => { globalThis.longest = 0; let last = performance.now();"
        "setInterval(() => { const now = performance.now(); longest = Math.max(longest, now - last); last = now; }, 5); }"
    )
    page.locator("#seeker").fill(POST)
    page.locator("#draft-1").focus()
    page.keyboard.press("ControlOrMeta+v")
    expect(page.locator(".notes").first).to_contain_text("longer than the model reads")
    page.keyboard.type("!")
    expect(page.locator("#draft-1")).to_have_value(f"{long}!")
    expect(page.locator(".marked").first).to_have_text(f"{long}!")
    assert server.asked[-1] == (POST, f"{long}!")
    assert page.evaluate("longest") < 3000  # milliseconds in which nothing else could run; a fraction of it on an idle machine


def test_the_page_is_small_and_asks_for_nothing_else() -> None:
    files = sorted(PAGE.iterdir())
    assert [file.name for file in files] == [
        "feedback.js",
        "icon.svg",
        "index.html",
        "page.css",
        "page.js",
        "server.js",
        "words.js",
    ]
    assert sum(file.stat().st_size for file in files) < 60_000
    for file in files:
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", ""), f"{file.name} names another host"
        assert "innerHTML" not in text
