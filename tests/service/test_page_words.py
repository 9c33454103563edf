"""What the page promises and advises, word for word: these sentences are for people who write to somebody in distress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import browsers
import pytest
from page_server import EPITOME, PageServer, levels

expect = browsers.library("playwright.sync_api", "Playwright").expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

DRAFT = "I hear you."


def test_the_page_says_what_the_levels_are_and_what_they_are_not(page: Page) -> None:
    about = page.get_by_role("region", name="What the levels are, and what they are not")
    expect(about.get_by_role("listitem")).to_have_text(
        [
            "The levels are 0 (none), 1 (weak) and 2 (strong). A model gives them. "
            "It learnt from posts that people had labelled.",
            "They describe a text. They are no judgement of a person: not of you, and not of whoever asks for support.",
            "People who label posts often disagree on a level, and so will you and the model. "
            "Where it is uncertain, the page says so.",
            "A higher level is not always the better answer, and not every answer needs all of them. Trust your own sense first.",
            "The model does not notice danger. It is no check for risk, and no diagnosis.",
            "Your text goes to the server that this page came from, and nowhere else. "
            "The page stores nothing: close it, and the text is gone.",
        ]
    )


ADVICE = {
    0: [
        "To reach “weak” Show that you care. A few warm words are enough, before any advice. "
        "For example: I\u2019m glad you wrote this down. I hope tomorrow is gentler with you.",
        "To reach “weak” Ask something. Even a short, open question shows that you want to know more. "
        "For example: Would you like to tell me more about that?",
        "To reach “weak” Show that you can picture how it is for them. For example: I can see why this weighs on you.",
    ],
    1: [
        "To reach “strong” Name the feeling that their post leaves you with: sad, worried, touched, glad. "
        "For example: It makes me sad to read how they spoke to you, and I\u2019m worried about your nights.",
        "To reach “strong” Ask about one particular thing in their post: a feeling, a moment or a person. "
        "For example: When your brother hung up, were you more hurt or more angry?",
        "To reach “strong” Say what you understood. Name the feeling you hear, or tell of a time when it was similar for you. "
        "For example: Three weeks of waiting for that call must leave you frightened and worn out.",
    ],
    2: [
        "This is the highest level. You show warmth and name a feeling.",
        "This is the highest level. You ask about something particular in their post.",
        "This is the highest level. You put into words what you understood of their feeling or situation.",
    ],
}


@pytest.mark.parametrize("level", ADVICE)
def test_each_mechanism_has_its_advice_at_each_level(page: Page, server: PageServer, level: int) -> None:
    server.replies[DRAFT] = levels(DRAFT, level, level, level)
    page.locator("#seeker").fill("My brother hung up on me.")
    page.locator("#draft-1").fill(DRAFT)
    advice = page.locator(".reading:visible > :last-child")
    expect(advice).to_have_count(len(EPITOME))
    read = "(parts) => parts.map((part) => [...part.children].map((each) => each.textContent).join(' '))"
    assert advice.evaluate_all(read) == ADVICE[level]
