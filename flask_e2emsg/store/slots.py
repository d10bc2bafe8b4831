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
from .arrays import array, array_of_ids, array_of_texts
from .database import Database
from .libpq import Value
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
        parameters: dict[str, Value] = {
            "users": array_of_texts([arrival.user_id for arrival in arrivals]),
            "ids": array_of_ids(arrival.connection_id for arrival in arrivals),
            "worker": str(self._worker_id),
            "cap": self._cap,
            "spread": SPREAD,
            "lease": f"{self._lease.total_seconds()} seconds",
        }
        answers = {}
        for connection_id, chosen, slot, *state in self._database.ask(_OCCUPY, parameters):
            mailbox = _mailbox(*state)
            place = None if slot is None else Place(mailbox.owner.account_id, slot)
            answers[UUID(str(connection_id))] = Answer(mailbox, place, chosen is None)
        return answers

    def vacate(self, places: Sequence[tuple[UUID, Place]]) -> None:
        """See Slots.vacate."""
        parameters: dict[str, Value] = {
            "accounts": array(place.account_id for _, place in places),
            "slots": array(place.number for _, place in places),
            "ids": array_of_ids(connection_id for connection_id, _ in places),
        }
        self._database.ask(_VACATE, parameters)


class SQLiteSlots(Slots):
    """Slots in SQLite."""

    def occupy(self, arrivals: Sequence[Arrival]) -> dict[UUID, Answer]:
        """See Slots.occupy."""
        answers, taken = {}, []
        comers = Counter(arrival.user_id for arrival in arrivals)
        with self._database.write() as connection:
            rooms = self._rooms(connection, comers)
            for arrival in arrivals:
                if (room := rooms.get(arrival.user_id)) is None:
                    continue
                mailbox, free = room
                place = Place(mailbox.owner.account_id, free.pop()) if free else None
                answers[arrival.connection_id] = Answer(mailbox, place, place is None)
                if place is not None:
                    taken.append((*_key(place, arrival.connection_id), self._worker_id.hex))
            if taken:
                connection.exec_driver_sql(_INSERT, taken)
        return answers

    def vacate(self, places: Sequence[tuple[UUID, Place]]) -> None:
        """See Slots.vacate."""
        keys = [_key(place, connection_id) for connection_id, place in places]
        with self._database.write() as connection:
            connection.exec_driver_sql(_DELETE, keys)

    def _rooms(
        self, connection: Connection, comers: Counter[str]
    ) -> dict[str, tuple[MailboxState, list[int]]]:
        """Mailboxes by user, with as many free slots as are needed, or all that there are."""
        moment = now()
        lease = sqlite_text(moment), sqlite_text(moment + self._lease)
        statement = _ROOMS.format(",".join("?" * len(comers)))
        mailboxes: dict[str, MailboxState] = {}
        held: defaultdict[str, set[int]] = defaultdict(set)
        for row in connection.exec_driver_sql(statement, (*lease, *comers)):
            if row.user_id not in mailboxes:
                mailboxes[row.user_id] = _mailbox(*row[:-1])
            if row.slot is not None:
                held[row.user_id].add(row.slot)
        rooms = {}
        for user_id, mailbox in mailboxes.items():
            highest = min(self._cap, len(held[user_id]) + comers[user_id])
            free = [number for number in range(highest) if number not in held[user_id]]
            rooms[user_id] = mailbox, free
        return rooms


def _mailbox(account_id: int, user_id: str, *state: Any) -> MailboxState:
    return MailboxState(Party(account_id, user_id), *state)


def _key(place: Place, connection_id: UUID) -> tuple[int, int, str]:
    return place.account_id, place.number, connection_id.hex


# Each account is looked up by its key, however many there are (LIMIT and OFFSET keep the planner
# from reading whole tables). A lease that ends later than any can is of a time when the clock was
# wrong. A worker that is not seen may have come after the statement began, so only the rows count
# as free of which it saw that nobody lives behind them.
_OCCUPY = """
WITH comers AS MATERIALIZED (
    SELECT c.connection_id, a.*, row_number() OVER (PARTITION BY a.id) AS turn
    FROM unnest(%(users)s::text[], %(ids)s::uuid[]) AS c (user_id, connection_id),
        LATERAL (SELECT id, user_id, epoch, last_seq, delivered_seq, floor_seq
            FROM e2emsg_accounts WHERE user_id = c.user_id LIMIT 1) AS a
), rooms AS MATERIALIZED (
    SELECT u.id, r.dead, ARRAY(
        SELECT * FROM (
            SELECT generate_series(
                0, LEAST(%(cap)s::int, cardinality(r.held) + u.comers + %(spread)s::int) - 1)
            EXCEPT SELECT unnest(r.held)) AS free ORDER BY random()) AS free
    FROM (SELECT id, count(*)::int AS comers FROM comers GROUP BY id) AS u,
        LATERAL (
            SELECT COALESCE(array_agg(slot) FILTER (WHERE is_held), '{}') AS held,
                array_agg(worker_id) FILTER (WHERE NOT is_held) AS dead
            FROM (SELECT slot, worker_id, EXISTS (
                    SELECT FROM e2emsg_workers w WHERE w.id = worker_id
                        AND w.expires_at > clock_timestamp()
                        AND w.expires_at <= clock_timestamp() + %(lease)s::interval) AS is_held
                FROM e2emsg_connections WHERE account_id = u.id OFFSET 0) AS row) AS r
), chosen AS MATERIALIZED (
    SELECT c.*, r.free[c.turn] AS chosen FROM comers c JOIN rooms r USING (id)
), occupied AS (
    INSERT INTO e2emsg_connections AS old (account_id, slot, id, worker_id)
    SELECT id, chosen, connection_id, %(worker)s::uuid FROM chosen
    WHERE chosen IS NOT NULL ORDER BY id, chosen
    ON CONFLICT (account_id, slot) DO UPDATE
    SET id = excluded.id, worker_id = excluded.worker_id, close_code = NULL
    WHERE old.worker_id IN (SELECT unnest(dead) FROM rooms)
    RETURNING id AS connection_id, slot
)
SELECT connection_id, chosen, slot, chosen.id, user_id, epoch, last_seq, delivered_seq, floor_seq
FROM chosen LEFT JOIN occupied USING (connection_id)
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
RETURNING c.slot
"""

_ROOMS = """
SELECT a.id, a.user_id, a.epoch, a.last_seq, a.delivered_seq, a.floor_seq, c.slot
FROM e2emsg_accounts a LEFT JOIN e2emsg_connections c ON c.account_id = a.id
    AND c.worker_id IN (SELECT id FROM e2emsg_workers WHERE expires_at > ? AND expires_at <= ?)
WHERE a.user_id IN ({})
"""
_INSERT = """
INSERT OR REPLACE INTO e2emsg_connections (account_id, slot, id, worker_id) VALUES (?, ?, ?, ?)
"""
_DELETE = "DELETE FROM e2emsg_connections WHERE account_id = ? AND slot = ? AND id = ?"
