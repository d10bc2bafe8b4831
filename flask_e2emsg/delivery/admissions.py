"""The way into this process for those who come: one unit of work lets in all who wait.

While one commits, the next ones gather, as in the committer. Guarantees: who is let in holds one of
its user's slots, and gets the state of its mailbox as it was after enter() was called; who gives up
waiting leaves no slot behind.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from uuid import UUID

from ..errors import Refusal, Unavailable
from ..store.accounts import MailboxState
from ..store.leases import Admitted
from ..store.slots import MOST_AT_ONCE, Arrival
from .thread import LazyThread

PATIENCE_SECONDS = 60.0


class _Comer:
    """Somebody who waits, and what became of it."""

    __slots__ = ("arrival", "error", "has_left", "is_answered", "outcome")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.outcome: Admitted = None
        self.error: Exception | None = None
        self.has_left = False
        # A lock is the cheapest thing to wait for: released once, when there is an answer.
        self.is_answered = threading.Lock()
        self.is_answered.acquire()


class Admissions:
    """Who waits to be let in. `admit` lets in many at once, `give_back` frees one's slot."""

    def __init__(
        self,
        name: str,
        admit: Callable[[Sequence[Arrival]], Sequence[Admitted]],
        give_back: Callable[[UUID], object],
    ) -> None:
        self._admit = admit
        self._give_back = give_back
        self._waiting: deque[_Comer] = deque()
        self._lock = threading.Lock()
        self._arrived = threading.Event()
        self._thread = LazyThread(name, self._run)

    def enter(self, arrival: Arrival) -> MailboxState | None:
        """Take a slot, and learn where the mailbox stands; None if the user has no account yet.

        Raises:
            TooManyConnections: live connections hold all slots of the user.
            Unavailable: the database refused.
        """
        comer = _Comer(arrival)
        self._waiting.append(comer)
        self._thread.ensure_running()
        self._arrived.set()
        try:
            if not comer.is_answered.acquire(timeout=PATIENCE_SECONDS):
                raise Unavailable
        except BaseException:
            self._leave(comer)
            raise
        if comer.error is not None:
            raise comer.error
        if isinstance(comer.outcome, Refusal):
            raise comer.outcome
        return comer.outcome

    def _leave(self, comer: _Comer) -> None:
        with self._lock:
            comer.has_left = True
        # Frees nothing that is still to be taken; that does whoever takes it.
        self._give_back(comer.arrival.connection_id)

    def _run(self) -> None:
        while True:
            self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                count = min(len(self._waiting), MOST_AT_ONCE)
                self._let_in([self._waiting.popleft() for _ in range(count)])

    def _let_in(self, comers: list[_Comer]) -> None:
        try:
            outcomes = self._admit([comer.arrival for comer in comers])
        except Exception as error:
            for comer in comers:
                comer.error = error
        else:
            for comer, outcome in zip(comers, outcomes, strict=True):
                comer.outcome = outcome
        for comer in comers:
            with self._lock:
                has_left = comer.has_left
            if has_left:
                self._give_back(comer.arrival.connection_id)
            comer.is_answered.release()
