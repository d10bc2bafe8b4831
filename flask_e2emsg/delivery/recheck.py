"""Asks again, for as long as a connection is open, whether its user may still be here.

A token that was revoked, or a user who was locked out, ends the connection with 4401. A round asks
about every connection of this process, about those of one token once. Rounds follow each other
after `SHORTEST_SECONDS`, or later where asking takes long: by the clock they take a tenth of the
processor's time, and never rest for more than `LONGEST_SECONDS`. A user whom `look_at` names is
asked about within `NAMED_SECONDS`, also during a round; `look_around` brings the next round
forward, for as long as all of it takes no more than three tenths of the time. A host that fails to
answer ends nothing, unless it goes on failing for `PATIENCE_SECONDS`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from .hub import Hub
from .pump import Credential, Pump
from .thread import LazyThread

logger = logging.getLogger("flask_e2emsg.recheck")

SHORTEST_SECONDS = 0.5
LONGEST_SECONDS = 20.0
NAMED_SECONDS = 0.1
PATIENCE_SECONDS = 300.0
CALM_SHARE = 0.1
BRISK_SHARE = 0.3
MOST_CREDIT_SECONDS = 1.0  # of work that may be done at once after a calm time
TOGETHER = 8  # questions, after which others are let in for as long


class Rechecker:
    """Rounds over the connections of this process.

    `may_stay` asks the host about the credential of a pump, in a context that `asking` opens for
    a few questions; `has_questions` says whether the host has anything that could turn a connection
    away.
    """

    def __init__(
        self,
        hub: Hub,
        may_stay: Callable[[Any], bool],
        asking: Callable[[], AbstractContextManager[object]],
        has_questions: Callable[[], bool],
    ) -> None:
        self._hub = hub
        self._may_stay = may_stay
        self._asking = asking
        self._has_questions = has_questions
        self._named: set[str] = set()
        self._named_at = 0.0  # when named users were last asked about
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
            self._named.add(user_id)
            self._stirred.set()

    def look_around(self) -> None:
        """Something has happened that may concern anybody. Never waits."""
        self._is_brisk = True
        self._stirred.set()

    def _run(self) -> None:
        while not self._is_stopped:
            self._rest(self._round())

    def _round(self) -> float:
        """Ask about everybody; the seconds of the processor's time that it took."""
        try:
            if not self._has_questions():
                return 0.0
            return self._ask_about(self._hub.all(), between=self._ask_about_named)
        except BaseException as error:
            # Not even a timeout of gevent's may end this thread: nobody would be asked about again.
            logger.error("asking about connections failed: %s", type(error).__name__)
            return SHORTEST_SECONDS

    def _rest(self, work: float) -> None:
        """Wait until the next round is due, and ask about the users who are named meanwhile."""
        began, passed = time.monotonic(), 0.0
        credit = self._credit - work
        calm = min(max(work / CALM_SHARE, SHORTEST_SECONDS), LONGEST_SECONDS)
        # What a round takes must be saved up before somebody's wish can bring it forward.
        brisk = min(max((work - credit) / BRISK_SHARE, 0.0), calm)
        while not self._is_stopped:
            passed = time.monotonic() - began
            left = (brisk if self._is_brisk else calm) - passed
            if left <= 0:
                break
            if self._named:
                time.sleep(max(0.0, self._named_at + NAMED_SECONDS - time.monotonic()))
                credit -= self._ask_about_named()
            elif self._stirred.wait(left):
                self._stirred.clear()
        self._is_brisk = False
        self._credit = min(credit + passed * BRISK_SHARE, MOST_CREDIT_SECONDS)

    def _ask_about_named(self) -> float:
        """Ask about the users who were named, if that was not done just now."""
        if not self._named or time.monotonic() < self._named_at + NAMED_SECONDS:
            return 0.0
        named, self._named = self._named, set()
        self._named_at = time.monotonic()
        return self._ask_about([pump for user_id in named for pump in self._hub.of(user_id)])

    def _ask_about(
        self, pumps: Iterable[Pump], between: Callable[[], float] = lambda: 0.0
    ) -> float:
        by_key: defaultdict[Hashable, list[Pump]] = defaultdict(list)
        for pump in pumps:
            if pump.credential is not None and pump.close_code is None:
                by_key[pump.credential.key].append(pump)
        work, waiting = 0.0, deque(by_key.values())
        unanswered = 0
        while waiting and not self._is_stopped:
            began = time.thread_time()
            unanswered += self._ask_some(waiting)
            spent = time.thread_time() - began
            work += spent
            if waiting:
                time.sleep(spent)
                work += between()
        if unanswered:
            logger.warning("the host did not answer about %d of %d", unanswered, len(by_key))
        return work

    def _ask_some(self, waiting: deque[list[Pump]]) -> int:
        """Ask about the next few, together; how many of them got no answer."""
        try:
            with self._asking():
                for _ in range(min(TOGETHER, len(waiting))):
                    pumps = waiting.popleft()
                    answer = self._answer(pumps[0].credential)
                    for pump in pumps:
                        self._obey(pump, answer)
                    if answer is None:
                        # What failed may have spoiled what they share.
                        return 1
        except BaseException as error:
            logger.debug("leaving a context failed: %s", type(error).__name__)
        return 0

    def _answer(self, credential: Credential | None) -> bool | None:
        """The host's answer; None if it has none."""
        try:
            return self._may_stay(credential)
        except BaseException as error:
            # Texts of the host's errors may quote tokens, so name only the kind.
            logger.debug("asking about a connection failed: %s", type(error).__name__)
            return None

    def _obey(self, pump: Pump, answer: bool | None) -> None:
        if answer:
            pump.vouched_at = time.monotonic()
        elif answer is False:
            pump.close(4401)
        elif time.monotonic() - pump.vouched_at > PATIENCE_SECONDS:
            pump.close(1011)
