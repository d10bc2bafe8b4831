"""Asks again, for as long as a connection is open, whether its user may still be here.

A token that was revoked, or a user who was locked out, ends the connection with 4401. A round asks
about every connection of this process. Guarantees: a round begins at least every
`LONGEST_SECONDS`, and every `SHORTEST_SECONDS` while rounds are cheap; rounds by the clock take
about a twentieth of the processor's time at most. A user whom `look_at` names is asked about at
once, and `look_around` brings the next round forward, for as long as all rounds together take no
more than a fifth. A host that fails to answer ends nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from .hub import Hub
from .pump import Pump
from .thread import LazyThread

logger = logging.getLogger("flask_e2emsg.recheck")

SHORTEST_SECONDS = 0.5
LONGEST_SECONDS = 20.0
CALM_SHARE = 0.05
BRISK_SHARE = 0.2
MOST_CREDIT_SECONDS = 1.0  # of work that may be done at once after a calm time
BREATH_SECONDS = 0.005  # of work, after which others are let in for as long


class Rechecker:
    """Rounds over the connections of this process.

    `may_stay` asks the host about one connection; `has_questions` says whether the host has
    anything that could turn a connection away.
    """

    def __init__(
        self, hub: Hub, may_stay: Callable[[Pump], bool], has_questions: Callable[[], bool]
    ) -> None:
        self._hub = hub
        self._may_stay = may_stay
        self._has_questions = has_questions
        self._users: set[str] = set()
        self._is_brisk = False
        self._is_stopped = False
        self._credit = MOST_CREDIT_SECONDS
        self._stirred = threading.Event()
        self._thread = LazyThread("e2emsg-recheck", self._run)

    def ensure_running(self) -> None:
        """Start, if it does not run yet."""
        self._thread.ensure_running()

    def stop(self) -> None:
        """Ask no more. Does not wait for a round that is under way."""
        self._is_stopped = True
        self._stirred.set()

    def look_at(self, user_id: str) -> None:
        """Something has happened that may concern this user. Never waits."""
        if self._hub.of(user_id):
            self._users.add(user_id)
            self._stirred.set()

    def look_around(self) -> None:
        """Something has happened that may concern anybody. Never waits."""
        self._is_brisk = True
        self._stirred.set()

    def _run(self) -> None:
        while not self._is_stopped:
            work = self._round(self._hub.all()) if self._has_questions() else 0.0
            self._rest(work)

    def _rest(self, work: float) -> None:
        """Wait until the next round is due, and look at the users who are named meanwhile."""
        began = time.monotonic()
        credit = self._credit - work
        calm = min(max(work / CALM_SHARE, SHORTEST_SECONDS), LONGEST_SECONDS)
        # What a round takes must be saved up before somebody else's wish can bring it forward.
        brisk = min(max((work - credit) / BRISK_SHARE, 0.0), calm)
        while True:
            passed = time.monotonic() - began
            left = (brisk if self._is_brisk else calm) - passed
            if left <= 0 or self._is_stopped:
                self._is_brisk = False
                self._credit = min(credit + passed * BRISK_SHARE, MOST_CREDIT_SECONDS)
                return
            if self._stirred.wait(left):
                self._stirred.clear()
                while self._users and self._has_questions():
                    self._round(self._hub.of(self._users.pop()))

    def _round(self, pumps: Iterable[Pump]) -> float:
        """Ask about connections; the seconds of the processor's time that it took."""
        work, breath = 0.0, 0.0
        for pump in pumps:
            began = time.thread_time()
            self._ask(pump)
            work += time.thread_time() - began
            if work - breath >= BREATH_SECONDS:
                time.sleep(work - breath)
                breath = work
        return work

    def _ask(self, pump: Pump) -> None:
        try:
            if pump.close_code is None and not self._may_stay(pump):
                pump.close(4401)
        except Exception as error:
            # Texts of the host's errors may quote tokens, so name only the kind.
            logger.warning("asking about a connection failed: %s", type(error).__name__)
