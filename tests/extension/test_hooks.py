"""What the extension tells host code and does for it, on a real server with live sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.acceptance.client import ConnectionLost, SocketClient
from tests.acceptance.people import People, Person
from tests.acceptance.rest import HANDSHAKE, RestClient, raw_get
from tests.acceptance.wire import new_content, new_id
from tests.servers import GunicornServer, WebServer, run_once, wait_until

Facts = dict[str, Any]
SECONDS = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("hooks")
    env = {
        "DATABASE_URL": f"sqlite:///{folder / 'database.sqlite'}",
        "JWT_SECRET_KEY": "tests of hooks only, long enough for HS256",
    }
    run_once("tests.extension.host", "create", env=env)
    app, log_path = "tests.extension.host:create_app()", folder / "server.log"
    with GunicornServer(app, env=env, log_path=log_path) as running:
        yield running


@pytest.fixture
def people(server: WebServer) -> Iterator[People]:
    with People(server) as crowd:
        yield crowd


@pytest.fixture
def alice(people: People) -> Person:
    return people.new("alice").enrol()


@pytest.fixture
def bob(people: People) -> Person:
    return people.new("bob").enrol()


class Host:
    """The host's own view of what goes on."""

    def __init__(self, server: WebServer) -> None:
        self._rest = RestClient(server.url)

    def heard(self, what: str, **facts: object) -> list[Facts]:
        """What a callback or signal was told, as far as it has these facts."""
        everything: list[Facts] = self._rest.get("/heard").json
        wanted = {"what": what, "app": "the_host", **facts}
        return [one for one in everything if wanted.items() <= one.items()]

    def wait_for(self, what: str, count: int = 1, **facts: object) -> list[Facts]:
        """The same, once it is so many times."""

        def is_there() -> bool:
            return len(self.heard(what, **facts)) >= count

        wait_until(is_there, SECONDS, lambda: f"{what} {facts}: {self.heard(what)}")
        found = self.heard(what, **facts)
        assert len(found) == count, found
        return found

    def ask(self, call: str, *arguments: object) -> Any:
        """What a function of the extension answers host code."""
        answer = self._rest.post("/ask", {"call": call, "arguments": arguments})
        assert answer.status == 200, answer.body
        return answer.json["answer"]


@pytest.fixture
def host(server: WebServer) -> Host:
    return Host(server)


def settle(host: Host, people: People) -> None:
    """Wait until everything that was told before has been heard: one after the other it comes."""
    marker = people.new("marker")
    marker.connect().close()
    host.wait_for("user_disconnected", user_id=marker.id)


# authorize_send


def test_the_host_is_asked_who_may_write_to_whom(host: Host, alice: Person, bob: Person) -> None:
    alice.connect().store(bob.id, conversation_id="room")
    [asked] = host.heard("authorize_send", sender=alice.id)
    assert (asked["recipient"], asked["conversation_id"]) == (bob.id, "room")


def test_what_the_host_forbids_is_neither_stored_nor_delivered(
    host: Host, people: People, alice: Person
) -> None:
    closed = people.new("closed").enrol()
    ours, theirs = alice.connect(), closed.connect()
    message_id = ours.send(closed.id)
    refused = ours.error("unknown_recipient", ref=message_id)
    nobody = ours.error("unknown_recipient", ref=ours.send("nobody at all"))
    assert {**refused, "ref": None} == {**nobody, "ref": None}
    answer = alice.rest.post(
        "/api/messages", {"id": new_id(), "to": closed.id, "encrypted_content": new_content()}
    )
    assert answer.refused(404, "unknown_recipient")
    ours.send_frame({"type": "typing", "to": closed.id, "active": True})
    ours.round_trip()
    theirs.round_trip()
    theirs.assert_silent(0.1)
    assert closed.rest.get(f"/api/messages/{alice.id}").json["messages"] == []
    settle(host, people)
    assert host.heard("message_stored", recipient_id=closed.id) == []
    assert host.heard("on_undelivered", user_id=closed.id) == []


def test_of_several_messages_the_forbidden_one_is_named_and_none_is_stored(
    people: People, alice: Person, bob: Person
) -> None:
    closed, ours = people.new("closed").enrol(), alice.connect()
    items = [
        {"id": new_id(), "to": to, "encrypted_content": new_content()} for to in (bob.id, closed.id)
    ]
    ours.send_frame({"type": "send_many", "ref": "group", "messages": items})
    assert ours.error("unknown_recipient", ref="group")["id"] == items[1]["id"]
    assert bob.rest.get(f"/api/messages/{alice.id}").json["messages"] == []


def test_a_callback_that_fails_lets_nothing_through(people: People, alice: Person) -> None:
    broken, ours = people.new("broken").enrol(), alice.connect()
    ours.send(broken.id)
    ours.expect_close(1011)
    assert broken.rest.get(f"/api/messages/{alice.id}").json["messages"] == []
    alice.connect().round_trip()


# user_is_active


def test_the_host_is_asked_whenever_a_token_is_accepted(host: Host, people: People) -> None:
    person = people.new()
    person.connect()
    assert person.rest.get("/api/conversations").status == 200
    paths = {asked["path"] for asked in host.heard("user_is_active", user_id=person.id)}
    assert paths == {"/api/ws", "/api/conversations"}


def test_for_an_inactive_user_a_good_token_is_as_bad_as_none(host: Host, people: People) -> None:
    person = people.new()
    token = person.token()
    host.ask("deactivate", person.id)
    url, bearer = person.server.url, ("Authorization", f"Bearer {token}")
    nobody = raw_get(url, "/api/ws", HANDSHAKE)
    for target, headers in [
        ("/api/ws", [*HANDSHAKE, bearer]),
        (f"/api/ws?token={token}", HANDSHAKE),
        ("/api/ws", [bearer]),
        ("/api/conversations", [bearer]),
        ("/api/session", [bearer]),
    ]:
        answer = raw_get(url, target, headers)
        assert (answer.status, answer.body, answer.after) == (401, nobody.body, b"")


def test_an_inactive_user_cannot_extend_a_connection(host: Host, people: People) -> None:
    person = people.new()
    client, fresh = person.connect(), person.token()
    host.ask("deactivate", person.id)
    with suppress(ConnectionLost):  # It may be over already.
        client.send_frame({"type": "refresh", "token": fresh})
    frames = client.expect_close(4401, seconds=1)
    assert "refreshed" not in [frame["type"] for frame in frames]


def test_an_inactive_user_cannot_use_a_ticket_that_it_had_before(
    host: Host, people: People
) -> None:
    person = people.new()
    ticket = person.rest.post("/api/ws-ticket", {}).json["ticket"]
    host.ask("deactivate", person.id)
    assert raw_get(person.server.url, f"/api/ws?ticket={ticket}", HANDSHAKE).status == 401


# on_undelivered


def test_the_host_hears_of_each_message_for_somebody_who_is_away(
    host: Host, people: People, alice: Person, bob: Person
) -> None:
    ours = alice.connect()
    for _ in range(2):
        ours.store(bob.id)
    host.wait_for("on_undelivered", 2, user_id=bob.id)
    settle(host, people)
    assert host.heard("on_undelivered", user_id=alice.id) == []


def test_the_host_does_not_hear_of_messages_for_somebody_who_is_there(
    host: Host, people: People, alice: Person, bob: Person
) -> None:
    ours, theirs = alice.connect(), bob.connect()
    accepted = ours.store(bob.id)
    theirs.message(accepted["id"])
    theirs.ack()
    ours.receipts("delivered", [accepted["id"]])
    settle(host, people)
    assert host.heard("on_undelivered", user_id=bob.id) == []


def test_a_receipt_for_somebody_who_is_away_is_no_news(
    host: Host, people: People, alice: Person, bob: Person
) -> None:
    ours, theirs = alice.connect(), bob.connect()
    accepted = ours.store(bob.id)
    theirs.message(accepted["id"])
    ours.close()
    theirs.ack()
    host.wait_for("message_delivered", sender_id=alice.id)
    settle(host, people)
    assert host.heard("on_undelivered", user_id=alice.id) == []


def test_a_callback_that_fails_does_not_stop_the_next_one(
    host: Host, people: People, alice: Person, bob: Person
) -> None:
    faulty, ours = people.new("fault").enrol(), alice.connect()
    ours.store(faulty.id)
    ours.store(bob.id)
    host.wait_for("on_undelivered", user_id=faulty.id)
    host.wait_for("on_undelivered", user_id=bob.id)


# Signals


def test_a_stored_message_is_signalled_once_with_its_facts(
    host: Host, people: People, alice: Person, bob: Person
) -> None:
    ours, message_id, content = alice.connect(), new_id(), new_content()
    for _ in range(2):
        ours.store(bob.id, content, message_id=message_id, conversation_id="room")
    [signalled] = host.wait_for("message_stored", sender_id=alice.id)
    assert signalled == {
        "what": "message_stored",
        "app": "the_host",
        "app_is_sender": True,
        "message_id": message_id,
        "sender_id": alice.id,
        "recipient_id": bob.id,
        "conversation_id": "room",
    }
    settle(host, people)
    host.wait_for("message_stored", sender_id=alice.id)


def test_receivers_may_be_written_as_flask_documents_them(
    host: Host, alice: Person, bob: Person
) -> None:
    accepted = alice.connect().store(bob.id)
    host.wait_for("message_stored", message_id=accepted["id"])
    host.wait_for("conventional receiver", message_id=accepted["id"])


def test_each_of_several_messages_is_signalled(host: Host, alice: Person, bob: Person) -> None:
    ours = alice.connect()
    items = [
        {"id": new_id(), "to": to, "encrypted_content": new_content()} for to in (bob.id, alice.id)
    ]
    ours.send_frame({"type": "send_many", "ref": 1, "messages": items})
    ours.expect("accepted", ref=1)
    signalled = host.wait_for("message_stored", 2, sender_id=alice.id)
    assert {one["message_id"] for one in signalled} == {item["id"] for item in items}


def test_a_delivery_is_signalled_with_the_messages_that_it_is_of(
    host: Host, alice: Person, bob: Person
) -> None:
    ours = alice.connect()
    ids = [ours.store(bob.id)["id"] for _ in range(3)]
    theirs = bob.connect()
    theirs.drain()
    ours.receipts("delivered", ids)

    def delivered() -> list[str]:
        signalled = host.heard("message_delivered", sender_id=alice.id, recipient_id=bob.id)
        return [message_id for one in signalled for message_id in one["message_ids"]]

    wait_until(lambda: len(delivered()) >= 3, SECONDS, lambda: str(delivered()))
    assert sorted(delivered()) == sorted(ids)


def test_reading_is_no_delivery(host: Host, people: People, alice: Person, bob: Person) -> None:
    ours, theirs = alice.connect(), bob.connect()
    accepted = ours.store(bob.id)
    theirs.message(accepted["id"])
    theirs.ack()
    ours.receipts("delivered", [accepted["id"]])
    theirs.send_frame({"type": "read", "ids": [accepted["id"]]})
    ours.receipts("read", [accepted["id"]])
    settle(host, people)
    host.wait_for("message_delivered", sender_id=alice.id)


@pytest.mark.parametrize("end", [SocketClient.close, SocketClient.abandon])
def test_every_connection_is_signalled_at_its_beginning_and_at_its_end(
    host: Host, people: People, end: Callable[[SocketClient], None]
) -> None:
    person = people.new()
    first, second = person.connect(), person.connect()
    connected = host.wait_for("user_connected", 2, user_id=person.id)
    assert {one["connection_id"] for one in connected} == {
        client.hello["connection_id"] for client in (first, second)
    }
    assert host.heard("user_disconnected", user_id=person.id) == []
    end(first)
    [gone] = host.wait_for("user_disconnected", user_id=person.id)
    assert gone["connection_id"] == first.hello["connection_id"]
    second.round_trip()


def test_a_refused_handshake_is_no_connection(host: Host, people: People) -> None:
    person = people.new()
    headers = [*HANDSHAKE, ("Authorization", f"Bearer {person.token()}")]
    assert raw_get(person.server.url, "/api/ws?cursor=bad", headers).status == 400
    assert raw_get(person.server.url, "/api/ws", headers[-1:]).status == 426
    settle(host, people)
    assert host.heard("user_connected", user_id=person.id) == []
    assert host.heard("user_disconnected", user_id=person.id) == []


# send_event, disconnect, forget_user


def test_an_event_reaches_every_socket_of_its_user_and_nobody_else(
    host: Host, alice: Person, bob: Person
) -> None:
    sockets, other = [alice.connect(), alice.connect()], bob.connect()
    data = {"count": 3, "names": ["é", None]}
    assert host.ask("send_event", alice.id, "news", data) == 2
    for client in sockets:
        assert client.expect("event", name="news")["data"] == data
    other.round_trip()
    assert [frame for frame in other.seen if frame["type"] == "event"] == []


def test_an_event_for_somebody_who_is_away_reaches_nobody(host: Host, bob: Person) -> None:
    assert host.ask("send_event", bob.id, "news") == 0
    client = bob.connect()
    client.round_trip()
    assert [frame for frame in client.seen if frame["type"] == "event"] == []


def test_disconnecting_a_user_closes_all_its_sockets(
    host: Host, alice: Person, bob: Person
) -> None:
    sockets, other = [alice.connect(), alice.connect()], bob.connect()
    assert host.ask("disconnect", alice.id) == 2
    for client in sockets:
        client.expect_close(4401)
    other.round_trip()
    wait_until(lambda: host.ask("disconnect", alice.id) == 0, SECONDS, lambda: "still there")
    alice.connect().round_trip()


def test_forgetting_a_user_deletes_what_is_the_users_and_closes_its_sockets(
    host: Host, alice: Person, bob: Person
) -> None:
    ours, theirs = alice.connect(), bob.connect()
    accepted = ours.store(bob.id)
    theirs.message(accepted["id"])
    old_epoch = ours.hello["epoch"]
    assert host.ask("forget_user", alice.id) is True
    ours.expect_close(4403)
    theirs.round_trip()
    assert alice.rest.get(f"/api/keys/{alice.id}").refused(404, "not_found")
    assert bob.rest.get(f"/api/messages/{alice.id}").json["messages"] == []
    assert host.ask("forget_user", alice.id) is False
    again = alice.connect()
    assert (again.hello["head"], again.hello["epoch"] == old_epoch) == (0, False)


# connections


def test_host_code_sees_who_is_there(host: Host, alice: Person, bob: Person) -> None:
    def seen(person: Person) -> tuple[bool, int, bool]:
        listed = person.id in host.ask("users")
        return host.ask("is_online", person.id), host.ask("count", person.id), listed

    assert seen(alice) == seen(bob) == (False, 0, False)
    everybody = host.ask("count")
    first, second = alice.connect(), alice.connect()
    bob.connect()
    assert (seen(alice), seen(bob)) == ((True, 2, True), (True, 1, True))
    assert host.ask("count") == everybody + 3
    first.close()
    wait_until(lambda: seen(alice) == (True, 1, True), SECONDS, lambda: str(seen(alice)))
    second.abandon()
    wait_until(lambda: seen(alice) == (False, 0, False), SECONDS, lambda: str(seen(alice)))
    assert seen(bob) == (True, 1, True)


def test_a_plain_request_is_no_connection(host: Host, people: People) -> None:
    person = people.new()
    assert person.rest.get("/api/sync").status == 200
    assert host.ask("is_online", person.id) is False


def test_no_callback_or_signal_left_a_traceback_but_those_that_were_made_to_fail(
    server: WebServer,
) -> None:
    tracebacks = server.log().count("Traceback")
    assert tracebacks == server.log().count("a callback of the host failed")
