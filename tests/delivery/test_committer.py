"""What waits becomes one transaction: in order, answered after it, one fault failing alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from flask_e2emsg.delivery import committer
from flask_e2emsg.delivery.committer import (
    ENOUGH_MARKS,
    MAX_BATCH_BYTES,
    MAX_BATCH_MESSAGES,
    Committer,
    Operation,
    Outcome,
)
from flask_e2emsg.errors import IdConflict, Internal, Refusal, SchemaMissing, Unavailable
from flask_e2emsg.protocol.entries import Entry
from flask_e2emsg.protocol.values import now
from flask_e2emsg.store.mailbox import Ack, Append, Appended, Committed, Read
from tests.delivery.fakes import ALICE, BOB, DEADLINE_SECONDS, entries, outgoing, wait_for


class Boxes:
    """Mailboxes that record what they are asked to commit, and fail as they are told."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.batches: list[list[Operation]] = []
        self.fault: Callable[[Operation], BaseException | None] = lambda _: None
        self.refused: Callable[[Operation], Refusal | None] = lambda _: None
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.is_committing = threading.Event()
        self.published: list[Mapping[str, list[Entry]]] = []
        self.is_open = False

    def commit(self, kind: str) -> Callable[[Sequence[Any]], Committed]:
        def work(operations: Sequence[Operation]) -> Committed:
            self.is_committing.set()
            assert self.may_commit.wait(DEADLINE_SECONDS)
            self.batches.append(list(operations))
            for operation in operations:
                if failure := self.fault(operation):
                    self.story.append(f"{kind} failed")
                    raise failure
            self.story.append(kind if not self.is_open else f"{kind} within")
            outcomes = [self.refused(one) or answer(one) for one in operations]
            return Committed(outcomes, {"bob": entries(1, len(operations))})

        return work

    @contextmanager
    def together(self) -> Iterator[None]:
        self.is_open = True
        self.story.append("begin")
        try:
            yield
            self.story.append("commit")
        except BaseException:
            self.story.append("rollback")
            raise
        finally:
            self.is_open = False

    def publish(self, new: Mapping[str, list[Entry]]) -> None:
        self.story.append("publish")
        self.published.append(new)


def answer(operation: Operation) -> Outcome:
    if isinstance(operation, Append):
        return Appended(now(), True, 1)
    return operation.seq if isinstance(operation, Ack) else len(operation.ids)


class Asking:
    """A committer under test, and the outcomes that it has given."""

    def __init__(self, boxes: Boxes) -> None:
        self.committer = Committer(
            "committer under test",
            boxes.commit("append"),
            boxes.commit("ack"),
            boxes.commit("read"),
            boxes.together,
            boxes.publish,
        )
        self.outcomes: dict[int, Outcome] = {}
        self.order: list[int] = []
        self._arrived = threading.Condition()
        self._story = boxes.story

    def submit(self, number: int, operation: Operation) -> None:
        def done(outcome: Outcome) -> None:
            with self._arrived:
                self.outcomes[number] = outcome
                self.order.append(number)
                self._story.append("answer")
                self._arrived.notify_all()

        self.committer.submit(operation, done)

    def answers(self, count: int) -> dict[int, Outcome]:
        """The outcomes, once there are so many."""
        with self._arrived:
            enough = self._arrived.wait_for(lambda: len(self.order) >= count, DEADLINE_SECONDS)
            assert enough, f"{len(self.order)} of {count} answers"
        return self.outcomes


@pytest.fixture
def boxes() -> Boxes:
    return Boxes()


@pytest.fixture
def asking(boxes: Boxes) -> Asking:
    return Asking(boxes)


def send(text: str = "hello") -> Append:
    return Append(ALICE, [BOB], [outgoing(BOB, text)], keeps_sent=True)


def ack(seq: int = 1) -> Ack:
    return Ack(BOB, seq)


def read() -> Read:
    return Read(BOB, [outgoing(BOB).id])


def while_busy(boxes: Boxes, asking: Asking, operations: Sequence[Operation]) -> None:
    """Have operations arrive while a first one, number 0, is being committed."""
    boxes.may_commit.clear()
    asking.submit(0, send("first"))
    wait_for(boxes.is_committing)
    for number, operation in enumerate(operations, start=1):
        asking.submit(number, operation)
    assert asking.order == []
    boxes.may_commit.set()


def test_one_operation_does_not_wait_for_others(boxes: Boxes, asking: Asking) -> None:
    asking.submit(1, send())
    assert isinstance(asking.answers(1)[1], Appended)
    assert [len(batch) for batch in boxes.batches] == [1]


def test_what_arrives_during_a_commit_becomes_the_next_batch(boxes: Boxes, asking: Asking) -> None:
    later = [send() for _ in range(10)]
    while_busy(boxes, asking, later)
    asking.answers(11)
    assert [len(batch) for batch in boxes.batches] == [1, 10]
    assert boxes.batches[1] == later
    assert asking.order == list(range(11))


def test_an_answer_comes_after_the_commit_and_before_the_wake_up(
    boxes: Boxes, asking: Asking
) -> None:
    asking.submit(1, send())
    asking.answers(1)
    asking.submit(2, send())
    asking.answers(2)
    assert boxes.story[:3] == ["append", "answer", "publish"]


def test_nothing_is_answered_while_the_commit_is_under_way(boxes: Boxes, asking: Asking) -> None:
    boxes.may_commit.clear()
    asking.submit(1, send())
    wait_for(boxes.is_committing)
    assert asking.order == []
    assert boxes.published == []
    boxes.may_commit.set()
    asking.answers(1)


def test_the_three_kinds_share_one_transaction(boxes: Boxes, asking: Asking) -> None:
    while_busy(boxes, asking, [read(), send(), ack(), send()])
    asking.answers(5)
    story = boxes.story[boxes.story.index("begin") :]
    assert story[:5] == ["begin", "append within", "ack within", "read within", "commit"]
    assert story[5:].count("answer") == 4
    assert "answer" not in story[:5]


def test_one_kind_alone_needs_no_common_transaction(boxes: Boxes, asking: Asking) -> None:
    while_busy(boxes, asking, [ack(1), ack(2)])
    asking.answers(3)
    assert "begin" not in boxes.story
    assert (asking.outcomes[1], asking.outcomes[2]) == (1, 2)


def test_one_faulty_operation_fails_alone(
    boxes: Boxes, asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    operations = [send(f"text {number}") for number in range(1, 12)]
    boxes.fault = lambda one: RuntimeError("bad") if one is operations[6] else None
    while_busy(boxes, asking, operations)
    outcomes = asking.answers(12)
    assert isinstance(outcomes[7], Internal)
    good = [outcome for number, outcome in outcomes.items() if number != 7]
    assert all(isinstance(outcome, Appended) for outcome in good)
    assert asking.order == list(range(12))
    assert caplog.messages == ["a commit failed: RuntimeError"]


def test_two_faulty_operations_fail_alone(boxes: Boxes, asking: Asking) -> None:
    operations = [send() for _ in range(8)]
    bad = [operations[0], operations[5]]
    boxes.fault = lambda one: ValueError() if any(one is culprit for culprit in bad) else None
    while_busy(boxes, asking, operations)
    outcomes = asking.answers(9)
    assert [n for n, outcome in outcomes.items() if isinstance(outcome, Internal)] == [1, 6]


def test_a_faulty_ack_does_not_take_the_sends_of_its_transaction_along(
    boxes: Boxes, asking: Asking
) -> None:
    operations: list[Operation] = [send(), ack(), send(), read()]
    boxes.fault = lambda one: RuntimeError() if one is operations[1] else None
    while_busy(boxes, asking, operations)
    outcomes = asking.answers(5)
    assert [n for n, outcome in outcomes.items() if isinstance(outcome, Internal)] == [2]
    assert "rollback" in boxes.story


def test_what_was_stored_once_is_published_once_when_a_batch_is_halved(
    boxes: Boxes, asking: Asking
) -> None:
    operations = [send() for _ in range(4)]
    boxes.fault = lambda one: RuntimeError() if one is operations[3] else None
    while_busy(boxes, asking, operations)
    asking.answers(5)
    asking.submit(9, send())  # when this is answered, what came before has been published
    asking.answers(6)
    assert [len(new["bob"]) for new in boxes.published[:3]] == [1, 2, 1]
    assert len(boxes.published) <= 4


def test_when_the_database_is_away_everybody_hears_so_and_nothing_is_tried_again(
    boxes: Boxes, asking: Asking
) -> None:
    boxes.fault = lambda _: Unavailable()
    while_busy(boxes, asking, [send(), send(), ack()])
    outcomes = asking.answers(4)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes.values())
    assert len(boxes.batches) == 2
    assert boxes.published == []


def test_a_refusal_of_one_operation_is_the_answer_to_that_one(boxes: Boxes, asking: Asking) -> None:
    operations = [send(), send(), send()]
    boxes.refused = lambda one: IdConflict() if one is operations[1] else None
    while_busy(boxes, asking, operations)
    outcomes = asking.answers(4)
    assert [type(outcomes[n]) for n in (1, 2, 3)] == [Appended, IdConflict, Appended]


def test_missing_tables_are_said_once_with_the_cure(
    boxes: Boxes, asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    boxes.fault = lambda _: SchemaMissing()
    while_busy(boxes, asking, [send() for _ in range(5)])
    outcomes = asking.answers(6)
    assert all(isinstance(outcome, Internal) for outcome in outcomes.values())
    assert len(caplog.messages) == 2  # of two batches
    assert all("flask db upgrade" in message for message in caplog.messages)


def test_what_the_driver_says_stays_out_of_the_log(
    boxes: Boxes, asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    boxes.fault = lambda _: RuntimeError("INSERT ... 'c2VjcmV0'")
    asking.submit(1, send())
    asking.answers(1)
    assert "c2VjcmV0" not in caplog.text


def test_a_callback_that_fails_takes_nobody_along(
    boxes: Boxes, asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Outcome) -> None:
        raise RuntimeError("a fault of the callback")

    boxes.may_commit.clear()
    asking.committer.submit(send(), fail)
    wait_for(boxes.is_committing)
    asking.submit(1, send())
    boxes.may_commit.set()
    assert isinstance(asking.answers(1)[1], Appended)
    assert any(text.startswith("answering failed: ") for text in caplog.messages)


def test_a_wake_up_that_fails_takes_nobody_along(
    asking: Asking, boxes: Boxes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a fault of the hub")

    monkeypatch.setattr(asking.committer, "_publish", fail)
    asking.submit(1, send())
    asking.submit(2, send())
    assert all(isinstance(outcome, Appended) for outcome in asking.answers(2).values())


@pytest.mark.parametrize(
    ("operations", "largest"),
    [
        ([send() for _ in range(MAX_BATCH_MESSAGES + 50)], MAX_BATCH_MESSAGES),
        ([ack(n) for n in range(MAX_BATCH_MESSAGES + 50)], MAX_BATCH_MESSAGES),
        ([send("x" * (MAX_BATCH_BYTES // 4)) for _ in range(10)], 4),
    ],
    ids=["messages", "acks", "bytes"],
)
def test_a_batch_has_bounds(
    boxes: Boxes, asking: Asking, operations: list[Operation], largest: int
) -> None:
    while_busy(boxes, asking, operations)
    asking.answers(len(operations) + 1)
    sizes = [len(batch) for batch in boxes.batches[1:]]
    assert (max(sizes), sum(sizes)) == (largest, len(operations))
    assert [one for batch in boxes.batches[1:] for one in batch] == operations


def test_few_marks_wait_until_there_are_enough(
    boxes: Boxes, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "GATHER_SECONDS", 2 * DEADLINE_SECONDS)
    for number in range(ENOUGH_MARKS - 1):
        asking.submit(number, ack(number))
    assert not boxes.is_committing.wait(0.2)
    asking.submit(99, ack())
    asking.answers(ENOUGH_MARKS)
    assert [len(batch) for batch in boxes.batches] == [ENOUGH_MARKS]


def test_marks_rest_after_a_batch_however_many_they_are_but_not_when_a_send_comes(
    boxes: Boxes, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "GATHER_SECONDS", 2 * DEADLINE_SECONDS)
    monkeypatch.setattr(committer, "RESTS", 1_000_000)
    asking.submit(0, send())
    asking.answers(1)
    boxes.is_committing.clear()
    for number in range(1, 1 + 2 * ENOUGH_MARKS):
        asking.submit(number, ack(number))
    assert not boxes.is_committing.wait(0.2)
    asking.submit(99, send())
    asking.answers(2 + 2 * ENOUGH_MARKS)
    assert len(boxes.batches) == 3  # the acks and the send are of two kinds


def test_nothing_that_many_threads_submit_is_left_lying(boxes: Boxes, asking: Asking) -> None:
    def submit(thread: int) -> None:
        for number in range(300):
            asking.submit(thread * 1000 + number, ack(number))

    threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    asking.answers(2400)
    for number in range(8):
        mine = [one for one in asking.order if one // 1000 == number]
        assert mine == sorted(mine)
    for one in threads:
        one.join(DEADLINE_SECONDS)


def test_however_many_submit_first_one_thread_commits() -> None:
    boxes = Boxes()
    committing: set[int] = set()
    boxes.fault = lambda _: committing.add(threading.get_ident())
    asking = Asking(boxes)
    together = threading.Barrier(8)

    def submit(number: int) -> None:
        together.wait(DEADLINE_SECONDS)
        asking.submit(number, ack())

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    asking.answers(8)
    assert len(committing) == 1
    for one in threads:
        one.join(DEADLINE_SECONDS)
