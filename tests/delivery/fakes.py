"""Entries, people and databases for the tests of this layer: everything records, nothing waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from flask_e2emsg.delivery.pump import Pump
from flask_e2emsg.errors import Unavailable
from flask_e2emsg.protocol.entries import Entry, Message, MessageEntry
from flask_e2emsg.protocol.frames import Outgoing
from flask_e2emsg.protocol.values import encode_binary, now
from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.mailbox import Page

DEADLINE_SECONDS = 10.0
MANY = 1000

ALICE = Party(1, "alice")
BOB = Party(2, "bob")


def wait_for(event: threading.Event) -> None:
    assert event.wait(DEADLINE_SECONDS), "not in time"


def entry(seq: int, origin: int | None = None, size: int = 3) -> MessageEntry:
    """An entry of bob's mailbox; with an origin, one that bob sent from that connection."""
    sender, recipient = (ALICE, BOB) if origin is None else (BOB, ALICE)
    content = b"x" * size
    message = Message(uuid4(), sender.user_id, recipient.user_id, None, content, now(), None)
    return MessageEntry(seq, message, origin)


def entries(first: int, last: int) -> list[Entry]:
    return [entry(seq) for seq in range(first, last + 1)]


def outgoing(to: Party, text: str = "hello", message_id: UUID | None = None) -> Outgoing:
    content = text.encode()
    return Outgoing(message_id or uuid4(), to.user_id, content, encode_binary(content))


def parsed(frames: Sequence[bytes]) -> list[dict[str, Any]]:
    return [json.loads(frame) for frame in frames]


def positions(frames: Sequence[bytes]) -> list[int]:
    """The positions of the entries among these frames."""
    return [frame["seq"] for frame in parsed(frames) if frame["type"] == "message"]


def kinds(frames: Sequence[bytes]) -> list[str]:
    return [frame["type"] for frame in parsed(frames)]


class Log:
    """A mailbox in the database: what it holds, and how often it was asked."""

    def __init__(self, *held: Entry, head: int | None = None) -> None:
        self.held = list(held)
        self.head = head
        self.reads: list[tuple[int, int]] = []
        self.is_down = False

    def entries_after(self, owner: Party, seq: int, limit: int) -> Page:
        assert owner == BOB
        self.reads.append((seq, limit))
        if self.is_down:
            raise Unavailable
        found = [one for one in self.held if one.seq > seq][:limit]
        through = found[-1].seq if found else seq
        if len(found) < limit and self.head is not None:
            through = self.head  # what lies beyond has expired
        return Page(found, through)


class Acks:
    """The acks that a pump wants committed."""

    def __init__(self) -> None:
        self.wanted: list[int] = []

    def __call__(self, _pump: Pump, seq: int) -> None:
        self.wanted.append(seq)


class Watched(Pump):
    """A connection that nobody writes: what stirs is for the test to see."""

    stirred: threading.Event


def pump(
    log: Log | None = None,
    acks: Callable[[Pump, int], None] | None = None,
    owner: Party = BOB,
) -> Watched:
    """A connection of bob's, not yet started."""
    return Watched(owner, (log or Log()).entries_after, acks or Acks())


def started(log: Log, acks: Acks | None = None, *, after: int = 0, room: int = 100) -> Watched:
    """A connection of bob's that stands after a position, its backlog announced already."""
    one = pump(log, acks)
    one.start(after, after, room)
    assert kinds(one.take_entries()) == ["caught_up"]
    return one


def take_all(one: Watched) -> list[bytes]:
    """What the writer would write until nothing stirs any more."""
    out: list[bytes] = []
    one.stirred.set()
    for _ in range(MANY):
        if not one.stirred.is_set():
            if one.look_again_at is None:
                return out
            time.sleep(max(one.look_again_at - time.monotonic(), 0))
        one.stirred.clear()
        out += one.take_entries()
    raise AssertionError("it stirs for ever")


def by_user(party: Party, new: Sequence[Entry]) -> Mapping[str, Sequence[Entry]]:
    return {party.user_id: new}
