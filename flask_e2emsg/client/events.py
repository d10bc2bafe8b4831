"""What a client tells its application. No `repr` shows what people write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .safety import SafetyNumber


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was opened, with everything of it authentic but the server's times."""

    id: str
    sender: str
    recipient: str
    conversation_id: str | None
    type: str  # "text", "reply", "edit", "delete", "reaction", or one that is not known here
    body: str | None = field(repr=False)
    target: str | None  # the id of the message that this one is about
    sent_at: datetime  # by the sender's clock
    created_at: datetime  # by the server's
    mine: bool  # I wrote it, on this device or another one
    position: int | None = None
    delivered_at: datetime | None = None  # in history only
    read_at: datetime | None = None  # in history only

    @property
    def contact(self) -> str:
        """The other one of the two."""
        return self.recipient if self.mine else self.sender


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that does not open. `held`: it will when the sender's key has been accepted."""

    id: str
    contact: str
    reason: str  # the word of the `CannotOpen`
    held: bool
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of mine is stored on the server."""

    id: str
    contact: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """The server did not take a message of mine. Not `final`: it is sent again later."""

    id: str
    contact: str
    code: str
    final: bool
    retry_after: float | None = None  # seconds


@dataclass(frozen=True, slots=True)
class Receipt:
    """Messages of mine were delivered or read."""

    kind: str  # "delivered" or "read"
    by: str
    ids: Sequence[str]
    at: datetime


@dataclass(frozen=True, slots=True)
class Typing:
    """Somebody is writing, or has stopped."""

    sender: str
    conversation_id: str | None
    active: bool


@dataclass(frozen=True, slots=True)
class HostEvent:
    """The host's own code says something."""

    name: str
    data: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """A contact has another key, or none. Nothing is sent to them until it is accepted."""

    contact: str
    safety_number: SafetyNumber | None  # of the new key; None: there is none


@dataclass(frozen=True, slots=True)
class OwnKeyChanged:
    """The directory has another key for me, or one that this store lacks. Nothing is sent."""

    known_here: bool  # this store has a key, and it is another one


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of a contact between these two have not arrived."""

    contact: str
    id: str  # of the message that came instead
    expected: int
    got: int


@dataclass(frozen=True, slots=True)
class Fork:
    """A contact wrote on two devices at once, or somebody left out and put in."""

    contact: str
    id: str
    n: int


@dataclass(frozen=True, slots=True)
class Replay:
    """The server gave a message out a second time; it was dropped."""

    contact: str
    id: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket is open; so many entries are to come."""

    user_id: str
    backlog: int


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The backlog has come."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The server's log was made anew, or does not go back as far: `history` has the rest."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The socket is closed, or could not be opened."""

    code: int | None  # of the close frame, or the HTTP status
    reason: str
    retry_in: float | None  # seconds; None: the client does not try again


Event = (
    Message
    | Unreadable
    | Sent
    | Refused
    | Receipt
    | Typing
    | HostEvent
    | KeyChanged
    | OwnKeyChanged
    | Gap
    | Fork
    | Replay
    | Connected
    | CaughtUp
    | Reset
    | Disconnected
)
