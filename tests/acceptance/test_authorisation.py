"""Nobody reads, marks or sends for somebody else, by any route or frame (authorisation.py)."""

from __future__ import annotations

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest
from flask import Flask

from flask_e2emsg import E2EMessaging
from flask_e2emsg.protocol.frames import CLIENT_TYPES
from tests.acceptance.authorisation import (
    ANONYMOUS,
    FRAMES,
    RECIPIENT,
    ROLES,
    ROUTES,
    SENDER,
    STRANGER,
    World,
    assert_complete,
    routes_of,
)
from tests.acceptance.client import SocketClient
from tests.acceptance.people import People, Person
from tests.acceptance.rest import HANDSHAKE, Answer, RestClient
from tests.acceptance.wire import Frame, new_content, new_id
from tests.extension.apps import User, json_of, prepared_app, with_messaging
from tests.servers import WebServer

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "PURGE")
FILLED = {
    "<e2emsg_id:user_id>": "somebody",
    "<e2emsg_id:contact_id>": "somebody",
    "<e2emsg_id:conversation_id>": "some-room",
}


@pytest.fixture
def world(people: People) -> World:
    sender, recipient, stranger = (people.new(name).enrol() for name in ROLES[:0:-1])
    return World.of(sender, recipient, stranger)


def an_app() -> Flask:
    app, db = prepared_app()
    E2EMessaging().init_app(app, db)
    return app


# The table is complete.


def test_every_route_has_its_row() -> None:
    assert_complete(routes_of(an_app()), ROUTES, "ROUTES")


def test_every_frame_of_a_client_has_its_row() -> None:
    assert_complete(CLIENT_TYPES, FRAMES, "FRAMES")


def test_a_new_route_without_a_row_is_noticed() -> None:
    app = an_app()
    app.add_url_rule("/api/export", "e2emsg.export", lambda: "all", methods=["GET"])
    with pytest.raises(AssertionError, match=r"'/api/export'.* is not in ROUTES .*add a row"):
        assert_complete(routes_of(app), ROUTES, "ROUTES")


def test_a_new_method_or_frame_without_a_row_is_noticed() -> None:
    app = an_app()
    app.add_url_rule("/api/messages", "e2emsg.wipe", lambda: "", methods=["DELETE"])
    with pytest.raises(AssertionError, match="DELETE"):
        assert_complete(routes_of(app), ROUTES, "ROUTES")
    with pytest.raises(AssertionError, match=r"'export'.* is not in FRAMES .*add a row"):
        assert_complete([*CLIENT_TYPES, "export"], FRAMES, "FRAMES")


# Routes.


def call(world: World, role: str, method: str, target: str, body: object = None) -> Answer:
    person = world.person(role)
    rest = RestClient(world.sender.server.url) if person is None else person.rest
    return rest.call(method, target, None if body is None else json.dumps(body).encode())


@pytest.mark.parametrize("key", ROUTES, ids=" ".join)
def test_a_route_does_for_each_role_what_its_row_says(world: World, key: tuple[str, str]) -> None:
    (method, _), row = key, ROUTES[key]
    attempts = [(who, target) for who in ROLES for target in row.targets(world, who)]
    for role, target in attempts:
        body = None if row.body is None else {**world.claims(), **row.body(world, role)}
        answer = call(world, role, method, target, body)
        expected = (row.other_status or {}).get(role, row.status)
        assert answer.status == (401 if role == ANONYMOUS else expected), (role, answer.body)
        assert world.is_shown_in(answer.body.decode()) == (role in row.shows), role
        assert bool(world.receipts()) == (role in row.marks), role


@pytest.mark.parametrize(
    "key", [key for key, row in ROUTES.items() if row.absent is not None], ids=" ".join
)
def test_a_stranger_cannot_tell_what_is_not_theirs_from_what_is_not_there(
    world: World, key: tuple[str, str]
) -> None:
    (method, _), row = key, ROUTES[key]
    assert row.absent is not None
    body = None if row.body is None else row.body(world, STRANGER)
    [absent] = row.absent(world, STRANGER)
    nobodys = call(world, STRANGER, method, absent, body)
    for target in row.targets(world, STRANGER):
        theirs = call(world, STRANGER, method, target, body)
        assert (theirs.status, theirs.body) == (nobodys.status, nobodys.body)
        assert theirs.headers.keys() == nobodys.headers.keys()


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_other_methods_get_a_405_and_never_data(people: People, path: str) -> None:
    somebody, target = people.new().enrol(), path
    for name, text in FILLED.items():
        target = target.replace(name, text)
    # Not only those of its own rows: the history of a user called `somebody/read` is a GET.
    allowed = set(an_app().url_map.bind("a-host").allowed_methods(target))
    assert {method for method, other in ROUTES if other == path} <= allowed
    for method in (method for method in METHODS if method not in allowed):
        for rest in (somebody.rest, RestClient(somebody.server.url)):
            answer = rest.call(method, target)
            assert answer.refused(405, "bad_request")
            assert set(answer.headers["allow"].split(", ")) == allowed
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", sorted(path for method, path in ROUTES if method == "GET"))
def test_head_asks_for_a_token_like_get_and_has_no_body(world: World, path: str) -> None:
    target = ROUTES["GET", path].targets(world, RECIPIENT)[0]
    for token in (None, world.recipient.token()):
        status, body = head(world.sender.server, target, token)
        assert status == (401 if token is None else ROUTES["GET", path].status)
        assert body == b""


def head(server: WebServer, target: str, token: str | None) -> tuple[int, bytes]:
    """The status of a HEAD, and every byte after the headers."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection.request("HEAD", target, headers={**headers, "Connection": "close"})
    sock = connection.sock
    assert sock is not None
    received = b""
    while more := sock.recv(4096):
        received += more
    connection.close()
    first, _, body = received.partition(b"\r\n\r\n")
    return int(first.split(b" ")[1]), body


# Frames.


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_does_for_each_role_what_its_row_says(world: World, kind: str) -> None:
    row = FRAMES[kind]
    listener = world.recipient.connect()
    listener.message(world.message_id)
    for role in (STRANGER, SENDER, RECIPIENT):
        person = world.person(role)
        assert person is not None
        client = person.connect()
        client.expect("caught_up")
        frame = {**world.claims(), **row.frame(world, role), "type": kind}
        answers = [one for one in answers_to(client, frame, person) if one["type"] != row.reaches]
        assert_answered(answers, (row.other_answer or {}).get(role, row.answer), role)
        assert_reached(listener, person, row.reaches)
        assert bool(world.receipts()) == (role in row.marks), role


def answers_to(client: SocketClient, frame: Frame, person: Person) -> list[Frame]:
    """What a connection is told until a frame, and what it asked for, is done."""
    before = len(client.seen)
    client.send_frame(frame)
    # Both of these are committed after it, by whichever of the committers.
    settled = client.send(person.id)
    client.answer(settled)
    assert person.rest.post("/api/sync/ack", {"seq": 0}).status == 200
    others = ("message", "receipt", "caught_up")
    return [
        one
        for one in client.seen[before:]
        if one["type"] not in others and one.get("id") != settled
    ]


def assert_answered(answers: list[Frame], expected: str | None, role: str) -> None:
    kinds = [one["type"] for one in answers]
    assert kinds == ([] if expected is None else [expected]), (role, answers)


def assert_reached(listener: SocketClient, by: Person, kind: str | None) -> None:
    """The recipient got one thing of this kind, in the name of who sent it, or nothing."""
    if kind is not None:
        assert listener.expect(kind)["sender"] == by.id
    others = [one["type"] for one in listener.frames_before_pong()]
    assert set(others) <= {"message", "caught_up"}, others


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_without_a_token_is_never_read(world: World, kind: str) -> None:
    frame = {**world.claims(), "to": world.recipient.id, "type": kind}
    if kind != "refresh":
        frame |= FRAMES[kind].frame(world, ANONYMOUS)
    listener = world.recipient.connect()
    listener.message(world.message_id)
    received = handshake_and_frame(world.sender.server, json.dumps(frame).encode())
    assert received.startswith(b"HTTP/1.1 401 ")
    assert b"HTTP/1.1 101" not in received
    listener.round_trip()
    assert not world.receipts()
    kinds = [frame["type"] for frame in listener.seen if frame["type"] != "caught_up"]
    assert kinds == ["hello", "message", "pong"]


def handshake_and_frame(server: WebServer, text: bytes) -> bytes:
    """All that comes back to a handshake without a token that is followed at once by a frame."""
    lines = ["GET /api/ws HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in HANDSHAKE)]
    request = "\r\n".join([*lines, "", ""]).encode()
    # A mask of zeros leaves the text as it is.
    frame = b"\x81" + bytes([0x80 | 126]) + len(text).to_bytes(2, "big") + bytes(4) + text
    address = urlsplit(server.url)
    received = b""
    with socket.create_connection((str(address.hostname), address.port or 80), 10) as connection:
        connection.sendall(request + frame)
        connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(65536):
            received += more
    return received


def test_receipts_reach_the_sender_alone(world: World) -> None:
    sender, stranger = world.sender.connect(), world.stranger.connect()
    reader, other_device = world.recipient.connect(), world.recipient.connect()
    reader.message(world.message_id)
    reader.ack()
    reader.send_frame({"type": "read", "ids": [world.message_id]})
    for kind in ("delivered", "read"):
        [receipt] = sender.receipts(kind, [world.message_id])
        assert receipt["by"] == world.recipient.id
    for client in (stranger, reader, other_device):
        client.round_trip()
        assert "receipt" not in [frame["type"] for frame in client.seen]


def test_a_typing_notice_reaches_the_recipient_alone(world: World) -> None:
    sender, stranger = world.sender.connect(), world.stranger.connect()
    recipient = world.recipient.connect()
    notice = {"to": world.recipient.id, "active": True, "conversation_id": world.conversation_id}
    sender.send_frame({"type": "typing", **notice})
    recipient.expect("typing", sender=world.sender.id)
    for client in (stranger, sender):
        client.round_trip()
        assert "typing" not in [frame["type"] for frame in client.seen]


def test_members_that_claim_another_sender_change_nothing(world: World) -> None:
    client = world.stranger.connect()
    ids = [new_id() for _ in range(3)]
    content = {"to": world.recipient.id, "encrypted_content": new_content()}
    first, second, third = ({**world.claims(), "id": one, **content} for one in ids)
    client.send_frame({**first, "type": "send"})
    client.accepted(ids[0])
    client.send_frame({**world.claims(), "type": "send_many", "ref": 1, "messages": [second]})
    client.expect("accepted", ref=1)
    posted = world.stranger.rest.call(
        "POST", f"/api/messages?user_id={world.sender.id}", json.dumps(third).encode()
    )
    assert posted.status == 201
    of_stranger, of_sender = (
        world.recipient.rest.get(f"/api/messages/{person.id}", after=0).json["messages"]
        for person in (world.stranger, world.sender)
    )
    assert [message["id"] for message in of_stranger] == ids
    assert {message["sender"] for message in of_stranger} == {world.stranger.id}
    assert [message["id"] for message in of_sender] == [world.message_id]


def test_a_ticket_is_the_callers_whomever_it_asks_for(world: World) -> None:
    answer = world.stranger.rest.post("/api/ws-ticket", world.claims())
    ticket = answer.json["ticket"]
    client = world.stranger.connect_with(query={"ticket": ticket, "user_id": world.sender.id})
    assert client.hello["user_id"] == world.stranger.id


def test_a_key_is_published_for_the_caller_whomever_it_names(world: World) -> None:
    before = world.stranger.rest.get(f"/api/keys/{world.sender.id}").json
    key = {"public_key": new_content(32), **world.claims()}
    assert world.stranger.rest.post("/api/keys", key).json["user_id"] == world.stranger.id
    assert world.stranger.rest.get(f"/api/keys/{world.sender.id}").json == before


def test_a_user_who_was_forgotten_is_like_one_who_never_was() -> None:
    e2emsg, (app, db) = E2EMessaging(), prepared_app()
    with_messaging(app, db, e2emsg)
    alice, bob = User(app, "alice"), User(app, "bob")
    assert (alice.publish_key().status_code, bob.publish_key().status_code) == (200, 200)
    assert alice.send("bob").status_code == 201
    with app.app_context():
        assert e2emsg.forget_user("alice")
    for path in ("/messages/{}", "/keys/{}"):
        forgotten, never = (bob.get(path.format(name)) for name in ("alice", "zoe"))
        assert (forgotten.status_code, forgotten.data) == (never.status_code, never.data)
    assert json_of(bob.get("/conversations")) == []
    refusals = [json_of(bob.send(name)) for name in ("alice", "zoe")]
    assert refusals[0] == refusals[1]


def test_a_method_of_the_hosts_own_paths_is_answered_by_the_host(server: WebServer) -> None:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    connection.request("DELETE", "/token")
    response = connection.getresponse()
    assert response.status == 405
    assert "html" in response.headers["Content-Type"]
    connection.close()
