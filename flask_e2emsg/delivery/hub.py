"""The live connections of this process, and who waits for mail without one.

Guarantees: safe under threads and under gevent; a connection is removed by identity, so a late
removal never hits its successor; publishing takes no lock while it wakes. It knows nothing about
other processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..errors import Draining, Overloaded, TooManyConnections
from ..protocol.entries import Entry
from .pump import Pump


class Hub:
    """Pumps by user."""

    def __init__(
        self, max_connections_per_user: int, max_connections: int, max_waiters: int | None = None
    ) -> None:
        self._cap = max_connections_per_user
        self._room = max_connections
        self._room_to_wait = max_connections if max_waiters is None else max_waiters
        self._pumps: dict[str, tuple[Pump, ...]] = {}
        self._waiters: dict[str, tuple[threading.Event, ...]] = {}
        self._accounts: dict[str, int] = {}
        self._lock = threading.Lock()
        self.is_draining = False

    def add(self, pump: Pump) -> None:
        """Let a connection hear of its mailbox from now on.

        Raises:
            Draining: this process is about to stop.
            Overloaded: this process has all the connections that it takes.
            TooManyConnections: the user is at the cap.
        """
        user_id = pump.owner.user_id
        with self._lock:
            if self.is_draining:
                raise Draining
            if self._room <= 0:
                raise Overloaded
            pumps = self._pumps.get(user_id, ())
            if len(pumps) >= self._cap:
                raise TooManyConnections
            self._pumps[user_id] = (*pumps, pump)
            self._room -= 1

    def remove(self, pump: Pump) -> bool:
        """Forget a connection; False if it was gone already."""
        user_id = pump.owner.user_id
        with self._lock:
            pumps = self._pumps.get(user_id, ())
            others = tuple(one for one in pumps if one is not pump)
            if others:
                self._pumps[user_id] = others
            else:
                self._pumps.pop(user_id, None)
            was_there = len(others) < len(pumps)
            self._room += was_there
            return was_there

    def drain(self) -> None:
        """Take no more connections, and end those that are there, and all waiting."""
        with self._lock:
            self.is_draining = True
            waiters = [event for events in self._waiters.values() for event in events]
        for event in waiters:
            event.set()
        for pump in self.all():
            pump.close(1012)

    def of(self, user_id: str) -> tuple[Pump, ...]:
        """The user's connections at this moment."""
        return self._pumps.get(user_id, ())

    def all(self) -> list[Pump]:
        """Every connection at this moment."""
        with self._lock:
            return [pump for pumps in self._pumps.values() for pump in pumps]

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection at this moment."""
        return not self._pumps

    def users(self) -> list[str]:
        """Everybody with a connection at this moment."""
        with self._lock:
            return list(self._pumps)

    @contextmanager
    def waiting(self, user_id: str, account_id: int) -> Iterator[threading.Event]:
        """An event that is set when the user's mailbox grows, and when this process drains.

        Whoever waits holds a connection of the server, so it counts like a live one.

        Raises:
            Overloaded: this process has all the connections that it takes, or as many who wait.
            TooManyConnections: the user waits as often as it may have connections.
        """
        event = threading.Event()
        with self._lock:
            if self._room <= 0 or self._room_to_wait <= 0:
                raise Overloaded
            if len(self._waiters.get(user_id, ())) >= self._cap:
                raise TooManyConnections
            self._room -= 1
            self._room_to_wait -= 1
            self._waiters[user_id] = (*self._waiters.get(user_id, ()), event)
            self._accounts[user_id] = account_id
        try:
            yield event
        finally:
            with self._lock:
                self._room += 1
                self._room_to_wait += 1
                others = tuple(one for one in self._waiters[user_id] if one is not event)
                if others:
                    self._waiters[user_id] = others
                else:
                    del self._waiters[user_id], self._accounts[user_id]

    def publish(self, entries: Mapping[str, Sequence[Entry]]) -> None:
        """Hand new entries to the connections of their owners."""
        for user_id, new in entries.items():
            for pump in self._pumps.get(user_id, ()):
                pump.offer(new)
            for event in self._waiters.get(user_id, ()):
                event.set()

    def reach(self, user_id: str, head: int) -> None:
        """The user's mailbox is said to reach `head`: let those look who wait for it."""
        for pump in self._pumps.get(user_id, ()):
            pump.reach(head)
        for event in self._waiters.get(user_id, ()):
            event.set()

    def tell(self, user_id: str, frame: bytes) -> int:
        """A frame that may be lost, for the user's connections; how many there are."""
        pumps = self._pumps.get(user_id, ())
        for pump in pumps:
            pump.tell(frame)
        return len(pumps)

    def sweep(self, heads: Callable[[list[int]], Mapping[int, int]]) -> None:
        """Compare every local mailbox with the database, and wake those that are behind."""
        pumps = self.all()
        with self._lock:
            waited_for = list(self._accounts.items())
        ids = {pump.owner.account_id for pump in pumps} | {account for _, account in waited_for}
        newest = heads(sorted(ids))
        for pump in pumps:
            pump.reach(newest.get(pump.owner.account_id, 0))
        for user_id, _ in waited_for:
            for event in self._waiters.get(user_id, ()):
                event.set()
