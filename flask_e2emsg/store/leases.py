"""The live connections of all workers: who holds which of a user's slots, and whose end is wanted.

Guarantees: a user never holds more slots than the cap, on however many workers, because a slot is
a primary key; what a worker held that died is free after `LEASE_SECONDS`; an end that is wanted
reaches its worker whenever it asks. One row a worker is renewed, however many connections it has.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import TooManyConnections
from .database import Database
from .models import connections, workers
from .times import database_clock

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
        self._taking: set[UUID] = set()  # whose row may be there already
        self._returned: dict[UUID, _Place] = {}  # whose row may be there still
        self._homeless: set[UUID] = set()  # whose slot somebody else has, and there is no other
        self._lock = threading.Lock()
        self._renewed_at: float | None = None  # on the monotonic clock
        self._has_resigned = False
        self._statements = _Statements(database.is_sqlite)

    def take(self, account_id: int, connection_id: UUID) -> None:
        """Take one of a user's slots for a connection.

        Raises:
            TooManyConnections: live connections hold all of them.
            Unavailable: the database refused.
        """
        if self._renewed_at is None or time.monotonic() - self._renewed_at > LEASE_SECONDS:
            self.renew()
        with self._lock:
            self._taking.add(connection_id)
        try:
            place = self._settle_in(account_id, connection_id)
            if place is None:
                raise TooManyConnections
            with self._lock:
                self._held[connection_id] = place
        finally:
            with self._lock:
                self._taking.discard(connection_id)

    def give_back(self, connection_id: UUID) -> None:
        """Free a connection's slot at the next settle(). Asks no database."""
        with self._lock:
            self._homeless.discard(connection_id)
            place = self._held.pop(connection_id, None)
            if place is not None:
                self._returned[connection_id] = place

    def settle(self) -> None:
        """Free in the database what was given back, all at once.

        Raises:
            Unavailable: the database refused; the next renewal does it.
        """
        with self._lock:
            returned, self._returned = self._returned, {}
        if returned and not self._has_resigned:
            self._vacate(returned.items())

    def renew(self) -> None:
        """Say that this worker is alive, and make its rows agree with its connections.

        To be called every `RENEW_SECONDS`.

        Raises:
            Unavailable: the database refused; call again.
        """
        if self._has_resigned:
            return
        began = time.monotonic()
        with self._database.write() as connection:
            connection.execute(self._statements.renew, self._me)
        with self._database.read() as connection:
            count = connection.scalar(_COUNT, self._me)
        self._renewed_at = began
        if count != len(self._held):
            self._reconcile()

    def resign(self) -> None:
        """Free all slots of this worker at once: it is about to stop."""
        self._has_resigned = True
        if self._renewed_at is not None:
            with self._database.write() as connection:
                connection.execute(sa.delete(workers).where(workers.c.id == self._worker_id))

    def wanted_ends(self) -> dict[UUID, int]:
        """Connections of this worker that shall end, with their close codes."""
        if not self._held:
            return {}
        with self._database.read() as connection:
            rows = connection.execute(_WANTED_ENDS, self._me).all()
        with self._lock:
            ends = dict.fromkeys(self._homeless, 1012)
        return ends | {row.id: row.close_code for row in rows}

    def end_all_of(self, account_id: int, close_code: int) -> int:
        """Have a user's live connections ended by their workers; how many there are."""
        with self._database.write() as connection:
            values = {"account": account_id, "code": close_code}
            return connection.execute(self._statements.end_all, values).rowcount

    @property
    def _me(self) -> dict[str, UUID]:
        return {"worker": self._worker_id}

    def _settle_in(self, account_id: int, connection_id: UUID) -> _Place | None:
        """Occupy any free slot of a user's; None if there is none."""
        # Most users have most of their slots free, so a guess spares the question which.
        slot = random.randrange(self._cap)
        for _ in range(ATTEMPTS):
            place = _Place(account_id, slot)
            if self._occupy(place, connection_id):
                return place
            self.settle()
            with self._database.read() as connection:
                taken = set(connection.scalars(self._statements.taken, {"account": account_id}))
            free = [slot for slot in range(self._cap) if slot not in taken]
            if not free:
                return None
            # At random, so that those who come at once rarely choose the same.
            slot = random.choice(free)
        return None

    def _reconcile(self) -> None:
        """Whatever was interrupted, lost or taken over: free what nobody holds, take what lacks."""
        with self._lock:
            before = set(self._held)
        with self._database.read() as connection:
            rows = connection.execute(_ROWS, self._me)
            found = [(row.id, _Place(row.account_id, row.slot)) for row in rows]
        with self._lock:
            held, taking = dict(self._held), set(self._taking)
        strange = [(one, at) for one, at in found if one not in taking and held.get(one) != at]
        if strange:
            self._vacate(strange)
        for connection_id in (before & held.keys()) - {one for one, _ in found}:
            place = held[connection_id]
            if not self._occupy(place, connection_id):
                self._move(place.account_id, connection_id)

    def _move(self, account_id: int, connection_id: UUID) -> None:
        """Somebody else has the slot: take another one, or let the connection come again."""
        place = self._settle_in(account_id, connection_id)
        with self._lock:
            if place is None:
                self._homeless.add(connection_id)
            elif connection_id in self._held:
                self._held[connection_id] = place

    def _occupy(self, place: _Place, connection_id: UUID) -> bool:
        values = {
            "account_id": place.account_id,
            "slot": place.slot,
            "id": connection_id,
            "worker_id": self._worker_id,
        }
        with self._database.write() as connection:
            return connection.scalar(self._statements.occupy, values) is not None

    def _vacate(self, places: Iterable[tuple[UUID, _Place]]) -> None:
        values = [
            {"account": place.account_id, "slot": place.slot, "connection": connection_id}
            for connection_id, place in places
        ]
        with self._database.write() as connection:
            connection.execute(_VACATE, values)


class _Statements:
    """Those that look at the clock, which is not the same for all databases."""

    def __init__(self, is_sqlite: bool) -> None:
        insert: Any = sqlite.insert if is_sqlite else postgresql.insert
        now, lease_end = database_clock(is_sqlite), database_clock(is_sqlite, LEASE_SECONDS)
        # A lease that ends later than any can is of a time when the clock was wrong.
        alive = sa.select(workers.c.id).where(
            workers.c.expires_at > now, workers.c.expires_at <= lease_end
        )
        holder_lives = connections.c.worker_id.in_(alive)
        self.taken = sa.select(connections.c.slot).where(_account, holder_lives)
        renewed = insert(workers).values(id=_worker, expires_at=lease_end)
        self.renew = renewed.on_conflict_do_update(
            index_elements=[workers.c.id], set_={"expires_at": renewed.excluded.expires_at}
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


_worker = sa.bindparam("worker", type_=sa.Uuid())
_MINE = connections.c.worker_id == _worker
_COUNT = sa.select(sa.func.count()).select_from(connections).where(_MINE)
_ROWS = sa.select(connections.c.id, connections.c.account_id, connections.c.slot).where(_MINE)
_WANTED_ENDS = sa.select(connections.c.id, connections.c.close_code).where(
    _MINE, connections.c.close_code.is_not(None)
)
_account = connections.c.account_id == sa.bindparam("account", type_=sa.Integer())
_VACATE = sa.delete(connections).where(
    _account,
    connections.c.slot == sa.bindparam("slot", type_=sa.Integer()),
    connections.c.id == sa.bindparam("connection", type_=sa.Uuid()),
)
