"""One-time tickets: a stand-in for an access token where a token in an address would be seen.

Only a ticket's SHA-256 is stored. Redeeming is one DELETE, so of several attempts, on whatever
worker, one succeeds.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa

from ..protocol.values import now
from .database import Database
from .models import tickets
from .times import aware

LIFETIME_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket stands for."""

    user_id: str
    token_expires_at: datetime  # of the access token that asked for it


class Tickets:
    """The tickets of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def issue(self, ticket: Ticket) -> str:
        """A new ticket's text, good once within 30 seconds."""
        text = secrets.token_urlsafe(32)
        moment = now()
        with self._database.write() as connection:
            connection.execute(
                sa.insert(tickets),
                {
                    "digest": _digest(text),
                    "user_id": ticket.user_id,
                    "expires_at": moment + timedelta(seconds=LIFETIME_SECONDS),
                    "token_expires_at": ticket.token_expires_at,
                },
            )
        return text

    def redeem(self, text: str) -> Ticket | None:
        """What the ticket stands for, this one time; None if it is not or no longer good."""
        statement = (
            sa.delete(tickets)
            .where(tickets.c.digest == _digest(text), tickets.c.expires_at > now())
            .returning(tickets.c.user_id, tickets.c.token_expires_at)
        )
        with self._database.write() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else Ticket(row.user_id, aware(row.token_expires_at))

    def holder(self, text: str) -> str | None:
        """Whom a ticket names, without redeeming it."""
        statement = sa.select(tickets.c.user_id).where(tickets.c.digest == _digest(text))
        with self._database.read() as connection:
            holder: str | None = connection.scalar(statement)
        return holder


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
