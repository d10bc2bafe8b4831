"""The evidence once more, by what the invariants ask for, and what they answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.crucible.evidence import Evidence
from tests.crucible.journal import Event, of_kind


@dataclass(frozen=True)
class Violation:
    """One thing that must not be."""

    invariant: str
    user_id: str
    text: str
    message_id: str | None = None

    def __str__(self) -> str:
        return f"{self.invariant} {self.user_id}: {self.text}"


@dataclass
class Books:
    """The evidence once more, by what the invariants ask for."""

    evidence: Evidence
    sent: dict[str, Event] = field(default_factory=dict)  # the first time, by id
    senders: dict[str, str] = field(default_factory=dict)  # by id
    accepted: dict[str, list[Event]] = field(default_factory=dict)  # by id
    received: dict[str, dict[str, list[Event]]] = field(default_factory=dict)  # by user, by id
    meddled: dict[str, Event] = field(default_factory=dict)  # by content

    @classmethod
    def of(cls, evidence: Evidence) -> Books:
        books = cls(evidence)
        for user_id, events in evidence.journals.items():
            books._enter(user_id, events)
        return books

    def _enter(self, user_id: str, events: Sequence[Event]) -> None:
        received = self.received.setdefault(user_id, defaultdict(list))
        for event in events:
            match event["what"]:
                case "sent":
                    self.sent.setdefault(event["id"], event)
                    self.senders[event["id"]] = user_id
                case "accepted":
                    self.accepted.setdefault(event["id"], []).append(event)
                case "meddled":
                    self.meddled[event["content"]] = event
                case "entry" if event["frame"]["type"] == "message":
                    received[event["frame"]["id"]].append(event)

    def entries(self, user_id: str) -> list[Event]:
        return of_kind(self.evidence.journals[user_id], "entry")
