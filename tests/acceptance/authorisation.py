"""Who may do what: every route and every frame of a client, by role.

The world of a row is one message, from the sender to the recipient, in a conversation of the two.
The stranger has an account like theirs and knows every id and cursor; anonymous has no token. A new
route or frame has to be added here, with who may use it and what everybody else gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from flask import Flask

from tests.acceptance.people import Person
from tests.acceptance.rest import segment
from tests.acceptance.wire import Frame, new_content, new_id, to_base64url

SENDER, RECIPIENT, STRANGER, ANONYMOUS = "sender", "recipient", "stranger", "anonymous"
# Those who may least come first, so that nobody has changed the world before them.
ROLES = (ANONYMOUS, STRANGER, SENDER, RECIPIENT)
NOBODY = "nobody-has-this-id"
ENDPOINTS = "e2emsg."


@dataclass(frozen=True)
class World:
    """One message and the people around it."""

    sender: Person
    recipient: Person
    stranger: Person
    message_id: str
    content: str
    conversation_id: str
    recipients_cursor: str  # at the beginning of the recipient's mailbox
    senders_cursor: str

    @classmethod
    def of(cls, sender: Person, recipient: Person, stranger: Person) -> World:
        """Have the message stored; nobody has fetched it."""
        message_id, content, room = new_id(), new_content(), f"room-{uuid4().hex}"
        message = {"id": message_id, "to": recipient.id, "encrypted_content": content}
        answer = sender.rest.post("/api/messages", {**message, "conversation_id": room})
        assert answer.status == 201, answer.body
        cursors = [
            f"{person.rest.get('/api/sync').json['epoch']}:0" for person in (recipient, sender)
        ]
        return cls(sender, recipient, stranger, message_id, content, room, *cursors)

    def person(self, role: str) -> Person | None:
        """Who plays a role."""
        people = {SENDER: self.sender, RECIPIENT: self.recipient, STRANGER: self.stranger}
        return people.get(role)

    def others(self, role: str) -> list[Person]:
        """Whom somebody in this role may ask about: every other party of the message."""
        parties = {SENDER: self.sender, RECIPIENT: self.recipient}
        return [person for other, person in parties.items() if other != role]

    def claims(self) -> dict[str, Any]:
        """Members by which a client may try to be the sender."""
        names = ("sender", "sender_id", "from", "user_id", "user", "by", "account_id", "owner")
        return {**dict.fromkeys(names, self.sender.id), "device": "1", "origin": 1, "seq": 1}

    def receipts(self) -> list[Frame]:
        """What the sender was told about the message."""
        page = self.sender.rest.get("/api/sync", cursor=self.senders_cursor).json
        return [entry for entry in page["entries"] if entry["type"] == "receipt"]

    def is_shown_in(self, text: str) -> bool:
        """Whether a text has anything of the message in it."""
        return any(part in text for part in (self.message_id, self.content, self.conversation_id))


Targets = Callable[[World, str], list[str]]


@dataclass(frozen=True)
class Route:
    """What one route does for whom.

    `shows` and `marks`: the roles that are shown the message, or mark it as delivered or read.
    `targets` are the addresses that somebody in a role may try.
    `absent`: the same call for a thing that does not exist. A stranger must not see a difference.
    """

    targets: Targets
    body: Callable[[World, str], Mapping[str, Any]] | None = None
    status: int = 200
    other_status: Mapping[str, int] | None = None
    shows: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    absent: Targets | None = None


def _at(path: str) -> Targets:
    return lambda world, role: [path]


def _about(path: str) -> Targets:
    return lambda world, role: [path.format(segment(one.id)) for one in world.others(role)]


def _new_message(world: World, role: str) -> dict[str, Any]:
    return {"id": new_id(), "to": world.recipient.id, "encrypted_content": new_content()}


ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/api/ws"): Route(_at("/api/ws"), status=426),
    ("POST", "/api/keys"): Route(
        _at("/api/keys"), lambda *_: {"public_key": to_base64url(uuid4().bytes + uuid4().bytes)}
    ),
    # Each user has a backup of their own, or none.
    ("PUT", "/api/key-backup"): Route(
        _at("/api/key-backup"), lambda *_: {"blob": new_content(), "version": 9}, status=409
    ),
    ("GET", "/api/key-backup"): Route(_at("/api/key-backup"), status=404),
    ("DELETE", "/api/key-backup"): Route(_at("/api/key-backup"), status=204),
    # Every user may ask for every key.
    ("GET", "/api/keys/<e2emsg_id:user_id>"): Route(_about("/api/keys/{}")),
    ("POST", "/api/messages"): Route(_at("/api/messages"), _new_message, status=201),
    ("GET", "/api/messages/<e2emsg_id:contact_id>"): Route(
        _about("/api/messages/{}"),
        shows=(SENDER, RECIPIENT),
        absent=_at(f"/api/messages/{NOBODY}"),
    ),
    ("POST", "/api/messages/<e2emsg_id:contact_id>/read"): Route(
        _about("/api/messages/{}/read"),
        lambda *_: {"up_to": 1000},
        marks=(RECIPIENT,),
        absent=_at(f"/api/messages/{NOBODY}/read"),
    ),
    ("GET", "/api/conversations"): Route(_at("/api/conversations"), shows=(SENDER, RECIPIENT)),
    ("GET", "/api/conversations/<e2emsg_id:conversation_id>/messages"): Route(
        lambda world, _: [f"/api/conversations/{world.conversation_id}/messages"],
        shows=(SENDER, RECIPIENT),
        absent=_at(f"/api/conversations/{NOBODY}/messages"),
    ),
    ("GET", "/api/sync"): Route(
        lambda world, _: [f"/api/sync?cursor={world.recipients_cursor}"],
        shows=(RECIPIENT,),
        absent=_at("/api/sync?cursor=0123456789abcdef:0"),
    ),
    ("POST", "/api/sync/ack"): Route(
        _at("/api/sync/ack"),
        lambda *_: {"seq": 1},
        other_status={STRANGER: 400},  # a position in the stranger's own, empty mailbox
        marks=(RECIPIENT,),
    ),
    ("POST", "/api/ws-ticket"): Route(_at("/api/ws-ticket"), lambda *_: {}),
    ("GET", "/api/session"): Route(_at("/api/session")),
}


@dataclass(frozen=True)
class ClientFrame:
    """What one frame of a client does for whom.

    `answer` is the type of what comes back, None where nothing does; `other_answer` has the roles
    that differ. `reaches`: the recipient is sent something, in the name of whoever sent the frame.
    """

    frame: Callable[[World, str], Frame]
    answer: str | None = None
    other_answer: Mapping[str, str] | None = None
    marks: tuple[str, ...] = ()
    reaches: str | None = None


def _refresh(world: World, role: str) -> Frame:
    person = world.person(role)
    assert person is not None
    return {"token": person.token()}


FRAMES: dict[str, ClientFrame] = {
    "send": ClientFrame(_new_message, "accepted", reaches="message"),
    "send_many": ClientFrame(
        lambda world, role: {"ref": "r", "messages": [_new_message(world, role)]},
        "accepted",
        reaches="message",
    ),
    "ack": ClientFrame(
        # A position in one's own mailbox, whoever else has one like it.
        lambda *_: {"seq": 1},
        other_answer={STRANGER: "error"},
        marks=(RECIPIENT,),
    ),
    "read": ClientFrame(lambda world, _: {"ids": [world.message_id]}, marks=(RECIPIENT,)),
    "typing": ClientFrame(
        lambda world, _: {"to": world.recipient.id, "active": True}, reaches="typing"
    ),
    "refresh": ClientFrame(_refresh, "refreshed"),
    "ping": ClientFrame(lambda world, _: {"ref": world.message_id}, "pong"),
}


def routes_of(app: Flask) -> set[tuple[str, str]]:
    """The extension's routes, without the methods that Flask adds by itself.

    The browser client's files are for everybody.
    """
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith(ENDPOINTS) and rule.endpoint != f"{ENDPOINTS}static"
        for method in (rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}
    }


def assert_complete(found: Iterable[object], table: Mapping[Any, object], name: str) -> None:
    """Fail unless the table has a row for everything that was found, and for nothing else."""
    unlisted, gone = set(found) - table.keys(), table.keys() - set(found)
    assert not unlisted, (
        f"{sorted(map(str, unlisted))} is not in {name} of {__name__}: add a row that says who may "
        "use it, what it shows and marks, and what everybody else gets"
    )
    assert not gone, (
        f"{sorted(map(str, gone))} is no more: take the row out of {name} of {__name__}"
    )
