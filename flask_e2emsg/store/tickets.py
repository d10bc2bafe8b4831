"""One-time tickets: a stand-in for an access token where a token in an address would be seen.

Only a ticket's SHA-256 is stored, beside what the token claimed, so that the host can be asked
about a token that it may have revoked since. Redeeming is one DELETE, so of several attempts, on
whatever worker, one succeeds.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa

from ..protocol.values import now
from .database import Database, asked_again
from .models import tickets
from .times import aware

LIFETIME_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket stands for."""

    user_id: str
    token_expires_at: datetime  # of the access token that asked for it
    claims: str = field(repr=False)  # JSON of that token's header and payload, without signature


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
                    "claims": ticket.claims,
                },
            )
        return text

    @asked_again
    def look_at(self, text: str) -> Ticket | None:
        """What the ticket stands for; None if it is not or no longer good. It stays good."""
        statement = sa.select(tickets).where(_is_good(text))
        with self._database.read() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            return None
        return Ticket(row.user_id, aware(row.token_expires_at), row.claims)

    def redeem(self, text: str) -> bool:
        """Use the ticket up. True for one caller only, however many there are."""
        with self._database.write() as connection:
            return connection.execute(sa.delete(tickets).where(_is_good(text))).rowcount == 1


def _is_good(text: str) -> sa.ColumnElement[bool]:
    return (tickets.c.digest == _digest(text)) & (tickets.c.expires_at > now())


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
