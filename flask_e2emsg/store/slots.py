"""The table of slots: who holds which, by statements that serve many connections at once.

A slot is a primary key (account, number), which is what keeps a user at the cap; one whose worker
is dead is free. PostgreSQL does all of a call in one statement, whose rows are locked in the order
of their keys, so that calls of several workers wait for each other and never in a circle. SQLite
does it under its write lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Connection

from ..protocol.values import now
from .accounts import MailboxState, Party
from .database import Database
from .times import sqlite_text

MOST_AT_ONCE = 256  # arrivals; SQLite before 3.32 takes 999 parameters
SPREAD = 8  # free slots beyond those needed to choose from, so that workers rarely choose the same


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connection that is about to open."""

    user_id: str
    connection_id: UUID


@dataclass(frozen=True, slots=True)
class Place:
    """A slot of an account."""

    account_id: int
    number: int  # from 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What an arrival found, whose user has an account."""

    mailbox: MailboxState
    place: Place | None  # that it holds now
    was_full: bool  # there was none; without a place otherwise, another worker was faster


class Slots(ABC):
    """The slots of one database, as one worker sees them."""

    def __init__(self, database: Database, worker_id: UUID, cap: int, lease_seconds: float) -> None:
        self._database = database
        self._worker_id = worker_id
        self._cap = cap
        self._lease = timedelta(seconds=lease_seconds)

    @abstractmethod
    def occupy(self, arrivals: Sequence[Arrival]) -> dict[UUID, Answer]:
        """Take a free slot for each, at most `MOST_AT_ONCE`, and read where its mailbox stands.

        Who has no account is not in the answer.

        Raises:
            Conflict: nothing was taken; try again.
            Unavailable: the database refused.
        """

    @abstractmethod
    def vacate(self, places: Sequence[tuple[UUID, Place]]) -> None:
        """Free slots, where these connections still hold them.

        Raises:
            Conflict: nothing was freed; try again.
            Unavailable: the database refused.
        """


class PostgreSQLSlots(Slots):
    """Slots in PostgreSQL, through psycopg or psycopg2."""

    def occupy(self, arrivals: Sequence[Arrival]) -> dict[UUID, Answer]:
        """See Slots.occupy."""
        parameters = {
            "users": [arrival.user_id for arrival in arrivals],
            "ids": [str(arrival.connection_id) for arrival in arrivals],
            "worker": str(self._worker_id),
            "cap": self._cap,
            "spread": SPREAD,
            "lease": self._lease,
        }
        with self._database.write() as connection:
            rows = connection.exec_driver_sql(_OCCUPY, parameters).all()
        return {UUID(str(row.connection_id)): _answer(row) for row in rows}

    def vacate(self, places: Sequence[tuple[UUID, Place]]) -> None:
        """See Slots.vacate."""
        parameters = {
            "accounts": [place.account_id for _, place in places],
            "slots": [place.number for _, place in places],
            "ids": [str(connection_id) for connection_id, _ in places],
        }
        with self._database.write() as connection:
            connection.exec_driver_sql(_VACATE, parameters)


class SQLiteSlots(Slots):
    """Slots in SQLite."""

    def occupy(self, arrivals: Sequence[Arrival]) -> dict[UUID, Answer]:
        """See Slots.occupy."""
        answers, taken = {}, []
        with self._database.write() as connection:
            mailboxes = self._mailboxes(connection, arrivals)
            known = [arrival for arrival in arrivals if arrival.user_id in mailboxes]
            free = self._free(
                connection,
                Counter(mailboxes[arrival.user_id].owner.account_id for arrival in known),
            )
            for arrival in known:
                mailbox = mailboxes[arrival.user_id]
                account_id, place = mailbox.owner.account_id, None
                if numbers := free[account_id]:
                    place = Place(account_id, numbers.pop())
                    taken.append((place, arrival.connection_id))
                answers[arrival.connection_id] = Answer(mailbox, place, place is None)
            if taken:
                rows = [(*_key(*one), self._worker_id.hex) for one in taken]
                connection.exec_driver_sql(_INSERT, rows)
        return answers

    def vacate(self, places: Sequence[tuple[UUID, Place]]) -> None:
        """See Slots.vacate."""
        keys = [_key(place, connection_id) for connection_id, place in places]
        with self._database.write() as connection:
            connection.exec_driver_sql(_DELETE, keys)

    def _mailboxes(
        self, connection: Connection, arrivals: Sequence[Arrival]
    ) -> dict[str, MailboxState]:
        users = tuple({arrival.user_id for arrival in arrivals})
        rows = connection.exec_driver_sql(_MAILBOXES.format(_marks(users)), users)
        return {row.user_id: _mailbox(row) for row in rows}

    def _free(self, connection: Connection, comers: Counter[int]) -> dict[int, list[int]]:
        """As many free slots as are needed, or all that there are, by account."""
        moment = now()
        lease = sqlite_text(moment), sqlite_text(moment + self._lease)
        statement = _HELD.format(_marks(comers))
        held: defaultdict[int, set[int]] = defaultdict(set)
        for account_id, number in connection.exec_driver_sql(statement, (*comers, *lease)):
            held[account_id].add(number)
        free = {}
        for account_id, count in comers.items():
            taken = held[account_id]
            highest = min(self._cap, len(taken) + count)
            free[account_id] = [number for number in range(highest) if number not in taken]
        return free


def _answer(row: Any) -> Answer:
    mailbox = _mailbox(row)
    place = None if row.slot is None else Place(row.id, row.slot)
    return Answer(mailbox, place, row.chosen is None)


def _mailbox(row: Any) -> MailboxState:
    owner = Party(row.id, row.user_id)
    return MailboxState(owner, row.epoch, row.last_seq, row.delivered_seq, row.floor_seq)


def _key(place: Place, connection_id: UUID) -> tuple[int, int, str]:
    return place.account_id, place.number, connection_id.hex


def _marks(values: Counter[int] | tuple[str, ...]) -> str:
    return ",".join("?" * len(values))


# A lease that ends later than any can is of a time when the clock was wrong. Whose worker is not
# seen at all may be of one that came after the statement began, so only those rows are free of
# which it saw that nobody lives behind them.
_OCCUPY = """
WITH comers AS MATERIALIZED (
    SELECT c.connection_id, a.*,
        row_number() OVER (PARTITION BY a.id ORDER BY c.connection_id) AS turn
    FROM unnest(%(users)s::text[], %(ids)s::uuid[]) AS c (user_id, connection_id)
    JOIN e2emsg_accounts a ON a.user_id = c.user_id
), rows AS MATERIALIZED (
    SELECT c.account_id, c.slot, c.worker_id, EXISTS (
        SELECT FROM e2emsg_workers w WHERE w.id = c.worker_id AND w.expires_at > clock_timestamp()
            AND w.expires_at <= clock_timestamp() + %(lease)s::interval) AS is_held
    FROM e2emsg_connections c WHERE c.account_id IN (SELECT id FROM comers)
), free AS (
    SELECT u.id, s.slot, row_number() OVER (PARTITION BY u.id ORDER BY random()) AS turn
    FROM (SELECT id, count(*) AS comers FROM comers GROUP BY id) AS u
    CROSS JOIN LATERAL (SELECT count(*) AS held FROM rows WHERE account_id = u.id AND is_held) AS h
    CROSS JOIN LATERAL generate_series(
        0, LEAST(%(cap)s, h.held + u.comers + %(spread)s) - 1) AS s (slot)
    WHERE NOT EXISTS (
        SELECT FROM rows r WHERE r.account_id = u.id AND r.slot = s.slot AND r.is_held)
), chosen AS MATERIALIZED (
    SELECT c.id, f.slot, c.connection_id FROM comers c JOIN free f USING (id, turn)
), occupied AS (
    INSERT INTO e2emsg_connections AS old (account_id, slot, id, worker_id)
    SELECT id, slot, connection_id, %(worker)s::uuid FROM chosen ORDER BY id, slot
    ON CONFLICT (account_id, slot) DO UPDATE
    SET id = excluded.id, worker_id = excluded.worker_id, close_code = NULL
    WHERE old.worker_id IN (SELECT worker_id FROM rows WHERE NOT is_held)
    RETURNING id AS connection_id, slot
)
SELECT c.connection_id, c.id, c.user_id, c.epoch, c.last_seq, c.delivered_seq, c.floor_seq,
    chosen.slot AS chosen, occupied.slot
FROM comers c LEFT JOIN chosen USING (connection_id) LEFT JOIN occupied USING (connection_id)
"""
_VACATE = """
WITH gone AS MATERIALIZED (
    SELECT c.account_id, c.slot
    FROM unnest(%(accounts)s::int[], %(slots)s::int[], %(ids)s::uuid[]) AS g (account_id, slot, id)
    JOIN e2emsg_connections c USING (account_id, slot, id)
    ORDER BY c.account_id, c.slot FOR UPDATE OF c
)
DELETE FROM e2emsg_connections c USING gone g
WHERE c.account_id = g.account_id AND c.slot = g.slot AND (SELECT count(*) FROM gone) >= 0
"""

_MAILBOXES = """
SELECT id, user_id, epoch, last_seq, delivered_seq, floor_seq
FROM e2emsg_accounts WHERE user_id IN ({})
"""
_HELD = """
SELECT account_id, slot FROM e2emsg_connections WHERE account_id IN ({}) AND worker_id IN (
    SELECT id FROM e2emsg_workers WHERE expires_at > ? AND expires_at <= ?)
"""
_INSERT = """
INSERT OR REPLACE INTO e2emsg_connections (account_id, slot, id, worker_id) VALUES (?, ?, ?, ?)
"""
_DELETE = "DELETE FROM e2emsg_connections WHERE account_id = ? AND slot = ? AND id = ?"
