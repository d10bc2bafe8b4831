"""Every invariant is seen to be violated by a story that violates it, and by no other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.acceptance.wire import new_id
from tests.crucible.checker import INVARIANTS, check
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
    return event(at, "closed", connection=1, master=0, code=code, **{"by": "server", **details})


def sent(at: float, message_id: str, connection: int = 1) -> Event:
    content = CONTENTS[message_id]
    given = {"id": message_id, "to": "ben", "content": content, "conversation_id": None}
    return event(at, "sent", connection=connection, **given)


def accepted(at: float, message_id: str, seq: int, **details: Any) -> Event:
    given = {"created_at": CREATED_AT, "duplicate": False, **details}
    return event(at, "accepted", connection=1, id=message_id, seq=seq, **given)


def entry(at: float, frame: Event, connection: int = 1) -> Event:
    return event(at, "entry", connection=connection, frame=frame)


def lose(story: Story) -> None:
    story.drop(story.ben, "entry", id=SECOND)


def accept_unstored(story: Story) -> None:
    del story.stored[1]
    story.heads["ben"] = 1
    story.receipts["ann"] = [2, 3, 4]


def deliver_twice(story: Story) -> None:
    story.ben.append(entry(2.0, message(3, SECOND)))
    story.heads["ben"] = 3
    story.stored.append(replace(story.stored[1], sender_seq=None, recipient_seq=3))


def get_stuck(story: Story) -> None:
    story.ben.append(event(30.0, "stuck", position=1, head=2))


def never_answer(story: Story) -> None:
    message_id = new_id()
    story.ann.append({**sent(2.0, FIRST), "id": message_id})


def come_late_while_the_bus_is_away(story: Story) -> None:
    story.faults.append(Fault("kill_redis", 0.5, 6.0))
    story.drop(story.ben, "entry", id=SECOND)
    story.ben.append(entry(9.0, message(2, SECOND)))


def change_content(story: Story) -> None:
    story.drop(story.ben, "entry", id=SECOND)
    other = Content("ann", "ben", 2).encode()
    story.ben.append(entry(1.4, message(2, SECOND, encrypted_content=other)))


def store_other_content(story: Story) -> None:
    story.stored[1] = replace(story.stored[1], content=Content("ann", "ben", 2).encode())


def leave_a_hole(story: Story) -> None:
    story.drop(story.ben, "entry", id=SECOND)
    story.ben.append(entry(1.4, message(3, SECOND)))
    story.heads["ben"] = 3
    story.stored[1] = replace(story.stored[1], recipient_seq=3)


def go_back(story: Story) -> None:
    story.ben.append(entry(2.0, message(1, FIRST)))


def reset_a_cursor(story: Story) -> None:
    story.ben.append(opened(3.0, connection=2, after=2, reset=True))


def stop_before_the_head(story: Story) -> None:
    story.heads["ben"] = 3
    story.receipts["ben"] = [3]


def overtake(story: Story) -> None:
    for message_id in (FIRST, SECOND):
        story.drop(story.ben, "entry", id=message_id)
    story.ben += [entry(1.4, message(1, SECOND)), entry(1.4, message(2, FIRST))]
    story.stored[0] = replace(story.stored[0], recipient_seq=2)
    story.stored[1] = replace(story.stored[1], recipient_seq=1)


def invent(story: Story) -> None:
    content = Content("ann", "ben", 3).encode()
    story.ben.append(entry(2.0, message(3, new_id(), encrypted_content=content)))
    story.heads["ben"] = 3
    story.receipts["ben"] = [3]


def name_another_sender(story: Story) -> None:
    story.drop(story.ben, "entry", id=SECOND)
    story.ben.append(entry(1.4, message(2, SECOND, sender="cal")))


def show_by_rest_what_is_of_others(story: Story) -> None:
    content = Content("cal", "dee", 1).encode()
    shown = {"id": new_id(), "sender": "cal", "recipient": "dee", "encrypted_content": content}
    story.ben.append(event(2.0, "rest", path="/api/sync", status=200, messages=[shown]))


def let_in(story: Story) -> None:
    story.ben.append(event(2.0, "let_in", why="an expired token"))


def answer_differently(story: Story) -> None:
    story.ann.append(accepted(2.0, FIRST, 2, duplicate=True))


def be_new_twice(story: Story) -> None:
    story.ann.append(accepted(2.0, FIRST, 1))


def meddled(at: float, connection: int = 1) -> Event:
    content = Content("ann", "ben", 0).encode()
    given = {"connection": connection, "id": FIRST, "to": "ben", "content": content}
    return event(at, "meddled", **given)


def deliver_what_contradicts(story: Story) -> None:
    again = meddled(2.0)
    story.ann.append(again)
    story.drop(story.ben, "entry", id=FIRST)
    story.ben.insert(1, entry(1.4, message(1, FIRST, encrypted_content=again["content"])))


def accept_a_contradiction(story: Story) -> None:
    story.ann.append(meddled(2.0, connection=2))
    story.ann.append({**accepted(2.1, FIRST, 1, duplicate=True), "connection": 2})


def store_what_was_refused(story: Story) -> None:
    code = "forbidden"
    story.ann.append(event(2.0, "refused", connection=1, id=SECOND, code=code, is_final=True))


def receipt_for_others(story: Story) -> None:
    story.drop(story.ann, "entry", kind="read")
    story.ann.append(entry(1.8, receipt(4, "read", [FIRST, new_id()])))


def read_before_delivered(story: Story) -> None:
    story.drop(story.ann, "entry")
    story.ann += [entry(1.6, receipt(3, "read", [FIRST]))]
    story.ann += [entry(1.8, receipt(4, "delivered", [FIRST, SECOND]))]


def forget_a_receipt(story: Story) -> None:
    story.drop(story.ann, "entry", kind="delivered")
    story.ann.insert(5, entry(1.6, receipt(3, "delivered", [FIRST])))


def say_twice_that_it_is_read(story: Story) -> None:
    story.ann.append(entry(2.0, receipt(5, "read", [FIRST])))
    story.heads["ann"] = 5
    story.receipts["ann"] = [3, 4, 5]


def believe_an_ack(story: Story) -> None:
    story.ann.append(event(2.0, "overacked", connection=1))
    story.ann += [sent(2.1, FIRST), accepted(2.2, FIRST, 1, duplicate=True)]


def talk_nonsense(story: Story) -> None:
    story.ben.append(event(2.0, "invalid", text="no WebSocket frame: reserved bits"))


def close_with_a_strange_code(story: Story) -> None:
    story.ben.append(closed(2.0, 4999))


def leave_without_a_word_at_sighup(story: Story) -> None:
    story.faults.append(Fault("sighup", 1.9, 3.0, master=0))
    story.ben.append(closed(2.0, 1006))


def fail_in_rest(story: Story) -> None:
    story.ben.append(event(2.0, "rest", path="/api/sync", status=500, messages=[]))


def leak(story: Story) -> None:
    story.leaks.append("the payload of a token in '...'")


def keep_a_connection(story: Story) -> None:
    story.after = replace(EMPTY, connections=1, objects={"Pump": 1})


def keep_descriptors(story: Story) -> None:
    story.after = replace(EMPTY, descriptors=EMPTY.descriptors + 200)


def lock_each_other_out(story: Story) -> None:
    story.deadlocks = 1


def keep_a_transaction(story: Story) -> None:
    story.idle_in_transaction = 1


# What each does to the story, and all that is violated by it: often one thing follows from another.
CRIMES: list[tuple[Callable[[Story], None], set[str]]] = [
    (lose, {"I1", "I3"}),
    (accept_unstored, {"I1", "I3"}),
    (deliver_twice, {"I1"}),
    (get_stuck, {"I1"}),
    (never_answer, {"I1"}),
    (come_late_while_the_bus_is_away, {"I1"}),
    (change_content, {"I2"}),
    (store_other_content, {"I2"}),
    (leave_a_hole, {"I3"}),
    (go_back, {"I3"}),
    (reset_a_cursor, {"I3"}),
    (stop_before_the_head, {"I3"}),
    (overtake, {"I4"}),
    (invent, {"I5"}),
    (name_another_sender, {"I5"}),
    (show_by_rest_what_is_of_others, {"I6"}),
    (let_in, {"I6"}),
    (answer_differently, {"I7"}),
    (be_new_twice, {"I7"}),
    (deliver_what_contradicts, {"I2", "I8"}),
    (accept_a_contradiction, {"I8"}),
    (store_what_was_refused, {"I8"}),
    (receipt_for_others, {"I9"}),
    (read_before_delivered, {"I9"}),
    (forget_a_receipt, {"I9"}),
    (say_twice_that_it_is_read, {"I9"}),
    (believe_an_ack, {"I9"}),
    (talk_nonsense, {"I10"}),
    (close_with_a_strange_code, {"I10"}),
    (leave_without_a_word_at_sighup, {"I10"}),
    (fail_in_rest, {"I10"}),
    (leak, {"I11"}),
    (keep_a_connection, {"I12"}),
    (keep_descriptors, {"I12"}),
    (keep_a_transaction, {"I12"}),
    (lock_each_other_out, {"I12"}),
]


def test_a_clean_story_violates_nothing() -> None:
    assert check(Story.told().evidence()) == []


@pytest.mark.parametrize(
    ("crime", "invariants"), CRIMES, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_crime_is_seen(crime: Callable[[Story], None], invariants: set[str]) -> None:
    story = copy.deepcopy(Story.told())
    crime(story)
    assert story.violated() == invariants


def test_every_invariant_has_its_crime() -> None:
    assert {name for _, names in CRIMES for name in names} == set(INVARIANTS)


def test_a_repetition_that_is_told_to_be_one_is_no_crime() -> None:
    story = Story.told()
    story.ann += [sent(2.0, FIRST), accepted(2.1, FIRST, 1, duplicate=True)]
    assert story.violated() == set()


def test_an_ack_that_may_not_have_come_is_not_believed_yet() -> None:
    story = Story.told()
    story.ann.insert(3, event(1.15, "overacked", connection=1))
    assert story.violated() == set()


def test_a_push_is_no_crime_on_a_new_connection() -> None:
    story = Story.told()
    story.ben += [opened(2.0, connection=2), entry(2.1, message(1, FIRST), connection=2)]
    assert story.violated() == set()


def test_a_loss_that_a_kill_explains_is_no_crime() -> None:
    story = Story.told()
    story.faults.append(Fault("kill_worker", 1.9, 2.0, master=0))
    story.ben.append(closed(2.0, 1006))
    assert story.violated() == set()


def test_a_host_that_lost_its_database_may_fail_in_rest() -> None:
    story = Story.told()
    fail_in_rest(story)
    story.faults.append(Fault("end_backends", 1.5, 1.6))
    assert story.violated() == set()


def test_the_kill_of_another_master_explains_nothing() -> None:
    story = Story.told()
    story.faults.append(Fault("kill_worker", 1.9, 2.0, master=1))
    story.ben.append(closed(2.0, 1006))
    assert story.violated() == {"I10"}


def test_who_was_told_to_try_again_may_be_overtaken() -> None:
    story = Story.told()
    overtake(story)
    refused = {"connection": 1, "id": FIRST, "code": "unavailable", "is_final": False}
    story.ann.append(event(1.1, "refused", **refused))
    assert story.violated() == set()
