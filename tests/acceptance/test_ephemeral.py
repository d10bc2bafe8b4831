"""What is not stored: typing, ping, the token's end and its renewal (docs/protocol.md 3, 5)."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.client import ConnectionLost, SocketClient
from tests.acceptance.conftest import JWT_SECRET_KEY
from tests.acceptance.people import People, Person
from tests.acceptance.tokens import claims_of, sign
from tests.acceptance.wire import Frame, to_time


def typing(to: Person, **members: object) -> Frame:
    return {"type": "typing", "to": to.id, "active": True, **members}


def seconds_left(client: SocketClient) -> float:
    """Until the token of this connection ends, by its hello."""
    return (to_time(client.hello["expires_at"]) - datetime.now(UTC)).total_seconds()


def test_typing_reaches_every_live_connection_of_the_other(alice: Person, bob: Person) -> None:
    ours, phone, laptop = alice.connect(), bob.connect(), bob.connect()
    ours.send_frame(typing(bob, conversation_id="c"))
    expected = {"type": "typing", "sender": alice.id, "conversation_id": "c", "active": True}
    assert phone.expect("typing") == laptop.expect("typing") == expected
    ours.send_frame(typing(bob, active=False))
    assert phone.expect("typing") == {**expected, "conversation_id": None, "active": False}


def test_typing_is_not_stored(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    ours.send_frame(typing(bob))
    ours.round_trip()
    assert bob.connect().hello["head"] == 0


def test_typing_does_not_come_back(alice: Person, bob: Person) -> None:
    here, there, theirs = alice.connect(), alice.connect(), bob.connect()
    here.send_frame(typing(bob))
    theirs.expect("typing")
    for client in (here, there):
        client.round_trip()
        client.assert_silent(0.1)


def test_a_flood_of_typing_is_dropped_before_it_reaches_the_other(
    alice: Person, bob: Person
) -> None:
    ours, theirs = alice.connect(), bob.connect()
    theirs.expect("caught_up")
    began = time.monotonic()
    for _ in range(2_000):
        ours.send_frame(typing(bob))
    ours.round_trip()
    lasted = time.monotonic() - began
    got = [frame["type"] for frame in theirs.frames_before_pong()]
    assert set(got) == {"typing"}
    assert len(got) <= 256 + 20 * lasted + 1


def test_typing_to_somebody_unknown_does_no_harm(people: People, alice: Person) -> None:
    ours = alice.connect()
    ours.send_frame(typing(people.new("nobody")))
    assert {frame["type"] for frame in ours.frames_before_pong()} <= {"caught_up", "error"}


@pytest.mark.parametrize("ref", ["", "1", "ünï→😀", "x" * 100], ids=ascii)
def test_a_ping_gets_a_pong_with_its_ref(alice: Person, ref: str) -> None:
    client = alice.connect()
    client.send_frame({"type": "ping", "ref": ref})
    assert client.expect("pong") == {"type": "pong", "ref": ref}


def test_a_ping_without_ref_gets_a_pong(alice: Person) -> None:
    client = alice.connect()
    client.send_frame({"type": "ping"})
    assert client.expect("pong") == {"type": "pong", "ref": None}


def test_pongs_keep_the_order_of_their_pings(alice: Person) -> None:
    client = alice.connect()
    refs = [str(number) for number in range(100)]
    for ref in refs:
        client.send_frame({"type": "ping", "ref": ref})
    assert [client.expect("pong")["ref"] for _ in refs] == refs


def test_a_websocket_ping_gets_its_pong(alice: Person) -> None:
    client = alice.connect()
    assert client.socket.ping(b"payload").wait(5)


def test_a_fragmented_message_is_one_frame(alice: Person) -> None:
    client = alice.connect()
    client.socket.send(['{"type":"pi', 'ng","ref":', '"in three"}'])
    client.expect("pong", ref="in three")


def test_a_token_that_ends_is_announced_and_closes_with_4401(alice: Person) -> None:
    client = alice.connect(token=alice.token(expires_in=3))
    left = seconds_left(client)
    start = time.monotonic()
    while time.monotonic() < start + left - 0.7:
        client.round_trip()
    frames = client.expect_close(4401, seconds=5)
    assert -0.7 < time.monotonic() - start - left < 1.5
    warnings = [frame for frame in client.seen if frame["type"] == "expiring"]
    assert [frame["expires_at"] for frame in warnings] == [client.hello["expires_at"]]
    assert {frame["type"] for frame in frames} <= {"expiring", "pong"}


def test_a_client_that_talks_is_closed_at_the_end_of_its_token_too(
    alice: Person, bob: Person
) -> None:
    client = alice.connect(token=alice.token(expires_in=2))
    expires_at = client.hello["expires_at"]
    accepted: list[Frame] = []
    with suppress(ConnectionLost):
        while seconds_left(client) > -3:
            accepted.append(client.store(bob.id))
    assert client.closed_with == 4401
    newest = max(to_time(frame["created_at"]) for frame in accepted)
    assert newest < to_time(expires_at) + timedelta(seconds=1)
    assert bob.connect().hello["head"] in (len(accepted), len(accepted) + 1)


def test_expiring_comes_a_minute_before_the_end(alice: Person) -> None:
    client = alice.connect(token=alice.token(expires_in=63))
    client.round_trip()
    client.assert_silent(0.5)
    warning = client.expect("expiring", seconds=6)
    assert warning["expires_at"] == client.hello["expires_at"]
    assert 57 < seconds_left(client) < 61


def test_a_fresh_token_of_the_same_user_extends_the_connection(alice: Person) -> None:
    client = alice.connect(token=alice.token(expires_in=2))
    left = seconds_left(client)
    fresh = alice.token(expires_in=600)
    client.send_frame({"type": "refresh", "token": fresh})
    refreshed = client.expect("refreshed")
    assert to_time(refreshed["expires_at"]).timestamp() == claims_of(fresh)["exp"]
    client.assert_silent(left + 1.5, but=("caught_up", "expiring"))  # past the first token's end
    client.round_trip()


def test_a_token_of_another_user_closes_with_4403(alice: Person, bob: Person) -> None:
    client = alice.connect()
    client.send_frame({"type": "refresh", "token": bob.token()})
    assert all(frame["type"] == "caught_up" for frame in client.expect_close(4403))


@pytest.mark.parametrize("kind", ["garbage", "forged", "expired", "refresh"])
def test_a_bad_token_refreshes_nothing_and_the_connection_stays(alice: Person, kind: str) -> None:
    client = alice.connect(token=alice.token(expires_in=600))
    claims = claims_of(alice.token())
    token = {
        "garbage": "x.y.z",
        "forged": sign(claims, "another secret that is long enough " * 3),
        "expired": sign({**claims, "exp": int(time.time()) - 10}, JWT_SECRET_KEY),
        "refresh": sign({**claims, "type": "refresh"}, JWT_SECRET_KEY),
    }[kind]
    client.send_frame({"type": "refresh", "token": token})
    assert client.expect("error")["code"] == "unauthorized"
    client.round_trip()


def test_the_client_can_close_and_hears_1000(alice: Person) -> None:
    client = alice.connect()
    client.close()
    assert client.closed_with == 1000
