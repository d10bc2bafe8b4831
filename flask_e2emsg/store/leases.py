"""The live connections of all workers: who holds which of a user's slots, and whose end is wanted.

Guarantees: a user never holds more slots than the cap, on however many workers, because a slot is
a primary key; what a worker held that died is free after `LEASE_SECONDS`; an end that is wanted
reaches its worker whenever it asks. One row a worker is renewed, however many connections it has.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import TooManyConnections
from .database import Database
from .models import connections, workers
from .times import database_clock

logger = logging.getLogger("flask_e2emsg.leases")

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0
FORGET_SECONDS = 600.0  # after which nothing is left of a worker that died
ATTEMPTS = 50  # of which each fails only if another connection was let in just now


@dataclass(frozen=True, slots=True)
class _Place:
    account_id: int
    slot: int


class Leases:
    """The slots that one worker holds for its connections. Safe to use from several threads."""

    def __init__(self, database: Database, cap: int) -> None:
        self._database = database
        self._cap = cap
        self._worker_id = uuid4()
        self._held: dict[UUID, _Place] = {}
        self._owed: dict[UUID, _Place] = {}  # given back here, and still taken in the database
        self._lock = threading.Lock()
        self._is_announced = False
        self._has_resigned = False
        self._statements = _Statements(database.is_sqlite)

    def take(self, account_id: int, connection_id: UUID) -> None:
        """Take one of a user's slots for a connection.

        Raises:
            TooManyConnections: live connections hold all of them.
            Unavailable: the database refused.
        """
        self._announce()
        # Most users have most of their slots free, so a guess spares the question which.
        slot = random.randrange(self._cap)
        for _ in range(ATTEMPTS):
            place = _Place(account_id, slot)
            if self._occupy(place, connection_id):
                with self._lock:
                    self._held[connection_id] = place
                return
            self.settle()
            with self._database.read() as connection:
                taken = set(connection.scalars(self._statements.taken, {"account": account_id}))
            free = [slot for slot in range(self._cap) if slot not in taken]
            if not free:
                break
            # At random, so that those who come at once rarely choose the same.
            slot = random.choice(free)
        raise TooManyConnections

    def give_back(self, connection_id: UUID) -> None:
        """Free a connection's slot at the next settle(). Asks no database."""
        with self._lock:
            place = self._held.pop(connection_id, None)
            if place is not None:
                self._owed[connection_id] = place

    def settle(self) -> None:
        """Free in the database what was given back, all at once.

        Raises:
            Unavailable: the database refused; the next call does it.
        """
        with self._lock:
            owed, self._owed = self._owed, {}
        if not owed or self._has_resigned:
            return
        values = [
            {"account": place.account_id, "slot": place.slot, "connection": connection_id}
            for connection_id, place in owed.items()
        ]
        try:
            with self._database.write() as connection:
                connection.execute(_VACATE, values)
        except BaseException:
            with self._lock:
                self._owed |= owed
            raise

    def renew(self) -> None:
        """Say that this worker is alive. To be called every `RENEW_SECONDS`."""
        if not self._is_announced or self._has_resigned:
            return
        with self._database.write() as connection:
            is_known = connection.execute(self._statements.renew, self._me).rowcount > 0
        if not is_known:
            self._reclaim()
        self.settle()

    def resign(self) -> None:
        """Free all slots of this worker at once: it is about to stop."""
        self._has_resigned = True
        if self._is_announced:
            with self._database.write() as connection:
                connection.execute(sa.delete(workers).where(workers.c.id == self._worker_id))

    def wanted_ends(self) -> dict[UUID, int]:
        """Connections of this worker that shall end, with their close codes."""
        if not self._held:
            return {}
        with self._database.read() as connection:
            rows = connection.execute(self._statements.wanted_ends, self._me).all()
        return {row.id: row.close_code for row in rows}

    def end_all_of(self, account_id: int, close_code: int) -> int:
        """Have a user's live connections ended by their workers; how many there are."""
        with self._database.write() as connection:
            values = {"account": account_id, "code": close_code}
            return connection.execute(self._statements.end_all, values).rowcount

    @property
    def _me(self) -> dict[str, UUID]:
        return {"worker": self._worker_id}

    def _announce(self) -> None:
        if not self._is_announced:
            with self._database.write() as connection:
                connection.execute(self._statements.announce, self._me)
            self._is_announced = True

    def _reclaim(self) -> None:
        """After a time in which this worker passed for dead, take what others have not taken."""
        logger.warning("this worker's lease had lapsed; its connections are registered again")
        with self._database.write() as connection:
            connection.execute(self._statements.announce, self._me)
        with self._lock:
            held = list(self._held.items())
        for connection_id, place in held:
            self._occupy(place, connection_id)

    def _occupy(self, place: _Place, connection_id: UUID) -> bool:
        values = {
            "account_id": place.account_id,
            "slot": place.slot,
            "id": connection_id,
            "worker_id": self._worker_id,
        }
        with self._database.write() as connection:
            return connection.scalar(self._statements.occupy, values) is not None


class _Statements:
    """Those that look at the clock, which is not the same for all databases."""

    def __init__(self, is_sqlite: bool) -> None:
        insert: Any = sqlite.insert if is_sqlite else postgresql.insert
        now, lease_end = database_clock(is_sqlite), database_clock(is_sqlite, LEASE_SECONDS)
        alive = sa.select(workers.c.id).where(workers.c.expires_at > now)
        holder_lives = connections.c.worker_id.in_(alive)
        worker = sa.bindparam("worker", type_=sa.Uuid())
        self.taken = sa.select(connections.c.slot).where(_account, holder_lives)
        self.renew = (
            sa.update(workers)
            .where(workers.c.id == worker, workers.c.expires_at > now)
            .values(expires_at=lease_end)
        )
        announced = insert(workers).values(id=worker, expires_at=lease_end)
        self.announce = announced.on_conflict_do_update(
            index_elements=[workers.c.id], set_={"expires_at": announced.excluded.expires_at}
        )
        occupied = insert(connections)
        self.occupy = occupied.on_conflict_do_update(
            index_elements=[connections.c.account_id, connections.c.slot],
            set_={
                "id": occupied.excluded.id,
                "worker_id": occupied.excluded.worker_id,
                "close_code": None,
            },
            where=~holder_lives,
        ).returning(connections.c.slot)
        self.end_all = (
            sa.update(connections)
            .where(_account, holder_lives)
            .values(close_code=sa.bindparam("code", type_=sa.Integer()))
        )
        self.wanted_ends = sa.select(connections.c.id, connections.c.close_code).where(
            connections.c.worker_id == worker, connections.c.close_code.is_not(None)
        )


_account = connections.c.account_id == sa.bindparam("account", type_=sa.Integer())
_VACATE = sa.delete(connections).where(
    _account,
    connections.c.slot == sa.bindparam("slot", type_=sa.Integer()),
    connections.c.id == sa.bindparam("connection", type_=sa.Uuid()),
)
