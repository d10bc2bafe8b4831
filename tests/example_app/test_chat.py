"""Two people talk in the chat, each in a real browser, through a real server."""

from __future__ import annotations

from tests.example_app.people import Person


def test_two_people_talk_and_see_what_becomes_of_it(ada: Person, ben: Person) -> None:
    ada.open(ben.name)
    ada.say("hello Ben")
    ada.sees_ticks("hello Ben", "Delivered")
    ben.open(ada.name)
    ben.sees("hello Ben")
    ada.sees_ticks("hello Ben", "Read")
    ben.say("hello Ada")
    ada.sees("hello Ada")
    ben.sees_ticks("hello Ada", "Read")
    assert ada.texts() == ben.texts() == ["hello Ben", "hello Ada"]
