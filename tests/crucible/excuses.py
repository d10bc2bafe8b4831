"""What a fault explains: not everything that looks like a violation under faults is one.

Each excuse is as narrow as it can be told from outside, in time and in whom it is for.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.crucible.books import Books
from tests.crucible.evidence import Fault
from tests.crucible.journal import Event, of_kind

# After these a connection may end without a close frame, for so many seconds: a frozen or slow one
# may be found out late.
BREAKING = {
    "kill_worker": 3.0,
    "kill_master": 3.0,
    "reset_clients": 3.0,
    "freeze_clients": 12.0,
    "slow_clients": 12.0,
    "pause_worker": 12.0,
}
SILENCING = ("freeze_clients", "slow_clients", "pause_worker")
# A full disk is not among these: it loses no connection and no answer.
DATABASE_FAULTS = (
    *("restart_postgres", "end_backends", "cut_database", "freeze_database"),
    *("swallow_answers", "read_only"),
)
BUS_FAULTS = ("kill_redis", "stop_redis", "cut_bus")
AFTERMATH_SECONDS = 12.0  # in which what a fault has done may still be noticed
LATE_SECONDS = 4.0  # the sweep's pace, and as much again
ANSWER_SECONDS = 2.0  # from when a database is back until the last answer that suffered from it


def explains_loss(faults: Sequence[Fault], closed: Event) -> bool:
    """Whether a fault has cut this connection: who stops in peace has to say so."""
    return any(_has_hit(fault, closed) for fault in faults)


def explains_silence(faults: Sequence[Fault], closed: Event) -> bool:
    """Whether a fault has kept client and server from hearing each other."""
    return any(fault.name in SILENCING and _has_hit(fault, closed) for fault in faults)


def lost_its_database(faults: Sequence[Fault], event: Event) -> bool:
    """Whether the host itself may have failed.

    The host's own session is closed after our answer is made, and Flask answers 500 in its place
    when the connection to the database has ended meanwhile.
    """
    return event["status"] == 500 and any(
        fault.name in DATABASE_FAULTS and fault.began <= event["at"] <= fault.ended + ANSWER_SECONDS
        for fault in faults
    )


def may_be_overtaken(books: Books, sender: str) -> set[str]:
    """Messages that were refused for now, or may have been in an answer that was lost."""
    events = books.evidence.journals.get(sender, ())
    refused = {(one["connection"], one["id"]) for one in of_kind(events, "refused")}
    answered = refused | {(one["connection"], one["id"]) for one in of_kind(events, "accepted")}
    found = {message_id for _, message_id in refused}
    for one in of_kind(events, "sent"):
        is_unanswered = (one["connection"], one["id"]) not in answered
        if is_unanswered and _is_near(books.evidence.faults, DATABASE_FAULTS, one["at"]):
            found.add(one["id"])
    return found


def has_other_fault(faults: Sequence[Fault], at: float, but: Fault) -> bool:
    """Whether more than the bus may have been away at that time."""
    others = [fault for fault in faults if fault is not but]
    return any(
        one.began - LATE_SECONDS <= at <= one.ended + AFTERMATH_SECONDS
        for one in others
        if one.name not in BUS_FAULTS
    )


def was_there(events: Sequence[Event], since: float, until: float) -> bool:
    """Whether one connection was open all that time."""
    opened = [one for one in of_kind(events, "opened") if one["at"] < since]
    if not opened:
        return False
    number = opened[-1]["connection"]
    return not any(
        one["connection"] == number and one["at"] <= until for one in of_kind(events, "closed")
    )


def _has_hit(fault: Fault, closed: Event) -> bool:
    return (
        fault.name in BREAKING
        and fault.master in (None, closed["master"])
        and fault.began <= closed["at"] <= fault.ended + BREAKING[fault.name]
    )


def _is_near(faults: Sequence[Fault], names: Sequence[str], at: float) -> bool:
    return any(
        fault.began - AFTERMATH_SECONDS <= at <= fault.ended + AFTERMATH_SECONDS
        for fault in faults
        if fault.name in names
    )
