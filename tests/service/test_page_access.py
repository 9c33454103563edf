"""The page for everybody: by keyboard, with a screen reader, in every colour, on a phone, from right to left."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import dist
from typing import TYPE_CHECKING

import browsers
import pytest
from page_server import PageServer, answer, error, levels, predicted

sync_api = browsers.library("playwright.sync_api", "Playwright")
expect = sync_api.expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

POST = "My father stopped talking to me when I moved out."
DRAFT = "I am so sorry. Silence like that must be lonely. What was he like before?"


@pytest.fixture(autouse=True)
def scripted(server: PageServer) -> None:
    server.replies[DRAFT] = predicted(
        {
            "ER": answer(DRAFT, 1, "I am so sorry"),
            "EX": answer(DRAFT, 2, "What was he like before?", sure=0.5, uncertain=True),
            "IP": answer(DRAFT, 2, "Silence like that must be lonely"),
        },
        response=True,
    )


def write(page: Page) -> None:
    page.locator("#seeker").fill(POST)
    page.locator("#draft-1").fill(DRAFT)
    expect(page.locator(".marked mark").first).to_be_visible()


def compare(page: Page) -> None:
    page.get_by_role("button", name="Compare with a second draft").click()
    expect(page.locator(".marked mark")).to_have_count(6)


def findings(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical. The debugger evaluates it, so the page keeps its policy."""
    axe = browsers.library("axe_playwright_python.sync_playwright", "axe-playwright-python").Axe()
    settled = "() => Promise.all(document.getAnimations().map((each) => each.finished.catch(() => null))).then(() => true)"
    assert page.evaluate(settled)
    found = axe.run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Callable[..., Page], server: PageServer, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    write(page)
    compare(page)
    server.token = "Bearer sesame"
    page.locator("#draft-2").fill("Now there is all at once: marks, a second draft without any, and the form for a token.")
    expect(page.get_by_label("This server asks for an access token")).to_be_visible()
    assert findings(page) == []


def test_everything_works_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.insert_text(POST)
    page.keyboard.press("Tab")
    page.keyboard.insert_text(DRAFT)
    marked = page.get_by_role("region", name="Evidence marked in your answer")
    expect(marked.locator("mark").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(marked).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Compare with a second draft")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert "3px" in outline
    assert "solid" in outline
    page.keyboard.press("Enter")
    expect(page.get_by_label("Draft 2", exact=True)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Draft 1", exact=True)).to_be_focused()


def test_a_screen_reader_is_told_once_per_pause(page: Page, server: PageServer) -> None:
    page.evaluate(
        "() => { globalThis.told = []; const region = document.querySelector('[role=status]');"
        "new MutationObserver(() => region.textContent && told.push(region.textContent)).observe(region, {childList: true}); }"
    )
    page.locator("#seeker").fill(POST)
    page.locator("#draft-1").press_sequentially("I hear you. ", delay=60)
    page.locator("#draft-1").fill(DRAFT)
    expect(page.get_by_role("status")).not_to_be_empty()
    page.wait_for_timeout(300)
    assert page.evaluate("told") == [
        "emotional reactions weak, 80\u00a0% sure; explorations strong, uncertain; interpretations strong, 80\u00a0% sure; "
        "Your answer is longer than the model reads. It read only the start and the end (about 64 words and parts of words)."
    ]
    assert len(server.asked) > 1
    server.replies["Hm."] = error(500, "internal", "Something broke.")
    page.locator("#draft-1").fill("Hm.")
    expect(page.get_by_role("status")).to_contain_text("The server could not judge this answer: Something broke.")
    assert page.evaluate("told.length") == 2


def test_evidence_can_be_read_as_text(page: Page) -> None:
    write(page)
    card = page.get_by_role("article", name="Interpretations").first
    expect(card.get_by_role("heading")).to_have_text(["Interpretations", "Evidence"])
    expect(card.get_by_role("listitem")).to_have_text("Silence like that must be lonely")


def test_a_phone_scrolls_one_way_only(open_page: Callable[..., Page], server: PageServer) -> None:
    word = "a" * 400
    server.replies[word] = levels(word, er=1)
    page = open_page(viewport={"width": 320, "height": 640}, has_touch=True)
    write(page)
    compare(page)
    page.locator("#draft-2").fill(word)
    expect(page.locator(".marked").nth(1)).to_have_text(word)
    assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [320, 320]
    sizes = page.evaluate(
        "[...document.querySelectorAll('button, textarea')].filter((each) => each.offsetParent)"
        ".map((each) => Math.min(each.offsetWidth, each.offsetHeight))"
    )
    assert min(sizes) >= 44


def test_text_from_right_to_left_stands_right(page: Page, server: PageServer) -> None:
    draft = "\u05d0\u05e0\u05d9 \u05de\u05e6\u05d8\u05e2\u05e8 \u05de\u05d0\u05d5\u05d3."
    server.replies[draft] = predicted({"ER": answer(draft, 1, draft[4:10]), "EX": answer(draft, 0), "IP": answer(draft, 0)})
    page.locator("#seeker").fill(POST)
    page.locator("#draft-1").fill(draft)
    expect(page.locator(".marked mark")).to_have_text(draft[4:10])
    direction = "(each) => getComputedStyle(each).direction"
    assert [page.locator(place).first.evaluate(direction) for place in ("#draft-1", ".marked", ".quotes q", "#seeker")] == [
        "rtl",
        "rtl",
        "rtl",
        "ltr",
    ]


def test_patterns_stay_where_colours_are_forced_and_nothing_moves_where_that_is_asked(open_page: Callable[..., Page]) -> None:
    page = open_page(forced_colors="active", reduced_motion="reduce")
    write(page)
    style = "(marks) => marks.map((each) => getComputedStyle(each).textDecorationStyle)"
    assert sorted(page.locator(".marked mark").evaluate_all(style)) == ["dotted", "solid", "wavy"]
    fill = page.locator(".fill").first
    assert fill.evaluate("(bar) => getComputedStyle(bar).transitionDuration") == "0s"
    assert fill.evaluate("(bar) => getComputedStyle(bar).backgroundColor") != "rgba(0, 0, 0, 0)"


# Machado, Oliveira and Fernandes (2009), severity 1: what a linear RGB colour is to whoever lacks a kind of cone.
SEEN_BY = {
    "everybody": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopes": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopes": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopes": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}


def linear(colour: str) -> list[float]:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def lab(red: float, green: float, blue: float) -> tuple[float, float, float]:
    x, y, z = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
    )
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colour_blind_can_tell_the_three_colours_apart(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    names = ("--hue0", "--hue1", "--hue2", "--card")
    colours = page.evaluate(
        "(names) => names.map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())", names
    )
    *hues, card = [linear(colour if len(colour) == 7 else "#ffffff") for colour in colours]
    for matrix in SEEN_BY.values():
        seen = [lab(*(min(max(sum(a * b for a, b in zip(row, hue, strict=True)), 0), 1) for row in matrix)) for hue in hues]
        assert min(dist(one, other) for one, other in combinations(seen, 2)) > 25  # CIE76; about 2 is the least one sees
    for hue in hues:
        light, dark = sorted((lab(*each)[0] for each in (hue, card)), reverse=True)
        luminance = [((part + 16) / 116) ** 3 for part in (light, dark)]
        assert (luminance[0] + 0.05) / (luminance[1] + 0.05) >= 3  # WCAG's contrast of what is no text
