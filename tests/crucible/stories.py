"""A small story in which nothing is violated, as journals and a database tell it, to be spoiled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests.acceptance.wire import new_id
from tests.crucible.checker import check
from tests.crucible.evidence import Census, Database, Evidence, Fault, StoredMessage
from tests.crucible.journal import Content, Event

FIRST, SECOND = new_id(), new_id()
CONTENTS = {
    FIRST: Content("ann", "ben", 1).encode(),
    SECOND: Content("ann", "ben", 2).encode(),
}
CREATED_AT = "2030-01-01T00:00:00.000Z"
EMPTY = Census(connections=0, objects={"Pump": 0}, greenlets=9, descriptors=30)


def message(seq: int, message_id: str, **other: Any) -> Event:
    return {
        "type": "message",
        "seq": seq,
        "id": message_id,
        "sender": "ann",
        "recipient": "ben",
        "encrypted_content": CONTENTS.get(message_id, ""),
        "created_at": CREATED_AT,
        **other,
    }


def receipt(seq: int, kind: str, ids: list[str]) -> Event:
    return {"type": "receipt", "seq": seq, "kind": kind, "by": "ben", "ids": ids}


@dataclass
class Story:
    """Ann writes twice to Ben, who gets and acknowledges both, and reads the first."""

    ann: list[Event] = field(default_factory=list)
    ben: list[Event] = field(default_factory=list)
    stored: list[StoredMessage] = field(default_factory=list)
    heads: dict[str, int] = field(default_factory=lambda: {"ann": 4, "ben": 2})
    receipts: dict[str, list[int]] = field(default_factory=lambda: {"ann": [3, 4]})
    faults: list[Fault] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    after: Census = EMPTY
    idle_in_transaction: int = 0
    deadlocks: int = 0

    @classmethod
    def told(cls) -> Story:
        story = cls()
        story.ann += [opened(0.0), sent(1.0, FIRST), sent(1.1, SECOND)]
        story.ann += [accepted(1.2, FIRST, 1), accepted(1.3, SECOND, 2)]
        story.ann += [entry(1.6, receipt(3, "delivered", [FIRST, SECOND]))]
        story.ann += [entry(1.8, receipt(4, "read", [FIRST]))]
        story.ben += [opened(0.0), entry(1.4, message(1, FIRST)), entry(1.4, message(2, SECOND))]
        story.ben += [event(1.5, "acked", seq=2), event(1.7, "marked", ids=[FIRST])]
        for place, message_id in enumerate((FIRST, SECOND), start=1):
            content = CONTENTS[message_id]
            row = StoredMessage(message_id, "ann", "ben", content, place, place)
            story.stored.append(row)
        return story

    def evidence(self) -> Evidence:
        return Evidence(
            journals={"ann": self.ann, "ben": self.ben},
            faults=self.faults,
            database=Database(self.stored, self.heads, self.receipts),
            leaks=self.leaks,
            before=[EMPTY],
            after=[self.after],
            idle_in_transaction=self.idle_in_transaction,
            deadlocks=self.deadlocks,
            began=0.0,
            ended=60.0,
        )

    def violated(self) -> set[str]:
        return {violation.invariant for violation in check(self.evidence())}

    def drop(self, events: list[Event], what: str, **members: Any) -> None:
        """Leave out of a journal what has these members, of the event or of its frame."""
        events[:] = [one for one in events if not (one["what"] == what and has(one, members))]


def has(one: Event, members: dict[str, Any]) -> bool:
    shown = {**one, **one.get("frame", {})}
    return all(shown.get(name) == value for name, value in members.items())


def event(at: float, what: str, **details: Any) -> Event:
    return {"at": at, "what": what, **details}


def opened(at: float, connection: int = 1, after: int = 0, **details: Any) -> Event:
    given = {"master": 0, "head": after, "reset": False, "epoch": "0" * 16, **details}
    return event(at, "opened", connection=connection, after=after, **given)


def closed(at: float, code: int, **details: Any) -> Event:
    given = {"by": "server", "has_good_token": True, **details}
    return event(at, "closed", connection=1, master=0, code=code, **given)


def turned_away(at: float, status: int, *, has_good_token: bool = True) -> Event:
    return event(at, "turned_away", status=status, has_good_token=has_good_token)


def refused(at: float, message_id: str, code: str, *, is_final: bool = False) -> Event:
    return event(at, "refused", connection=1, id=message_id, code=code, is_final=is_final)


def sent(at: float, message_id: str, connection: int = 1, **details: Any) -> Event:
    content = CONTENTS[message_id]
    given = {"id": message_id, "to": "ben", "content": content, "conversation_id": None}
    return event(at, "sent", connection=connection, **{**given, "bundle": None, **details})


def accepted(at: float, message_id: str, seq: int | None, **details: Any) -> Event:
    given = {"created_at": CREATED_AT, "duplicate": False, **details}
    return event(at, "accepted", connection=1, id=message_id, seq=seq, **given)


def entry(at: float, frame: Event, connection: int = 1) -> Event:
    return event(at, "entry", connection=connection, frame=frame)


def meddled(at: float, connection: int = 1) -> Event:
    content = Content("ann", "ben", 0).encode()
    given = {"connection": connection, "id": FIRST, "to": "ben", "content": content}
    return event(at, "meddled", **given)


def told_together(story: Story) -> None:
    """Ann has sent both by one `send_many`, which leaves her mailbox nothing but receipts."""
    story.drop(story.ann, "sent")
    story.drop(story.ann, "accepted")
    story.drop(story.ann, "entry")
    story.ann += [sent(1.0, one, bundle="together") for one in (FIRST, SECOND)]
    story.ann += [accepted(1.2, one, None) for one in (FIRST, SECOND)]
    story.ann.append(entry(1.6, receipt(1, "delivered", [FIRST, SECOND])))
    story.ann.append(entry(1.8, receipt(2, "read", [FIRST])))
    story.stored[:] = [replace(row, sender_seq=None) for row in story.stored]
    story.heads["ann"] = 2
    story.receipts["ann"] = [1, 2]
