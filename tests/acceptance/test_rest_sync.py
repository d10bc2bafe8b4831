"""`GET /api/sync` and `POST /api/sync/ack`: the socket's twin (docs/protocol.md 7)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.people import People, Person
from tests.acceptance.rest import RestClient
from tests.acceptance.wire import (
    Frame,
    check_frame,
    check_members,
    is_epoch,
    is_flag,
    is_head,
)


def sync(person: Person, **query: object) -> Frame:
    """One call, its frames checked as if they had come over a socket."""
    answer = person.rest.get("/api/sync", **query)
    assert answer.status == 200, answer.body
    found: Frame = answer.json
    check_members(
        found,
        {
            "epoch": is_epoch,
            "head": is_head,
            "reset": is_flag,
            "entries": lambda value: isinstance(value, list),
        },
        "sync",
    )
    for entry in found["entries"]:
        check_frame(entry)
    return found


def store(sender: Person, recipient: Person, count: int) -> list[str]:
    client = sender.connect()
    ids = [client.send(recipient.id) for _ in range(count)]
    return [str(client.accepted(message_id)["id"]) for message_id in ids]


def ids(found: Frame) -> list[str]:
    return [str(entry["id"]) for entry in found["entries"]]


def test_sync_of_an_empty_mailbox_is_empty(people: People) -> None:
    found = sync(people.new())
    assert (found["head"], found["reset"], found["entries"]) == (0, False, [])


def test_sync_gives_the_same_frames_as_the_socket(alice: Person, bob: Person) -> None:
    store(alice, bob, 3)
    found, theirs = sync(bob), bob.connect()
    assert (found["epoch"], found["head"]) == (theirs.hello["epoch"], theirs.hello["head"])
    assert found["entries"] == theirs.entries(3)


def test_sync_goes_on_after_its_cursor(alice: Person, bob: Person) -> None:
    sent, found, cursor = store(alice, bob, 7), [], None
    while page := sync(bob, cursor=cursor, limit=3)["entries"]:
        assert len(page) <= 3
        found += [entry["id"] for entry in page]
        cursor = f"{sync(bob)['epoch']}:{page[-1]['seq']}"
    assert found == sent


def test_sync_without_cursor_starts_after_the_last_ack(alice: Person, bob: Person) -> None:
    sent = store(alice, bob, 4)
    assert bob.rest.post("/api/sync/ack", {"seq": 3}).status in (200, 204)
    assert ids(sync(bob)) == sent[3:]
    assert bob.connect().hello["after"] == 3


def test_an_ack_by_sync_gives_the_sender_a_receipt(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    sent = [str(ours.store(bob.id)["id"]) for _ in range(2)]
    bob.rest.post("/api/sync/ack", {"seq": 2})
    ours.receipts("delivered", sent)


def test_receipts_come_by_sync_too(alice: Person, bob: Person) -> None:
    (message_id,) = store(alice, bob, 1)
    bob.rest.post("/api/sync/ack", {"seq": 1})
    receipt = sync(alice)["entries"][-1]
    assert (receipt["type"], receipt["kind"]) == ("receipt", "delivered")
    assert (receipt["ids"], receipt["by"]) == ([message_id], bob.id)


def test_an_ack_by_sync_frees_no_more_than_there_is(alice: Person, bob: Person) -> None:
    store(alice, bob, 2)
    assert bob.rest.post("/api/sync/ack", {"seq": 3}).refused(400, "bad_request")
    assert len(sync(bob)["entries"]) == 2


@pytest.mark.parametrize("seq", [None, -1, "1", 1.5, True, [], 2**63, 10**40], ids=str)
def test_an_ack_of_nonsense_is_refused(alice: Person, seq: object) -> None:
    assert alice.rest.post("/api/sync/ack", {"seq": seq}).refused(400, "bad_request")


def test_a_lower_ack_by_sync_is_ignored(alice: Person, bob: Person) -> None:
    sent = store(alice, bob, 3)
    for seq in (2, 1, 0):
        assert bob.rest.post("/api/sync/ack", {"seq": seq}).status in (200, 204)
    assert ids(sync(bob)) == sent[2:]


def test_sync_tells_a_reset(alice: Person, bob: Person) -> None:
    store(alice, bob, 2)
    epoch = sync(bob)["epoch"]
    other = ("0" if epoch[0] != "0" else "1") + epoch[1:]
    for cursor in (f"{other}:1", f"{epoch}:3"):
        found = sync(bob, cursor=cursor)
        assert (found["reset"], found["epoch"], found["head"]) == (True, epoch, 2)
    assert sync(bob, cursor=f"{epoch}:2")["reset"] is False


@pytest.mark.parametrize("cursor", ["x", "0123456789abcdef", "0123456789abcdef:-1", "\x00"])
def test_a_malformed_cursor_is_refused(alice: Person, cursor: str) -> None:
    assert alice.rest.get("/api/sync", cursor=cursor).refused(400, "bad_request")


def test_a_waiting_sync_returns_when_a_message_arrives(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sync, bob, wait=10)
        # Whether this comes before or during the wait, the call has to return with it.
        ours.store(bob.id)
        found = waiting.result(timeout=5)
    assert (found["head"], len(found["entries"])) == (1, 1)


def test_a_sync_that_waits_already_is_woken(alice: Person, bob: Person) -> None:
    ours = alice.connect()
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sync, bob, wait=10)
        ours.assert_silent(1)  # by now it waits
        assert not waiting.done()
        stored = ours.store(bob.id)
        found = waiting.result(timeout=5)
    assert ids(found) == [stored["id"]]
    assert 1 <= time.monotonic() - started < 4


def test_a_sync_with_something_to_say_does_not_wait(alice: Person, bob: Person) -> None:
    store(alice, bob, 1)
    started = time.monotonic()
    assert len(sync(bob, wait=10)["entries"]) == 1
    assert time.monotonic() - started < 3


def test_a_sync_that_waits_in_vain_comes_back_empty(alice: Person) -> None:
    started = time.monotonic()
    assert sync(alice, wait=1)["entries"] == []
    assert 0.9 <= time.monotonic() - started < 4


def test_many_waiting_syncs_leave_the_server_to_others(people: People, alice: Person) -> None:
    waiters = [people.new("waiter").enrol() for _ in range(30)]
    with ThreadPoolExecutor(len(waiters)) as pool:
        waiting = [pool.submit(sync, person, wait=3) for person in waiters]
        started = time.monotonic()
        for _ in range(5):
            assert alice.rest.get("/api/conversations").status == 200
        assert time.monotonic() - started < 2
        assert all(one.result(timeout=15)["entries"] == [] for one in waiting)


@pytest.mark.parametrize("wait", ["-1", "x", "31", "1e9", "nan", "inf"])
def test_a_wait_out_of_range_is_refused_or_capped(alice: Person, bob: Person, wait: str) -> None:
    store(bob, alice, 1)  # there is something to say: nobody waits thirty seconds here
    answer = alice.rest.get("/api/sync", wait=wait)
    assert answer.status == 200 or answer.refused(400, "bad_request")


def test_sync_is_not_for_the_unauthenticated(alice: Person) -> None:
    nobody = RestClient(alice.server.url)
    assert nobody.get("/api/sync").refused(401, "unauthorized")
    assert nobody.post("/api/sync/ack", {"seq": 0}).refused(401, "unauthorized")
