"""The pictures of the chat for the documents; `make screenshots` puts them into docs/."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.example_app.people import Crowd

MAX_BYTES = 200_000

TALK = [
    ("ada", "Morning! Did the train to Uppsala leave on time?"),
    ("ben", "For once. Seat by the window, coffee in hand ☕"),
    ("ben", "I have read your draft on the way. The second part is the strongest."),
    ("ada", "Good, I was not sure about it. Could you mark what is too long?"),
    ("ben", "Done. Three paragraphs, none of them sacred."),
    ("ada", "Then I cut them tonight. See you at seven, at the usual place?"),
    ("ben", "At seven. I bring the pages."),
]


def test_pictures_are_taken(crowd: Crowd, tmp_path: Path) -> None:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    ada = crowd.person("ada", viewport={"width": 1320, "height": 800}, color_scheme="light")
    ben = crowd.person("ben", viewport={"width": 390, "height": 780}, color_scheme="light")
    eva = crowd.person("eva")
    people = {"ada": ada, "ben": ben, "eva": eva}
    for person in people.values():
        person.register()
    for name, text in [("eva", "The keys are under the third flower pot."), *TALK]:
        other = "ada" if name != "ada" else "ben"
        if people[name].by_id("contact-name").inner_text() != other:
            people[name].open(other)
        people[name].say(text)
        has_come = people[name].row(text).locator("[data-state=delivered], [data-state=read]")
        has_come.wait_for()
    for name, other in (("ada", "ben"), ("ben", "ada")):
        people[name].sees(TALK[-1][1])
        people[other].sees_ticks([text for by, text in TALK if by == other][-1], "Read")

    ada.by_id("server-button").click()
    expect(ada.page.locator("#server-rows li")).to_have_count(len(TALK))
    ben.by_id("text").fill("Should I also bring")
    expect(ada.by_id("typing")).to_have_text("typing…")
    take(ada.page, folder / "chat.png")
    take(ben.page, folder / "chat-phone.png")


def take(page: Page, path: Path) -> None:
    """A picture of few colours, and so of few bytes; the rarest ones, of the ticks, stay."""
    keep_rare = Image.Quantize.MAXCOVERAGE
    with Image.open(BytesIO(page.screenshot())) as picture:
        few = picture.convert("RGB").quantize(256, keep_rare, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    assert path.stat().st_size < MAX_BYTES
