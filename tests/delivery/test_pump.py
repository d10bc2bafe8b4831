"""One connection's cursor: where entries come from, how far they go, and what an ack does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from flask_e2emsg.delivery import pump as pump_module
from flask_e2emsg.delivery.pump import (
    BYTES_AT_ONCE,
    ENTRIES_AT_ONCE,
    MAX_EPHEMERAL,
    MAX_FRESH_BYTES,
    MAX_UNANSWERED,
)
from flask_e2emsg.errors import BadRequest, Unavailable
from flask_e2emsg.store.accounts import Party
from flask_e2emsg.store.mailbox import Page
from tests.delivery.fakes import (
    DEADLINE_SECONDS,
    Acks,
    Log,
    entries,
    entry,
    kinds,
    parsed,
    positions,
    pump,
    started,
    take_all,
)

A_MOMENT = 0.5

# Where entries come from.


def test_an_offer_right_behind_the_cursor_spares_the_database() -> None:
    log = Log()
    one = started(log)
    one.offer(entries(1, 3))
    one.offer(entries(4, 4))
    assert positions(take_all(one)) == [1, 2, 3, 4]
    assert log.reads == []


def test_an_offer_with_a_gap_before_it_is_a_hint_to_read() -> None:
    log = Log(*entries(1, 5))
    one = started(log, room=1000)
    one.offer(entries(4, 5))
    assert positions(take_all(one)) == [1, 2, 3, 4, 5]
    assert log.reads[0] == (0, ENTRIES_AT_ONCE)


def test_offers_in_the_wrong_order_arrive_in_the_right_one() -> None:
    log = Log(*entries(1, 6))
    one = started(log)
    for first, last in [(3, 4), (1, 2), (5, 6)]:
        one.offer(entries(first, last))
    assert positions(take_all(one)) == [1, 2, 3, 4, 5, 6]


def test_offers_in_the_wrong_order_spare_the_database_when_the_gap_closes_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump_module, "GAP_SECONDS", 60.0)
    log = Log()
    one = started(log)
    one.offer(entries(3, 4))
    one.offer([entry(6)])
    assert one.take_entries() == []
    one.offer(entries(1, 2))
    one.offer([entry(5)])
    assert positions(take_all(one)) == [1, 2, 3, 4, 5, 6]
    assert log.reads == []
    assert one.look_again_at is None


def test_a_gap_that_does_not_close_is_read_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump_module, "GAP_SECONDS", A_MOMENT)
    log = Log(*entries(1, 3))
    one = started(log)
    one.offer([entry(1), entry(3)])
    assert positions(one.take_entries()) == [1]
    assert one.take_entries() == []
    assert one.look_again_at is not None
    assert one.look_again_at - time.monotonic() <= A_MOMENT
    assert positions(take_all(one)) == [2, 3]
    assert len(log.reads) == 1


def test_a_gap_is_not_waited_for_while_the_window_is_full() -> None:
    one = started(Log(*entries(1, 3)), room=1)
    one.offer([entry(1), entry(3)])
    assert positions(take_all(one)) == [1]
    assert one.look_again_at is None
    one.ack(1)
    assert positions(take_all(one)) == [2]


class Growing(Log):
    """A mailbox that grows while it is read."""

    grow: Callable[[], None]

    def entries_after(self, owner: Party, seq: int, limit: int) -> Page:
        page = super().entries_after(owner, seq, limit)
        self.grow()
        return page


def test_what_comes_while_a_page_is_read_follows_it_without_another_read() -> None:
    log = Growing(*entries(1, 3))
    one = started(log)
    log.grow = lambda: one.offer(entries(3, 5))
    one.reach(3)
    assert positions(one.take_entries()) == [1, 2, 3]
    assert one.stirred.is_set()
    assert positions(one.take_entries()) == [4, 5]
    assert len(log.reads) == 1
    assert one.look_again_at is None


def test_what_comes_early_is_bounded_like_all_that_waits() -> None:
    log = Log(*entries(1, 3))
    one = started(log)
    large = [entry(seq, size=MAX_FRESH_BYTES // 4) for seq in (2, 3)]
    one.offer(large)
    one.offer([entry(1)])
    assert positions(take_all(one)) == [1, 2, 3]
    assert len(log.reads) == 1


def test_an_offer_that_was_lost_between_two_others_is_read() -> None:
    one = started(Log(*entries(1, 3)))
    one.offer(entries(1, 1))
    one.offer(entries(3, 3))
    assert positions(take_all(one)) == [1, 2, 3]


def test_a_hole_in_an_offer_is_read() -> None:
    one = started(Log(*entries(1, 4)))
    one.offer([entry(1), entry(3), entry(4)])
    assert positions(take_all(one)) == [1, 2, 3, 4]


def test_a_mailbox_that_holds_less_than_was_said_is_not_read_for_ever() -> None:
    one = pump(Log(*entries(1, 4)))
    one.start(0, 4, 100)
    take_all(one)
    one.reach(9)
    assert one.take_entries() == []
    one.stirred.clear()
    assert one.take_entries() == []
    assert not one.stirred.is_set()
    one.offer(entries(5, 5))
    assert positions(take_all(one)) == [5]


def test_what_is_offered_during_a_read_that_finds_nothing_is_not_forgotten() -> None:
    class Overtaken(Log):
        def entries_after(self, owner: Party, seq: int, limit: int) -> Page:
            page = super().entries_after(owner, seq, limit)
            one.offer(entries(1, 1))
            return page

    one = started(Overtaken())
    one.offer(entries(2, 2))
    assert positions(take_all(one)) == [1]


def test_what_was_read_meanwhile_is_not_sent_again_when_it_is_offered() -> None:
    log = Log(*entries(1, 3))
    one = started(log)
    one.reach(3)
    assert positions(take_all(one)) == [1, 2, 3]
    one.offer(entries(2, 3))
    one.offer(entries(4, 4))
    log.held += entries(4, 4)
    assert positions(take_all(one)) == [4]


def test_an_old_head_stirs_nobody() -> None:
    one = started(Log(), after=5)
    one.stirred.clear()
    one.reach(5)
    assert not one.stirred.is_set()
    assert positions(take_all(one)) == []


def test_offers_beyond_what_may_wait_are_read_later() -> None:
    size = MAX_FRESH_BYTES // 8
    large = [entry(seq, size=size) for seq in range(1, 11)]
    log = Log(*large)
    one = started(log)
    for offered in large:
        one.offer([offered])
    assert positions(take_all(one)) == list(range(1, 11))
    assert log.reads


def test_what_waited_no_longer_counts_when_it_is_written() -> None:
    log = Log()
    one = started(log)
    for seq in range(1, 51):
        one.offer([entry(seq, size=MAX_FRESH_BYTES // 8)])
        assert positions(take_all(one)) == [seq]
    assert log.reads == []


def test_a_long_backlog_comes_in_pieces_and_whole() -> None:
    last = 3 * ENTRIES_AT_ONCE + 1
    log = Log(*entries(1, last))
    one = pump(log)
    one.start(0, last, 10_000)
    assert positions(take_all(one)) == list(range(1, last + 1))
    assert max(limit for _, limit in log.reads) == ENTRIES_AT_ONCE


def test_a_backlog_of_large_messages_comes_in_small_pieces_and_whole() -> None:
    sizes = [100, *[98_000] * 100, *[100] * 100]
    log = Log(*[entry(seq, size=size) for seq, size in enumerate(sizes, start=1)])
    one = pump(log)
    one.start(0, len(sizes), 10_000)
    pieces: list[list[bytes]] = []
    while one.stirred.is_set():
        one.stirred.clear()
        pieces.append(one.take_entries())
    assert [seq for piece in pieces for seq in positions(piece)] == list(range(1, len(sizes) + 1))
    assert max(sum(map(len, piece)) for piece in pieces) <= BYTES_AT_ONCE
    # What is cut off a page is read again, so a page must not stay much larger than a piece.
    assert sum(limit for _, limit in log.reads) < 5 * len(sizes)


def test_positions_whose_messages_have_expired_are_passed_over() -> None:
    log = Log(entry(2), head=9)
    one = pump(log)
    one.start(0, 9, 100)
    frames = take_all(one)
    assert (positions(frames), kinds(frames)) == ([2], ["message", "caught_up"])
    one.offer(entries(10, 10))
    assert positions(take_all(one)) == [10]


# Own entries.


def test_own_entries_are_skipped_whether_offered_or_read() -> None:
    log = Log()
    one = started(log)
    mine = one.origin
    one.offer([entry(1), entry(2, mine), entry(3)])
    assert positions(take_all(one)) == [1, 3]
    log.held += [entry(4, mine), entry(5), entry(6, mine)]
    one.reach(6)
    assert positions(take_all(one)) == [5]


def test_what_another_connection_of_the_user_sent_is_sent() -> None:
    one = started(Log())
    one.offer([entry(1, pump().origin)])
    assert positions(take_all(one)) == [1]


def test_own_entries_take_no_room() -> None:
    one = started(Log(), room=2)
    one.offer([entry(seq, one.origin) for seq in range(1, 11)])
    one.offer(entries(11, 12))
    assert positions(take_all(one)) == [11, 12]


# The window.


def test_no_more_than_the_window_is_sent_without_an_ack() -> None:
    log = Log(*entries(1, 10))
    one = started(log, room=4)
    one.reach(10)
    assert positions(take_all(one)) == [1, 2, 3, 4]
    one.ack(3)
    assert positions(take_all(one)) == [5, 6, 7]
    one.ack(7)
    assert positions(take_all(one)) == [8, 9, 10]


def test_a_full_window_reads_nothing_and_stirs_nobody() -> None:
    log = Log(*entries(1, 10))
    one = started(log, room=2)
    one.reach(10)
    take_all(one)
    reads = len(log.reads)
    one.offer(entries(11, 11))
    one.stirred.clear()
    assert one.take_entries() == []
    assert not one.stirred.is_set()
    assert len(log.reads) == reads


def test_offers_beyond_the_window_wait_without_the_database() -> None:
    log = Log()
    one = started(log, room=2)
    one.offer(entries(1, 5))
    assert positions(take_all(one)) == [1, 2]
    one.ack(2)
    assert positions(take_all(one)) == [3, 4]
    assert log.reads == []


# The end of the backlog.


def test_caught_up_comes_once_after_the_backlog() -> None:
    one = pump(Log(*entries(1, 3)))
    one.start(0, 3, 100)
    assert kinds(take_all(one)) == ["message", "message", "message", "caught_up"]
    one.offer(entries(4, 4))
    assert kinds(take_all(one)) == ["message"]


def test_caught_up_names_the_head_at_the_start_even_when_more_came_meanwhile() -> None:
    one = pump(Log(*entries(1, 5)))
    one.start(0, 3, 100)
    one.reach(5)
    frames = parsed(take_all(one))
    assert [frame["head"] for frame in frames if frame["type"] == "caught_up"] == [3]


def test_caught_up_waits_for_the_acks_that_the_backlog_needs() -> None:
    one = pump(Log(*entries(1, 3)))
    one.start(0, 3, 2)
    assert kinds(take_all(one)) == ["message", "message"]
    one.ack(1)
    assert kinds(take_all(one)) == ["message", "caught_up"]


def test_an_entry_that_is_offered_before_the_start_is_not_lost() -> None:
    log = Log(*entries(1, 3))
    one = pump(log)
    one.offer(entries(3, 3))
    one.start(0, 2, 100)
    assert positions(take_all(one)) == [1, 2, 3]


# Acks.


def test_an_ack_is_committed_and_the_next_one_after_it() -> None:
    acks = Acks()
    one = started(Log(*entries(1, 5)), acks)
    one.reach(5)
    take_all(one)
    for seq in (1, 2, 4):
        one.ack(seq)
    assert acks.wanted == [1]
    one.acked(1)
    assert acks.wanted == [1, 4]
    one.acked(4)
    assert acks.wanted == [1, 4]


def test_a_lower_ack_than_before_is_ignored() -> None:
    acks = Acks()
    one = started(Log(*entries(1, 5)), acks)
    one.reach(5)
    take_all(one)
    one.ack(4)
    one.acked(4)
    one.ack(2)
    assert acks.wanted == [4]


def test_an_ack_that_is_repeated_is_committed_once() -> None:
    acks = Acks()
    one = started(Log(*entries(1, 5)), acks)
    one.reach(5)
    take_all(one)
    for _ in range(3):
        one.ack(4)
    one.acked(4)
    for _ in range(3):
        one.ack(4)
    assert acks.wanted == [4]


def test_an_ack_beyond_what_was_sent_is_refused() -> None:
    acks = Acks()
    one = started(Log(*entries(1, 5)), acks, room=3)
    one.reach(5)
    take_all(one)
    with pytest.raises(BadRequest):
        one.ack(4)
    assert acks.wanted == []


def test_an_ack_of_an_own_position_that_is_not_reached_yet_counts_when_it_is() -> None:
    acks = Acks()
    log = Log(entry(1))
    one = started(log, acks)
    one.begin_request()
    one.end_request(own_seq=2)
    one.ack(2)
    assert [seq for seq in acks.wanted if seq > 0] == []
    log.held.append(entry(2, one.origin))
    one.reach(2)
    assert positions(take_all(one)) == [1]
    assert acks.wanted[-1] == 2


def test_an_own_position_that_nobody_named_cannot_be_acknowledged_early() -> None:
    one = started(Log())
    with pytest.raises(BadRequest):
        one.ack(1)


def test_an_ack_reaches_over_own_entries_when_nothing_else_is_in_flight() -> None:
    acks = Acks()
    one = started(Log(), acks)
    one.offer([entry(1), entry(2, one.origin)])
    take_all(one)
    one.ack(1)
    assert acks.wanted == [2]


def test_an_ack_that_failed_is_answered_and_can_be_repeated() -> None:
    acks = Acks()
    one = started(Log(), acks)
    one.offer(entries(1, 1))
    take_all(one)
    one.ack(1)
    one.ack_failed(Unavailable())
    [error] = parsed(one.take_replies())
    assert (error["type"], error["code"], error["ref"]) == ("error", "unavailable", None)
    one.ack(1)
    assert acks.wanted == [1, 1]


# Trouble.


def test_a_refusal_of_the_database_loses_neither_replies_nor_entries() -> None:
    log = Log(*entries(1, 2))
    one = started(log)
    one.reply(b"answer")
    one.reach(2)
    log.is_down = True
    with pytest.raises(Unavailable):
        one.take_entries()
    assert one.take_replies() == [b"answer"]
    log.is_down = False
    assert positions(take_all(one)) == [1, 2]


def test_offers_need_no_database_while_it_is_away() -> None:
    log = Log()
    log.is_down = True
    one = started(log)
    one.offer(entries(1, 2))
    assert positions(take_all(one)) == [1, 2]


# Replies.


def test_replies_keep_their_order_and_are_given_out_once() -> None:
    one = pump()
    for number in range(5):
        one.reply(str(number).encode())
    assert one.take_replies() == [b"0", b"1", b"2", b"3", b"4"]
    assert one.take_replies() == []


def test_ephemeral_frames_are_dropped_when_the_client_does_not_keep_up() -> None:
    one = pump()
    for number in range(MAX_EPHEMERAL + 50):
        one.tell(str(number).encode())
    assert len(one.take_replies()) == MAX_EPHEMERAL
    one.tell(b"again")
    assert one.take_replies() == [b"again"]


def test_a_client_has_room_below_the_limit() -> None:
    one = pump()
    for _ in range(MAX_UNANSWERED - 1):
        one.begin_request()
    assert not one.is_full


def test_a_client_with_too_many_open_requests_has_room_when_an_answer_is_taken() -> None:
    one, answered = pump(), threading.Event()
    one.attach(threading.Event(), answered)
    for _ in range(MAX_UNANSWERED):
        one.begin_request()
    one.end_request(b"answer")
    # The answer still waits for the writer: there is as much as before.
    assert one.is_full
    answered.clear()
    assert one.take_replies() == [b"answer"]
    assert answered.is_set()
    assert not one.is_full


def test_a_client_that_does_not_read_its_answers_has_no_room_either() -> None:
    one = pump()
    for _ in range(MAX_UNANSWERED):
        one.reply(b"pong")
    assert one.is_full
    one.take_replies()
    assert not one.is_full


def test_closing_ends_the_wait_for_room() -> None:
    one, answered = pump(), threading.Event()
    for _ in range(MAX_UNANSWERED):
        one.begin_request()
    one.attach(threading.Event(), answered)
    answered.clear()
    one.close(1001)
    assert answered.is_set()
    assert not one.is_full


def test_who_attaches_late_looks_at_once() -> None:
    one, stirred = pump(), threading.Event()
    one.reply(b"before")
    one.attach(stirred, threading.Event())
    assert stirred.is_set()


def test_the_first_close_code_stays_and_the_writer_hears_of_it() -> None:
    one = pump()
    one.close(4401)
    one.close(1011)
    assert one.close_code == 4401
    assert one.stirred.is_set()


def test_offers_from_other_threads_arrive_whole_and_in_order() -> None:
    log = Log()
    one = started(log, room=10_000)
    last = 2000
    arrived: list[int] = []

    def write() -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(arrived) < last and time.monotonic() < deadline:
            # A gap is looked at again though nothing stirs.
            one.stirred.wait(pump_module.GAP_SECONDS)
            one.stirred.clear()
            arrived.extend(positions(one.take_entries()))

    writer = threading.Thread(target=write)
    writer.start()
    for seq in range(1, last + 1):
        new = entry(seq)
        log.held.append(new)
        one.offer([new])
    writer.join(DEADLINE_SECONDS)
    assert arrived == list(range(1, last + 1))
