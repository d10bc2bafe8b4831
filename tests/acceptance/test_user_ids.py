"""Any text of 1 to 255 characters is a user id, in frames and, percent-encoded, in paths."""

from __future__ import annotations

import pytest

from tests.acceptance.people import People, Person
from tests.acceptance.rest import segment
from tests.acceptance.wire import new_content

USER_IDS = [
    "7",
    "x",
    "auth0|a/b?c",
    "a//b",
    "/leading and trailing/",
    "..",
    "../keys",
    "./.",
    "a/read",
    "read",
    "messages",
    "100%",
    "%2F",
    "%00",
    "a+b c",
    "a&b=c#d;e",
    "back\\slash",
    "two\nlines",
    "\"quoted\" 'too'",
    "<b>",
    "ÄÖÜ/ß",
    "e\u0301 against \u00e9",
    "日本語",
    "\u202eright to left",
    "user@example.com",
    " spaces around ",
    "x" * 255,
    "😀" * 255,
]


def with_bearer(person: Person) -> dict[str, dict[str, str]]:
    # In a query the longest of these tokens would not fit into gunicorn's request line.
    return {"headers": {"Authorization": f"Bearer {person.token()}"}}


@pytest.fixture
def odd(people: People, request: pytest.FixtureRequest) -> Person:
    return people.named(str(request.param))


every_user_id = pytest.mark.parametrize("odd", USER_IDS, indirect=True, ids=lambda i: ascii(i)[:24])


@every_user_id
def test_messages_travel_both_ways(odd: Person, alice: Person) -> None:
    theirs = odd.connect_with(**with_bearer(odd))
    theirs.drain()
    ours, content = alice.connect(), new_content()
    sent = ours.store(odd.id, content)
    received = theirs.message(sent["id"])
    assert (received["recipient"], received["encrypted_content"]) == (odd.id, content)
    theirs.ack()
    assert ours.receipts("delivered", [sent["id"]])[0]["by"] == odd.id
    answer = theirs.store(alice.id)
    assert ours.message(answer["id"])["sender"] == odd.id


@every_user_id
def test_the_key_can_be_fetched(odd: Person, alice: Person) -> None:
    odd.enrol()
    answer = alice.rest.get(f"/api/keys/{segment(odd.id)}")
    assert (answer.status, answer.json["user_id"]) == (200, odd.id)


@every_user_id
def test_history_can_be_fetched_and_read(odd: Person, alice: Person) -> None:
    odd.enrol()
    stored = odd.connect_with(**with_bearer(odd)).store(alice.id)
    page = alice.rest.get(f"/api/messages/{segment(odd.id)}").json
    assert [message["id"] for message in page["messages"]] == [stored["id"]]
    path = f"/api/messages/{segment(odd.id)}/read"
    assert alice.rest.post(path, {"up_to": stored["seq"] + 100}).json == {"read": 1}


@every_user_id
def test_a_conversation_can_have_such_an_id(odd: Person, alice: Person, bob: Person) -> None:
    stored = alice.connect().store(bob.id, conversation_id=odd.id)
    page = bob.rest.get(f"/api/conversations/{segment(odd.id)}/messages").json
    assert [message["id"] for message in page["messages"]] == [stored["id"]]


def test_ids_that_look_alike_are_different_users(people: People, alice: Person) -> None:
    alike = ["Casey", "casey", "casey ", " casey", "cas\u00e9y", "case\u0301y", "cas\u0435y"]
    ours = alice.connect()
    persons = [people.named(user_id).enrol() for user_id in alike]
    sent = [ours.store(person.id)["id"] for person in persons]
    found = [[frame["id"] for frame in person.connect().drain()] for person in persons]
    assert found == [[message_id] for message_id in sent]


def test_a_path_may_hold_an_id_that_is_too_long(alice: Person) -> None:
    for path in [f"/api/keys/{'x' * 256}", f"/api/messages/{'x' * 256}"]:
        assert alice.rest.get(path).status in (200, 400, 404)


@pytest.mark.parametrize("path", ["/api/keys/%00", "/api/keys/%FF", "/api/messages/a%00b"])
def test_a_path_that_is_no_text_is_no_fault(alice: Person, path: str) -> None:
    assert alice.rest.get(path).status in (200, 400, 404)


def test_a_user_id_with_a_nul_is_no_fault(people: People) -> None:
    answer = people.named("nul\x00nul").rest.get("/api/conversations")
    assert answer.status in (200, 401)
