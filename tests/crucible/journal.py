"""What one client did and saw, in the order in which it happened: append-only, as JSON lines.

An event is a dict with `at` (seconds on the monotonic clock of this process), `what`, and:

    opened      master, connection, after, head, reset, epoch
    unreachable why         the handshake got no answer, or a broken one
    turned_away status, has_good_token          an HTTP answer in place of the 101
    closed      master, connection, code, by, has_good_token
                                                `by` is "me" when the client gave up
    sent        connection, id, to, content, conversation_id, bundle
                                                each time that it goes out; `bundle` names those
                                                that go by one `send_many`
    meddled     connection, id, to, content     a used id with other content
    accepted    connection, id, seq, created_at, duplicate
    refused     connection, id, code, is_final
    entry       connection, frame               a message or a receipt that was pushed
    marked      ids                             which messages were read
    acked       seq
    overacked   connection  a position was acknowledged that cannot be there yet
    rest        path, status, messages          what a route showed
    let_in      why                             with a token that is good for nothing
    invalid     text                            no frame of the protocol, or not where it belongs
    stuck       position, head                  connected, and given time, but not at the head
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.wire import to_base64url

Event = dict[str, Any]

MAGIC = b"crucible"  # how every content begins, so that a proxy knows one when it passes


@dataclass
class Journal:
    """The journal of one client."""

    user_id: str
    events: list[Event] = field(default_factory=list)

    def note(self, what: str, **details: Any) -> None:
        self.events.append({"at": time.monotonic(), "what": what, **details})

    def write(self, folder: Path) -> None:
        lines = [json.dumps(event) for event in self.events]
        (folder / f"{self.user_id}.jsonl").write_text("\n".join([*lines, ""]))


def of_kind(events: Iterable[Event], *kinds: str) -> list[Event]:
    """The events of these kinds."""
    return [event for event in events if event["what"] in kinds]


@dataclass(frozen=True)
class Content:
    """What stands in a message: who wrote it to whom, the how-manieth of the two, and a canary."""

    sender: str
    recipient: str
    number: int
    canary: str = field(default_factory=lambda: secrets.token_hex(16))
    padding: int = 0

    def encode(self) -> str:
        """As `encrypted_content`. Spaces keep names, which are no secret, apart from the canary."""
        words = (MAGIC.decode(), self.sender, self.recipient, str(self.number), self.canary)
        return to_base64url(" ".join(words).encode() + b" " * self.padding)


def decode(content: str) -> Content | None:
    """What stands in a message; None if nobody of the swarm has written it."""
    try:
        octets = base64.urlsafe_b64decode(content + "=" * (-len(content) % 4))
        magic, sender, recipient, number, canary = octets.decode().split()
        return Content(sender, recipient, int(number), canary) if magic == MAGIC.decode() else None
    except ValueError:
        return None
