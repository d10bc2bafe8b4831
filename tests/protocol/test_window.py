"""One connection's place in its mailbox: what may be sent, and how far an ack reaches."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flask_e2emsg.errors import BadRequest
from flask_e2emsg.protocol.window import Window


class TestRoom:
    def test_no_more_than_the_limit_may_be_in_flight(self) -> None:
        window = Window(start=0, max_in_flight=3)
        for seq in (1, 2, 3):
            assert window.room > 0
            window.passed([seq], seq)
        assert (window.room, window.position) == (0, 3)

    def test_an_ack_makes_room_for_as_many_as_it_covers(self) -> None:
        window = Window(0, 3)
        for seq in (1, 2, 3):
            window.passed([seq], seq)
        assert window.ack(2) == 2
        assert window.room == 2

    def test_what_is_skipped_takes_no_room(self) -> None:
        window = Window(0, 1)
        window.passed([], 5)
        assert (window.room, window.position) == (1, 5)

    def test_position_never_goes_back(self) -> None:
        window = Window(7, 3)
        window.passed([], 4)
        assert window.position == 7


class TestAck:
    def test_an_ack_repeated_or_lower_than_before_changes_nothing(self) -> None:
        window = Window(0, 5)
        for seq in (1, 2, 3):
            window.passed([seq], seq)
        assert [window.ack(2), window.ack(1), window.ack(2)] == [2, 2, 2]
        assert window.room == 4

    @pytest.mark.parametrize("start", [0, 10])
    def test_what_was_never_sent_cannot_be_acknowledged(self, start: int) -> None:
        window = Window(start, 5)
        window.passed([start + 1], start + 1)
        with pytest.raises(BadRequest):
            window.ack(start + 2)
        assert window.room == 4

    def test_an_ack_of_everything_reaches_over_what_was_skipped_behind_it(self) -> None:
        window = Window(0, 5)
        window.passed([1], 1)
        window.passed([], 4)
        assert window.ack(1) == 4

    def test_what_was_skipped_behind_an_entry_in_flight_waits_for_it(self) -> None:
        window = Window(0, 5)
        window.passed([1], 1)
        window.passed([], 2)
        window.passed([3], 3)
        assert window.ack(1) == 1
        assert window.ack(3) == 3

    def test_an_own_position_may_be_acknowledged_before_it_is_reached(self) -> None:
        window = Window(0, 5)
        window.passed([1], 1)
        window.accepted(3)
        assert window.ack(3) == 1
        with pytest.raises(BadRequest):
            window.ack(4)


class TestPromised:
    def test_the_rest_of_an_early_ack_counts_when_it_is_reached(self) -> None:
        window = Window(0, 5)
        window.accepted(2)
        assert window.ack(2) == 0
        assert window.promised() is None
        window.passed([1], 1)
        assert window.promised() == 1
        window.passed([], 2)
        assert window.promised() == 2

    def test_nothing_is_promised_twice(self) -> None:
        window = Window(0, 5)
        window.accepted(1)
        window.ack(1)
        window.passed([], 1)
        assert window.promised() == 1
        assert window.promised() is None

    def test_what_nobody_acknowledged_is_not_promised(self) -> None:
        window = Window(0, 5)
        window.passed([1], 1)
        window.accepted(2)
        window.passed([], 2)
        assert window.promised() is None


class AnyClient(RuleBasedStateMachine):
    """Whatever a client does, against a plain list of what is in flight."""

    LIMIT = 4

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(0, self.LIMIT)
        self.unacknowledged: list[int] = []
        self.told = 0
        self.promise = 0
        self.reached = 0

    @rule()
    def send(self) -> None:
        if self.window.room:
            self.window.passed([self.window.position + 1], self.window.position + 1)
            self.unacknowledged.append(self.window.position)
            self.settle(self.window.promised())

    @rule()
    def skip(self) -> None:
        self.window.passed([], self.window.position + 1)
        self.settle(self.window.promised())

    @rule(ahead=st.integers(1, 5))
    def accept(self, ahead: int) -> None:
        self.told = max(self.told, self.window.position + ahead)
        self.window.accepted(self.window.position + ahead)

    @rule(seq=st.integers(0, 60))
    def ack(self, seq: int) -> None:
        if seq > max(self.window.position, self.told):
            with pytest.raises(BadRequest):
                self.window.ack(seq)
            return
        self.promise = max(self.promise, seq)
        self.settle(self.window.ack(seq))

    def settle(self, reached: int | None) -> None:
        self.unacknowledged = [seq for seq in self.unacknowledged if seq > self.promise]
        if reached is not None:
            assert self.reached <= reached <= self.window.position
            assert not [seq for seq in self.unacknowledged if seq <= reached]
            self.reached = reached

    @invariant()
    def room_is_what_the_limit_leaves(self) -> None:
        assert self.window.room == self.LIMIT - len(self.unacknowledged)


TestAnyClient = AnyClient.TestCase
