"""The live connections of all workers: who holds which of a user's slots, and whose end is wanted.

Guarantees: a user never holds more slots than the cap, on however many workers, because a slot is
a primary key; what a worker held that died is free after `LEASE_SECONDS`; an end that is wanted
reaches its worker whenever it asks. One row a worker is renewed, however many connections it has.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import TooManyConnections
from .accounts import MailboxState
from .database import Conflict, Database
from .models import accounts, connections, workers
from .slots import MOST_AT_ONCE, Answer, Arrival, Place, PostgreSQLSlots, Slots, SQLiteSlots
from .times import database_clock

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0
FORGET_SECONDS = 600.0  # after which nothing is left of a worker that died
ATTEMPTS = 50  # of which each fails only if another worker was faster just now

T = TypeVar("T")
Admitted = MailboxState | TooManyConnections | None  # None: the user has no account yet


@dataclass(frozen=True, slots=True)
class _Seat:
    user_id: str
    place: Place


class Leases:
    """The slots that one worker holds for its connections. Safe to use from several threads."""

    def __init__(self, database: Database, cap: int) -> None:
        self._database = database
        self._worker_id = uuid4()
        kind: type[Slots] = SQLiteSlots if database.is_sqlite else PostgreSQLSlots
        self._slots = kind(database, self._worker_id, cap, LEASE_SECONDS)
        self._held: dict[UUID, _Seat] = {}
        self._taking: set[UUID] = set()  # whose row may be there already
        self._returned: dict[UUID, Place] = {}  # whose row may be there still
        self._homeless: set[UUID] = set()  # whose slot somebody else has, and there is no other
        self._lock = threading.Lock()
        self._renewed_at: float | None = None  # on the monotonic clock
        self._has_resigned = False
        self._statements = _Statements(database.is_sqlite)

    def admit(self, arrivals: Sequence[Arrival]) -> list[Admitted]:
        """Take one of its user's slots for each, and read where its mailbox stands.

        Each gets the state of its mailbox, or what keeps it out: TooManyConnections if live
        connections hold all of them.

        Raises:
            Unavailable: the database refused; nobody was let in.
        """
        if self._renewed_at is None or time.monotonic() - self._renewed_at > LEASE_SECONDS:
            self.renew()
        ids = {arrival.connection_id for arrival in arrivals}
        with self._lock:
            self._taking |= ids
        try:
            answers = self._settle_in(arrivals)
            with self._lock:
                for connection_id, answer in answers.items():
                    if answer.place is not None:
                        self._held[connection_id] = _Seat(
                            answer.mailbox.owner.user_id, answer.place
                        )
        finally:
            with self._lock:
                self._taking -= ids
        return [_admitted(answers.get(arrival.connection_id)) for arrival in arrivals]

    def give_back(self, connection_id: UUID) -> None:
        """Free a connection's slot at the next settle(). Asks no database."""
        with self._lock:
            self._homeless.discard(connection_id)
            seat = self._held.pop(connection_id, None)
            if seat is not None:
                self._returned[connection_id] = seat.place

    def settle(self) -> set[int]:
        """Free in the database what was given back, all at once; the accounts that it was of.

        Raises:
            Unavailable: the database refused; the next renewal does it.
        """
        with self._lock:
            returned, self._returned = self._returned, {}
        if not returned or self._has_resigned:
            return set()
        self._vacate(returned.items())
        return {place.account_id for place in returned.values()}

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
        values = {"account": account_id, "code": close_code}

        def end() -> int:
            with self._database.write() as connection:
                return connection.execute(self._statements.end_all, values).rowcount

        return _again_on_conflict(end)

    def held_elsewhere(self, user_id: str) -> int:
        """How many live connections the user has on other workers.

        Raises:
            Unavailable: the database refused.
        """
        with self._database.read() as connection:
            values = {**self._me, "user": user_id}
            return int(connection.scalar(self._statements.held_elsewhere, values) or 0)

    def all_elsewhere(self) -> dict[str, int]:
        """How many live connections users have on other workers; those who have any.

        Raises:
            Unavailable: the database refused.
        """
        with self._database.read() as connection:
            rows = connection.execute(self._statements.all_elsewhere, self._me)
            return {row.user_id: row.held for row in rows}

    def workers_elsewhere(self) -> int:
        """How many other workers live.

        Raises:
            Unavailable: the database refused.
        """
        with self._database.read() as connection:
            return int(connection.scalar(self._statements.workers_elsewhere, self._me) or 0)

    @property
    def _me(self) -> dict[str, UUID]:
        return {"worker": self._worker_id}

    def _settle_in(self, arrivals: Sequence[Arrival]) -> dict[UUID, Answer]:
        """Occupy a free slot for each; the last answer to everybody who has an account."""
        answers: dict[UUID, Answer] = {}
        waiting = list(arrivals)
        for _ in range(ATTEMPTS):
            for start in range(0, len(waiting), MOST_AT_ONCE):
                some = waiting[start : start + MOST_AT_ONCE]
                answers |= _again_on_conflict(functools.partial(self._slots.occupy, some))
            outside = [
                (arrival, answer)
                for arrival in waiting
                if (answer := answers.get(arrival.connection_id)) and answer.place is None
            ]
            freed = self.settle() if any(answer.was_full for _, answer in outside) else set()
            waiting = [
                arrival
                for arrival, answer in outside
                if not answer.was_full or answer.mailbox.owner.account_id in freed
            ]
            if not waiting:
                break
        return answers

    def _reconcile(self) -> None:
        """Whatever was interrupted, lost or taken over: free what nobody holds, take what lacks."""
        with self._lock:
            before = set(self._held)
        with self._database.read() as connection:
            rows = connection.execute(_ROWS, self._me)
            found = {row.id: Place(row.account_id, row.slot) for row in rows}
        with self._lock:
            held, taking = dict(self._held), set(self._taking)
        strange = [
            (one, place)
            for one, place in found.items()
            if one not in taking and (one not in held or held[one].place != place)
        ]
        if strange:
            self._vacate(strange)
        lacking = (before & held.keys()) - found.keys()
        if lacking:
            self._move([Arrival(held[one].user_id, one) for one in lacking])

    def _move(self, arrivals: Sequence[Arrival]) -> None:
        """Take other slots for connections that have none; who finds none shall come again."""
        answers = self._settle_in(arrivals)
        with self._lock:
            for connection_id, answer in answers.items():
                if answer.place is None:
                    self._homeless.add(connection_id)
                elif connection_id in self._held:
                    self._held[connection_id] = _Seat(answer.mailbox.owner.user_id, answer.place)

    def _vacate(self, places: Iterable[tuple[UUID, Place]]) -> None:
        _again_on_conflict(functools.partial(self._slots.vacate, list(places)))


def _admitted(answer: Answer | None) -> Admitted:
    if answer is None:
        return None
    return TooManyConnections() if answer.place is None else answer.mailbox


def _again_on_conflict(work: Callable[[], T]) -> T:
    for _ in range(ATTEMPTS - 1):
        try:
            return work()
        except Conflict:
            continue
    return work()


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
        renewed = insert(workers).values(id=_worker, expires_at=lease_end)
        self.renew = renewed.on_conflict_do_update(
            index_elements=[workers.c.id], set_={"expires_at": renewed.excluded.expires_at}
        )
        held = (
            sa.select(accounts.c.user_id, sa.func.count().label("held"))
            .select_from(connections)
            .join(accounts, accounts.c.id == connections.c.account_id)
            .where(holder_lives, connections.c.worker_id != _worker)
            .group_by(accounts.c.user_id)
        )
        self.all_elsewhere = held
        self.held_elsewhere = held.with_only_columns(sa.func.count()).where(
            accounts.c.user_id == sa.bindparam("user")
        )
        self.workers_elsewhere = (
            sa.select(sa.func.count())
            .select_from(workers)
            .where(workers.c.id != _worker, workers.c.id.in_(alive))
        )
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
