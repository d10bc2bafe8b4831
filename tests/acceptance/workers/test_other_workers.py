"""Who is connected to another worker hears everything, at once.

Two gunicorns share a database and a bus. The sweep, which would find it all as well, comes once a
minute: what is here within a second came through the bus.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from tests.acceptance.client import SocketClient
from tests.acceptance.conftest import Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.rest import RestClient
from tests.servers import GunicornServer, run_once, wait_until

BUSES = ("postgresql", "redis", "redis with sqlite")
AT_ONCE = 1.0
MANY = 100


@pytest.fixture(scope="module", params=BUSES)
def environment(request: pytest.FixtureRequest, hosting: Hosting) -> dict[str, str]:
    settings: dict[str, object] = {"E2EMSG_SWEEP_SECONDS": 60}
    if request.param != "postgresql":
        settings["E2EMSG_BUS_URL"] = request.getfixturevalue("redis").url
    return hosting.environment("sqlite" if "sqlite" in request.param else "postgresql", **settings)


@pytest.fixture
def there(bob: Person, elsewhere: People, here: SocketClient, alice: Person) -> SocketClient:
    """Bob's socket on the other, from when the two workers know of each other."""
    client = elsewhere.named(bob.id).connect()

    def is_heard() -> bool:
        event(alice.server, bob.id, "are you there", None)
        client.round_trip()
        return any(frame["type"] == "event" for frame in client.seen)

    wait_until(is_heard, 10, lambda: "the workers do not hear each other")
    while any(frame["type"] == "event" for frame in client._inbox):
        client.expect("event")
    return client


def event(server: object, user_id: str, name: str, data: object) -> int:
    assert isinstance(server, GunicornServer)
    body = {"name": name, "data": data}
    return int(RestClient(server.url).post(f"/event/{user_id}", body).json["told"])


def test_a_message_arrives_at_once_and_its_receipts_come_back(
    here: SocketClient, there: SocketClient, bob: Person
) -> None:
    began = time.monotonic()
    accepted = here.store(bob.id, "aGVsbG8")
    arrived = there.expect("message", id=accepted["id"], seconds=AT_ONCE)
    assert time.monotonic() - began < AT_ONCE
    there.ack(arrived["seq"])
    here.expect("receipt", kind="delivered", ids=[accepted["id"]], seconds=AT_ONCE)
    there.send_frame({"type": "read", "ids": [accepted["id"]]})
    here.expect("receipt", kind="read", ids=[accepted["id"]], seconds=AT_ONCE)


def test_many_messages_from_both_workers_keep_one_order_without_a_hole(
    here: SocketClient, there: SocketClient, bob: Person, alice: Person, elsewhere: People
) -> None:
    third = elsewhere.named(alice.id).connect()

    def send(client: SocketClient) -> list[str]:
        return [client.send(bob.id) for _ in range(MANY)]

    with ThreadPoolExecutor(2) as threads:
        sent = [message_id for ids in threads.map(send, [here, third]) for message_id in ids]
    for _ in range(2 * MANY):
        there.expect("message")
        there.ack()
    got = [frame["id"] for frame in there.seen if frame["type"] == "message"]
    assert sorted(got) == sorted(sent)
    for ids in (sent[:MANY], sent[MANY:]):
        assert [one for one in got if one in set(ids)] == ids


def test_a_typing_notice_arrives(
    here: SocketClient, there: SocketClient, alice: Person, bob: Person
) -> None:
    here.send_frame({"type": "typing", "to": bob.id, "active": True})
    there.expect("typing", sender=alice.id, active=True, seconds=AT_ONCE)


def test_an_event_of_the_host_arrives_and_is_counted(
    there: SocketClient, alice: Person, bob: Person
) -> None:
    assert event(alice.server, bob.id, "news", {"n": 1}) == 1
    assert there.expect("event", name="news", seconds=AT_ONCE)["data"] == {"n": 1}


def test_equal_events_arrive_each(there: SocketClient, alice: Person, bob: Person) -> None:
    for _ in range(3):
        event(alice.server, bob.id, "again", "x" * 20_000)
    for _ in range(3):
        there.expect("event", name="again", seconds=AT_ONCE)


def test_an_event_as_long_as_a_frame_may_be_arrives_whole(
    there: SocketClient, alice: Person, bob: Person
) -> None:
    text = "".join(chr(0x100 + n % 5000) for n in range(40_000))
    event(alice.server, bob.id, "long", text)
    assert there.expect("event", name="long", seconds=AT_ONCE)["data"] == text


def test_an_event_from_a_process_without_sockets_arrives(
    there: SocketClient, environment: dict[str, str], bob: Person
) -> None:
    run_once("tests.acceptance.telling_host", "event", bob.id, env=environment)
    there.expect("event", name="from_a_task", seconds=AT_ONCE)


def test_disconnect_ends_the_sockets_on_the_other_worker(
    there: SocketClient, alice: Person, bob: Person
) -> None:
    answer = RestClient(alice.server.url).post(f"/disconnect/{bob.id}", {})
    there.expect_close(4401, seconds=AT_ONCE)
    assert answer.json == {"closed": 1}


def test_a_token_that_is_revoked_ends_its_sockets_on_the_other_worker(
    there: SocketClient, elsewhere: People, alice: Person, bob: Person
) -> None:
    [person] = elsewhere._all
    for token in person.tokens:
        RestClient(alice.server.url, token).post("/revoke", {})
    there.expect_close(4401, seconds=AT_ONCE)


def test_a_long_poll_on_the_other_worker_ends_when_a_message_is_stored(
    here: SocketClient, there: SocketClient, elsewhere: People, people: People
) -> None:
    carol = people.new("carol").enrol()
    waiting = elsewhere.named(carol.id).rest
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(waiting.get, "/api/sync", wait=20)
        assert not wait([poll], timeout=AT_ONCE).done, "it has nothing to answer"
        stored = here.store(carol.id)
        assert wait([poll], timeout=AT_ONCE).done, "it was not woken"
        assert [entry["id"] for entry in poll.result().json["entries"]] == [stored["id"]]


def test_who_is_online_is_known_on_both_workers(
    here: SocketClient,
    there: SocketClient,
    server: GunicornServer,
    other: GunicornServer,
    bob: Person,
) -> None:
    seen = RestClient(server.url).get(f"/who/{bob.id}").json
    expected = {"online": True, "count": 1, "here": 0, "listed": True, "listed_here": False}
    assert expected.items() <= seen.items()
    assert seen["everybody"] >= 2
    seen = RestClient(other.url).get(f"/who/{bob.id}").json
    assert {**expected, "here": 1, "listed_here": True}.items() <= seen.items()
    there.close()

    def are_told() -> bool:
        answers = [RestClient(one.url).get(f"/who/{bob.id}").json for one in (server, other)]
        return not any(answer["online"] for answer in answers)

    wait_until(are_told, AT_ONCE, lambda: "still online")


def test_the_host_is_told_of_undelivered_messages_only_for_who_is_nowhere(
    here: SocketClient, there: SocketClient, people: People, alice: Person, bob: Person
) -> None:
    carol = people.new("carol").enrol()
    here.store(bob.id)
    here.store(carol.id)
    told: list[str] = []

    def is_told() -> bool:
        told[:] = RestClient(alice.server.url).get("/undelivered").json
        return carol.id in told

    wait_until(is_told, AT_ONCE, lambda: "nobody was told")
    assert bob.id not in told
