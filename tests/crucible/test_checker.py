"""Every invariant is seen to be violated by a story that violates it, and by no other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.acceptance.wire import new_id
from tests.crucible.checker import INVARIANTS, check
from tests.crucible.evidence import Fault, StoredMessage
from tests.crucible.journal import Content
from tests.crucible.stories import (
    EMPTY,
    FIRST,
    SECOND,
    Story,
    accepted,
    closed,
    entry,
    event,
    meddled,
    message,
    opened,
    receipt,
    refused,
    sent,
    told_together,
    turned_away,
)


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


def tell_the_sender_of_several(story: Story) -> None:
    told_together(story)
    story.ann.append(entry(1.2, message(1, FIRST)))


def store_a_sent_entry_of_several(story: Story) -> None:
    told_together(story)
    story.stored[1] = replace(story.stored[1], sender_seq=3)
    for place, seq in enumerate((1, 2)):
        story.receipts["ann"][place] = seq
    story.heads["ann"] = 3
    story.ann.append(entry(2.0, message(3, SECOND)))


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


def acknowledge_another_time(story: Story) -> None:
    story.drop(story.ben, "entry", id=SECOND)
    story.ben.append(entry(1.4, message(2, SECOND, created_at="2030-01-01T00:00:00.001Z")))


def deliver_what_contradicts(story: Story) -> None:
    again = meddled(2.0)
    story.ann.append(again)
    story.drop(story.ben, "entry", id=FIRST)
    story.ben.insert(1, entry(1.4, message(1, FIRST, encrypted_content=again["content"])))


def accept_a_contradiction(story: Story) -> None:
    story.ann.append(meddled(2.0, connection=2))
    story.ann.append({**accepted(2.1, FIRST, 1, duplicate=True), "connection": 2})


def store_what_came_with_a_contradiction(story: Story) -> None:
    """A `send_many` of a used id and a new one, of which the new one is stored all the same."""
    content, new = Content("ann", "ben", 0).encode(), new_id()
    story.ann += [meddled(2.0), {**meddled(2.0), "id": new, "content": content}]
    story.ann.append(refused(2.1, new_id(), "id_conflict"))
    story.ben.append(entry(2.1, message(3, new, encrypted_content=content)))
    story.stored.append(StoredMessage(new, "ann", "ben", content, None, 3))
    story.heads["ben"] = 3


def store_what_was_refused(story: Story) -> None:
    story.ann.append(refused(2.0, SECOND, "forbidden", is_final=True))


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


def shut_out_with_a_good_token(story: Story) -> None:
    story.faults.append(Fault("clock_step", 1.9, 3.0, master=0))
    story.ben.append(closed(2.0, 4401))


def turn_away_with_a_good_token(story: Story) -> None:
    story.faults.append(Fault("clock_step", 1.9, 3.0, master=0))
    story.ben.append(turned_away(2.0, 401))


def call_silent_whom_a_clock_has_aged(story: Story) -> None:
    story.faults.append(Fault("clock_step", 1.9, 3.0, master=0))
    story.ben.append(closed(2.0, 4408))


def fail_in_a_handshake(story: Story) -> None:
    story.ben.append(turned_away(2.0, 500))


def refuse_by_a_fault_of_ones_own(story: Story) -> None:
    story.faults.append(Fault("disk_full", 0.5, 3.0))
    story.ann.insert(3, refused(1.15, FIRST, "internal"))


def fail_in_rest_when_the_disk_is_full(story: Story) -> None:
    story.faults.append(Fault("disk_full", 1.5, 3.0))
    fail_in_rest(story)


def not_know_a_good_token_in_rest(story: Story) -> None:
    story.ben.append(event(2.0, "rest", path="/api/sync", status=401, messages=[]))


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
    (tell_the_sender_of_several, {"I3", "I5"}),
    (store_a_sent_entry_of_several, {"I5"}),
    (show_by_rest_what_is_of_others, {"I6"}),
    (let_in, {"I6"}),
    (answer_differently, {"I7"}),
    (be_new_twice, {"I7"}),
    (acknowledge_another_time, {"I7"}),
    (deliver_what_contradicts, {"I2", "I8"}),
    (accept_a_contradiction, {"I8"}),
    (store_what_came_with_a_contradiction, {"I5", "I8"}),
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
    (fail_in_rest_when_the_disk_is_full, {"I10"}),
    (not_know_a_good_token_in_rest, {"I10"}),
    (fail_in_a_handshake, {"I10"}),
    (shut_out_with_a_good_token, {"I10"}),
    (turn_away_with_a_good_token, {"I10"}),
    (call_silent_whom_a_clock_has_aged, {"I10"}),
    (refuse_by_a_fault_of_ones_own, {"I10"}),
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
