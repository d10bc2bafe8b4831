"""What a trial measured: each fault by itself, and the traffic second by second.

Pure functions of the evidence. A message counts as hit by a fault when it was accepted during the
fault or shortly after.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.crucible.books import Violation
from tests.crucible.evidence import Evidence, Fault
from tests.crucible.excuses import BUS_FAULTS
from tests.crucible.journal import Event, of_kind

SHADOW_SECONDS = 5.0  # after a fault, in which what happens counts as its doing
MANY = 10  # clients, of whom somebody always writes
NEAR_SECONDS = 1.0  # after a fault, in which answers may be slow because of it
# From their end on the server can work again; the others are over as soon as they have begun.
LASTING = (
    *("restart_postgres", "freeze_database", "read_only", "disk_full", "pause_worker"),
    *("freeze_clients", "slow_clients"),
)
AIMS = {"kill_worker": 3.0, "kill_master": 3.0, "restart_postgres": 5.0, "end_backends": 5.0}


@dataclass(frozen=True)
class Effect:
    """What became of messages and clients during one fault and shortly after.

    Attributes:
        first_ack: seconds until a message that was written after the fault was accepted, to a
            client that had lost its connection, or to anybody if there are few of those; None if
            nothing was written after it.
        back: seconds until the last of those clients was connected again.
    """

    fault: Fault
    accepted: int
    lost: int
    duplicated: int
    disconnected: int
    first_ack: float | None
    back: float | None


@dataclass(frozen=True)
class Second:
    """One second of the traffic; latencies in seconds, None where nothing happened."""

    accepted: int
    received: int
    ack_p50: float | None
    ack_p99: float | None
    delivery_p99: float | None


@dataclass(frozen=True)
class Latencies:
    """How long acks took while no bus fault was on, and while one was."""

    usual_p50: float | None
    usual_p99: float | None
    without_bus_p50: float | None
    without_bus_p99: float | None


@dataclass(frozen=True)
class _Message:
    id: str
    sender: str
    sent_at: float
    accepted_at: float


def effects(evidence: Evidence, violations: Sequence[Violation]) -> list[Effect]:
    """One for each fault, in the order in which they were injected."""
    messages = list(_messages(evidence))
    lost = {one.message_id for one in violations if one.invariant == "I1" and "lost" in one.text}
    twice = {one.message_id for one in violations if one.invariant in ("I1", "I7")} - lost
    return [_effect(evidence, messages, fault, lost, twice) for fault in evidence.faults]


def timeline(evidence: Evidence) -> list[Second]:
    """The traffic from its beginning to its end."""
    count = max(1, math.ceil(evidence.ended - evidence.began))
    acks: list[list[float]] = [[] for _ in range(count)]
    deliveries: list[list[float]] = [[] for _ in range(count)]
    sent_at = {}
    for message in _messages(evidence):
        sent_at[message.id] = message.sent_at
        _drop_into(acks, message.accepted_at - evidence.began, message)
    for message_id, at in _first_receipts(evidence).items():
        if message_id in sent_at:
            place = int(at - evidence.began)
            if 0 <= place < count:
                deliveries[place].append(at - sent_at[message_id])
    return [
        Second(
            len(waited),
            len(came),
            percentile(waited, 50),
            percentile(waited, 99),
            percentile(came, 99),
        )
        for waited, came in zip(acks, deliveries, strict=True)
    ]


def latencies(evidence: Evidence) -> Latencies:
    """Acks while only the bus was away, against those while nothing was."""
    usual, without = [], []
    for message in _messages(evidence):
        waited = message.accepted_at - message.sent_at
        near = [one for one in evidence.faults if _is_on(one, message.sent_at)]
        if not near:
            usual.append(waited)
        elif all(fault.name in BUS_FAULTS for fault in near):
            without.append(waited)
    return Latencies(
        percentile(usual, 50),
        percentile(usual, 99),
        percentile(without, 50),
        percentile(without, 99),
    )


def counts(evidence: Evidence) -> dict[str, int]:
    """How much happened."""
    events = [event for journal in evidence.journals.values() for event in journal]
    whats = [event["what"] for event in events]
    accepted = {one["id"] for one in of_kind(events, "accepted")}
    refused = of_kind(events, "refused")
    conflicts = sum(1 for one in refused if one["code"] == "id_conflict")
    return {
        "messages accepted": len(accepted),
        "sends, with repetitions": whats.count("sent"),
        "of these by `send_many`": sum(1 for one in of_kind(events, "sent") if one["bundle"]),
        "duplicates that were recognised": sum(
            1 for one in of_kind(events, "accepted") if one["duplicate"]
        ),
        "ids used again for something else": sum(
            1 for one in of_kind(events, "meddled") if one["id"] in accepted
        ),
        "of these refused": conflicts,
        "refusals for now": len(refused) - conflicts,
        "refusals as `internal`": sum(1 for one in refused if one["code"] == "internal"),
        "connections": whats.count("opened"),
        "handshakes turned away": whats.count("turned_away"),
        "connections closed with 1011": sum(
            1 for one in of_kind(events, "closed") if one["code"] == 1011
        ),
        "connections that clients gave up": sum(
            1 for one in of_kind(events, "closed") if one["by"] == "me" and one["code"] == 1006
        ),
        "entries received": whats.count("entry"),
        "looks at REST": whats.count("rest"),
        "of these answered with 500": sum(
            1 for one in of_kind(events, "rest") if one["status"] == 500
        ),
    }


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def _effect(
    evidence: Evidence,
    messages: Sequence[_Message],
    fault: Fault,
    lost: set[str | None],
    twice: set[str | None],
) -> Effect:
    since = fault.ended if fault.name in LASTING else fault.began
    hit = [one for one in messages if _is_shadowed(fault, one.accepted_at)]
    victims = _victims(evidence, fault)
    # A few may happen to have nothing to write for a while.
    mine = [one for one in messages if len(victims) < MANY or one.sender in victims]
    first = min((one.accepted_at for one in mine if one.sent_at >= since), default=None)
    return Effect(
        fault,
        accepted=len(hit),
        lost=sum(1 for one in hit if one.id in lost),
        duplicated=sum(1 for one in hit if one.id in twice),
        disconnected=len(victims),
        first_ack=None if first is None else first - since,
        back=max(victims.values(), default=None),
    )


def _victims(evidence: Evidence, fault: Fault) -> dict[str, float]:
    """Who lost a connection that the fault can have hit, and for how many seconds."""
    found = {}
    for user_id, events in evidence.journals.items():
        for closed in of_kind(events, "closed"):
            is_hit = fault.master is None or closed["master"] == fault.master
            if is_hit and fault.began <= closed["at"] <= fault.ended + 1.0:
                again = [one["at"] for one in of_kind(events, "opened") if one["at"] > closed["at"]]
                if again:
                    found[user_id] = min(again) - closed["at"]
    return found


def _messages(evidence: Evidence) -> Iterator[_Message]:
    """Everything that was accepted, with the first time that it was sent."""
    for user_id, events in evidence.journals.items():
        sent: dict[str, float] = {}
        seen: set[str] = set()
        for event in of_kind(events, "sent", "accepted"):
            if event["what"] == "sent":
                sent.setdefault(event["id"], event["at"])
            elif event["id"] in sent and event["id"] not in seen:
                seen.add(event["id"])
                yield _Message(event["id"], user_id, sent[event["id"]], event["at"])


def _first_receipts(evidence: Evidence) -> dict[str, float]:
    """When each message first came to its recipient."""
    found: defaultdict[str, float] = defaultdict(lambda: math.inf)
    for user_id, events in evidence.journals.items():
        for event in of_kind(events, "entry"):
            if _is_to(user_id, event):
                message_id = event["frame"]["id"]
                found[message_id] = min(found[message_id], event["at"])
    return found


def _is_to(user_id: str, event: Event) -> bool:
    frame = event["frame"]
    return bool(frame["type"] == "message" and frame["recipient"] == user_id)


def _drop_into(acks: list[list[float]], at: float, message: _Message) -> None:
    if 0 <= int(at) < len(acks):
        acks[int(at)].append(message.accepted_at - message.sent_at)


def _is_on(fault: Fault, at: float) -> bool:
    return fault.began <= at <= fault.ended + NEAR_SECONDS


def _is_shadowed(fault: Fault, at: float) -> bool:
    return fault.began <= at <= fault.ended + SHADOW_SECONDS
