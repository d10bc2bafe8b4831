"""Messages, history, conversations and reading by REST (docs/protocol.md 7)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.people import People, Person
from tests.acceptance.rest import Answer, RestClient, segment
from tests.acceptance.wire import (
    HISTORY_MESSAGE,
    Check,
    Frame,
    check_members,
    is_flag,
    is_position,
    is_text,
    is_time,
    is_user_id,
    is_uuid,
    new_content,
    new_id,
    optional,
)

STORED: dict[str, Check] = {"id": is_uuid, "created_at": is_time, "duplicate": is_flag}


def body_to(recipient: Person, **members: Any) -> Frame:
    """A `send` frame's members."""
    return {"id": new_id(), "to": recipient.id, "encrypted_content": new_content(), **members}


def post(sender: Person, body: Frame) -> Answer:
    answer = sender.rest.post("/api/messages", body)
    if answer.status in (200, 201):
        check_members(answer.json, STORED, "stored message")
    return answer


def history(reader: Person, contact: Person, **query: object) -> Frame:
    """One page of the history with a contact, checked to the member."""
    return check_page(reader.rest.get(f"/api/messages/{segment(contact.id)}", **query))


def check_page(answer: Answer) -> Frame:
    assert answer.status == 200, answer.body
    page: Frame = answer.json
    check_members(
        page,
        {
            "messages": lambda value: isinstance(value, list),
            "next": optional(is_position),
            "has_more": is_flag,
        },
        "page",
    )
    for message in page["messages"]:
        # `type` may stand there: each is a frame's members.
        members = {name: value for name, value in message.items() if name != "type"}
        check_members(members, HISTORY_MESSAGE, "message of a page")
    if page["has_more"]:
        assert page["next"] is not None
    return page


def ids(page: Frame) -> list[str]:
    return [str(message["id"]) for message in page["messages"]]


def exchange(alice: Person, bob: Person, count: int) -> list[str]:
    """Messages in turn, the first by alice; their ids in the order of storing."""
    ours, theirs = alice.connect(), bob.connect()
    sent = []
    for number in range(count):
        sender, recipient = (ours, bob) if number % 2 == 0 else (theirs, alice)
        sent.append(str(sender.store(recipient.id)["id"]))
    return sent


def test_a_posted_message_is_answered_201_and_delivered(alice: Person, bob: Person) -> None:
    theirs, body = bob.connect(), body_to(bob, conversation_id="c", expires_in=60)
    answer = post(alice, body)
    assert (answer.status, answer.json["id"]) == (201, body["id"])
    assert answer.json["duplicate"] is False
    received = theirs.message(body["id"])
    assert received["encrypted_content"] == body["encrypted_content"]
    assert (received["sender"], received["conversation_id"]) == (alice.id, "c")
    assert received["created_at"] == answer.json["created_at"]
    assert received["expires_at"] is not None


def test_a_message_posted_again_is_answered_200(alice: Person, bob: Person) -> None:
    body = body_to(bob)
    first, again = post(alice, body), post(alice, body)
    assert (first.status, again.status) == (201, 200)
    assert again.json == {**first.json, "duplicate": True}
    assert bob.connect().hello["head"] == 1


def test_rest_and_socket_share_the_idempotency_of_an_id(alice: Person, bob: Person) -> None:
    ours, body = alice.connect(), body_to(bob)
    first = post(alice, body).json
    ours.send(bob.id, body["encrypted_content"], message_id=body["id"])
    assert ours.accepted(body["id"], duplicate=True)["created_at"] == first["created_at"]
    stored = ours.store(bob.id, content := new_content())
    again = post(alice, {"id": stored["id"], "to": bob.id, "encrypted_content": content})
    assert (again.status, again.json["created_at"]) == (200, stored["created_at"])


def test_a_posted_message_reaches_the_senders_own_sockets(alice: Person, bob: Person) -> None:
    ours, body = alice.connect(), body_to(bob)
    post(alice, body)
    assert ours.message(body["id"])["sender"] == alice.id


def test_an_id_posted_with_other_content_is_a_conflict(alice: Person, bob: Person) -> None:
    body = body_to(bob)
    post(alice, body)
    assert post(alice, {**body, "encrypted_content": new_content()}).refused(409, "id_conflict")


def test_a_message_to_somebody_unknown_is_refused(people: People, alice: Person) -> None:
    answer = post(alice, body_to(people.new("nobody")))
    assert 400 <= answer.status < 500
    assert answer.code == "unknown_recipient"


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": "x"},
        {"to": 1},
        {"to": ""},
        {"encrypted_content": "="},
        {"encrypted_content": None},
        {"conversation_id": 1},
        {"expires_in": -1},
    ],
    ids=str,
)
def test_an_invalid_message_is_refused(alice: Person, bob: Person, change: Frame) -> None:
    assert post(alice, {**body_to(bob), **change}).refused(400, "bad_request")
    assert bob.connect().hello["head"] == 0


def test_history_shows_both_directions_newest_first(alice: Person, bob: Person) -> None:
    sent = exchange(alice, bob, 6)
    for reader, contact in ((alice, bob), (bob, alice)):
        page = history(reader, contact)
        assert ids(page) == sent[::-1]
        assert page["has_more"] is False
        positions = [message["position"] for message in page["messages"]]
        assert positions == sorted(positions, reverse=True)


def test_history_names_sender_and_recipient_and_content(alice: Person, bob: Person) -> None:
    content = new_content()
    accepted = alice.connect().store(bob.id, content, conversation_id="c")
    for reader, contact in ((alice, bob), (bob, alice)):
        (message,) = history(reader, contact)["messages"]
        assert (message["sender"], message["recipient"]) == (alice.id, bob.id)
        assert (message["encrypted_content"], message["conversation_id"]) == (content, "c")
        assert message["created_at"] == accepted["created_at"]
        assert message["seq"] == message["position"] == 1
        assert (message["delivered_at"], message["read_at"]) == (None, None)


def test_history_pages_backwards_by_keyset(alice: Person, bob: Person) -> None:
    sent = exchange(alice, bob, 7)
    found: list[str] = []
    page = history(alice, bob, limit=3)
    found += ids(page)
    while page["has_more"]:
        page = history(alice, bob, limit=3, before=page["next"])
        assert 1 <= len(page["messages"]) <= 3
        found += ids(page)
    assert found == sent[::-1]


def test_history_pages_forwards_by_keyset(alice: Person, bob: Person) -> None:
    sent = exchange(alice, bob, 7)
    found: list[str] = []
    page = history(bob, alice, limit=3, after=0)
    found += ids(page)
    while page["has_more"]:
        page = history(bob, alice, limit=3, after=page["next"])
        found += ids(page)
    assert found == sent


def test_history_does_not_shift_when_messages_arrive_while_paging(
    alice: Person, bob: Person
) -> None:
    sent = exchange(alice, bob, 6)
    page = history(alice, bob, limit=3)
    found = ids(page)
    exchange(bob, alice, 4)
    found += ids(history(alice, bob, limit=3, before=page["next"]))
    assert found == sent[::-1]


def test_history_continues_at_any_position(alice: Person, bob: Person) -> None:
    sent = exchange(alice, bob, 5)
    messages = history(alice, bob)["messages"][::-1]
    middle = messages[2]["position"]
    assert ids(history(alice, bob, before=middle)) == sent[1::-1]
    assert ids(history(alice, bob, after=middle)) == sent[3:]


def test_history_holds_fifty_by_default_and_a_hundred_at_most(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    for message_id in [ours.send(bob.id) for _ in range(105)]:
        ours.accepted(message_id)
    page = history(bob, alice)
    assert (len(page["messages"]), page["has_more"]) == (50, True)
    page = history(bob, alice, limit=100)
    assert (len(page["messages"]), page["has_more"]) == (100, True)


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1000000000", "x", "", "1.5", "9" * 30])
def test_a_limit_out_of_range_is_refused_or_capped(alice: Person, bob: Person, limit: str) -> None:
    exchange(alice, bob, 2)
    answer = alice.rest.get(f"/api/messages/{segment(bob.id)}", limit=limit)
    if answer.status == 200:
        assert len(check_page(answer)["messages"]) <= 100
    else:
        assert answer.refused(400, "bad_request")


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize("position", ["x", "-1", "1.5", "0123456789abcdef:1", "\u0661"])
def test_a_malformed_position_is_refused(
    alice: Person, bob: Person, name: str, position: str
) -> None:
    answer = alice.rest.get(f"/api/messages/{segment(bob.id)}", **{name: position})
    assert answer.refused(400, "bad_request")


@pytest.mark.parametrize("name", ["before", "after"])
def test_a_position_far_ahead_is_no_fault(alice: Person, bob: Person, name: str) -> None:
    for position in (2**53, 2**63 - 1, 2**63, 10**40):
        answer = alice.rest.get(f"/api/messages/{segment(bob.id)}", **{name: position})
        assert answer.status in (200, 400)


def test_history_with_a_stranger_is_empty_and_shows_nothing_of_others(
    people: People, alice: Person, bob: Person, carol: Person
) -> None:
    exchange(alice, bob, 2)
    assert history(carol, alice)["messages"] == []
    assert history(carol, bob)["messages"] == []
    unknown = alice.rest.get(f"/api/messages/{segment(people.new().id)}")
    assert unknown.status in (200, 404)
    assert unknown.status == 404 or unknown.json["messages"] == []


def test_history_shows_when_a_message_was_delivered_and_read(alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    message_id = ours.store(bob.id)["id"]
    theirs.message()
    theirs.ack()
    (delivered,) = ours.receipts("delivered", [message_id])
    theirs.send_frame({"type": "read", "ids": [message_id]})
    (read,) = ours.receipts("read", [message_id])
    for reader, contact in ((alice, bob), (bob, alice)):
        (message,) = history(reader, contact)["messages"]
        assert (message["delivered_at"], message["read_at"]) == (delivered["at"], read["at"])


def test_reading_up_to_a_position_marks_everything_below(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    sent = [str(ours.store(bob.id)["id"]) for _ in range(4)]
    up_to = history(bob, alice)["messages"][1]["position"]
    path = f"/api/messages/{segment(alice.id)}/read"
    assert bob.rest.post(path, {"up_to": up_to}).json == {"read": 3}
    ours.receipts("read", sent[:3])
    assert bob.rest.post(path, {"up_to": up_to}).json == {"read": 0}
    assert bob.rest.post(path, {"up_to": up_to + 1}).json == {"read": 1}


def test_reading_marks_only_that_contacts_messages(
    alice: Person, bob: Person, carol: Person
) -> None:
    alice.connect().store(bob.id)
    carol.connect().store(bob.id)
    path = f"/api/messages/{segment(alice.id)}/read"
    assert bob.rest.post(path, {"up_to": 100}).json == {"read": 1}
    assert history(bob, carol)["messages"][0]["read_at"] is None


@pytest.mark.parametrize("up_to", [None, -1, "1", 1.5, True, [], {}], ids=str)
def test_reading_up_to_nonsense_is_refused(alice: Person, bob: Person, up_to: object) -> None:
    path = f"/api/messages/{segment(alice.id)}/read"
    assert bob.rest.post(path, {"up_to": up_to}).refused(400, "bad_request")


def conversations(person: Person, **query: object) -> list[Frame]:
    """The list of conversations, checked to the member."""
    answer = person.rest.get("/api/conversations", **query)
    assert answer.status == 200, answer.body
    found: list[Frame] = answer.json
    for conversation in found:
        check_members(
            conversation,
            {
                "contact_id": is_user_id,
                "conversation_id": optional(is_text),
                "last": lambda value: isinstance(value, dict),
                "unread": lambda value: type(value) is int and value >= 0,
            },
            "conversation",
        )
    return found


def test_conversations_are_listed_newest_first(alice: Person, bob: Person, carol: Person) -> None:
    assert conversations(alice) == []
    hers, theirs = carol.connect(), bob.connect()
    theirs.store(alice.id)
    hers.store(alice.id)
    assert [one["contact_id"] for one in conversations(alice)] == [carol.id, bob.id]
    last = theirs.store(alice.id)
    newest, _ = conversations(alice)
    assert (newest["contact_id"], newest["last"]["id"]) == (bob.id, last["id"])


def test_conversations_count_what_is_unread(alice: Person, bob: Person) -> None:
    exchange(bob, alice, 5)
    assert [one["unread"] for one in conversations(alice)] == [3]
    assert [one["unread"] for one in conversations(bob)] == [2]
    alice.rest.post(f"/api/messages/{segment(bob.id)}/read", {"up_to": 100})
    assert [one["unread"] for one in conversations(alice)] == [0]


def test_conversations_of_a_sender_show_what_was_sent(alice: Person, bob: Person) -> None:
    sent = alice.connect().store(bob.id, conversation_id="c")
    (conversation,) = conversations(alice)
    assert conversation["contact_id"] == bob.id
    assert (conversation["last"]["id"], conversation["unread"]) == (sent["id"], 0)
    assert conversation["conversation_id"] == "c"


def in_conversation(reader: Person, conversation_id: str, **query: object) -> list[str]:
    path = f"/api/conversations/{segment(conversation_id)}/messages"
    answer = reader.rest.get(path, **query)
    return [] if answer.status == 404 else ids(check_page(answer))


def test_a_group_conversation_shows_each_member_what_is_theirs(
    people: People, alice: Person, bob: Person, carol: Person
) -> None:
    conversation_id = f"group/7?x={new_id()}"
    ours = alice.connect()
    messages = [body_to(person) for person in (bob, carol, alice)]
    frame = {"ref": "r", "messages": messages, "conversation_id": conversation_id}
    ours.send_frame({"type": "send_many", **frame})
    ours.expect("accepted", ref="r")
    readers = (bob, carol, alice)
    for reader, message in zip(readers, messages, strict=True):
        assert in_conversation(reader, conversation_id) == [message["id"]]
    assert in_conversation(people.new().enrol(), conversation_id) == []


def test_a_conversation_pages_both_ways(alice: Person, bob: Person) -> None:
    ours, conversation_id = alice.connect(), f"c-{new_id()}"
    sent = [str(ours.store(bob.id, conversation_id=conversation_id)["id"]) for _ in range(5)]
    ours.store(bob.id, conversation_id="another")
    assert in_conversation(bob, conversation_id) == sent[::-1]
    assert in_conversation(bob, conversation_id, limit=2) == sent[:2:-1]
    assert in_conversation(bob, conversation_id, after=0, limit=2) == sent[:2]
    assert in_conversation(bob, conversation_id, before=3) == sent[1::-1]


def test_nothing_here_is_for_the_unauthenticated(alice: Person) -> None:
    nobody = RestClient(alice.server.url)
    for path in ["/api/messages/x", "/api/conversations", "/api/conversations/x/messages"]:
        assert nobody.get(path).refused(401, "unauthorized")
    for path in ["/api/messages", "/api/messages/x/read"]:
        assert nobody.post(path, {}).refused(401, "unauthorized")
