"""How much each user may send, over all workers.

A worker takes a share of a user's limit from the common count and spends it without asking again,
so most sends of somebody who sends much cost no query. Shares grow from one send to a twentieth of
the limit. Guarantee: no more than the limit is ever given out in one window. What a worker has
taken and not spent when the window ends is lost to the user: at most what was sent through it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from limits import RateLimitItem
from limits.storage import Storage

from .thread import quick_lock

SHARES = 20  # of the largest, into which a limit is divided
REMEMBERED_USERS = 100_000
LEAST_WAIT_SECONDS = 0.1


@dataclass(slots=True)
class _Share:
    """What is left of what was taken, in one window."""

    left: int
    ends: float  # the window, on the monotonic clock
    next_size: int = 1
    is_last: bool = False  # there is no more to take in this window


class RateLimiter:
    """Limits of one kind, each kept by itself."""

    def __init__(self, storage: Storage, limits: Sequence[RateLimitItem]) -> None:
        self._storage = storage
        self._limits = limits
        self._shares: OrderedDict[str, list[_Share]] = OrderedDict()  # by user, one for each limit
        self._lock = quick_lock()

    def spend(self, user_id: str, count: int) -> float | None:
        """None if the user may send `count` now, which is then counted; else seconds to wait.

        Raises:
            Unavailable: the database refused.
        """
        while not self._spend_what_is_here(user_id, count):
            for number, limit in enumerate(self._limits):
                share = self._share(number, user_id)
                if share.left < count and not share.is_last:
                    share = self._take_more(number, limit, user_id, count - share.left)
                if share.left < count:
                    return max(round(share.ends - time.monotonic(), 1), LEAST_WAIT_SECONDS)
        return None

    def _spend_what_is_here(self, user_id: str, count: int) -> bool:
        """Spend of all limits or of none; False if one of them has too little.

        While one limit was asked for, another connection may have spent of the other.
        """
        moment = time.monotonic()
        with self._lock:
            shares = self._shares.get(user_id)
            if shares is None:
                return not self._limits
            for share in shares:
                if share.left < count or share.ends <= moment:
                    return False
            for share in shares:
                share.left -= count
        return True

    def _share(self, number: int, user_id: str) -> _Share:
        shares = self._shares.get(user_id)
        if shares is None or shares[number].ends <= time.monotonic():
            return _Share(0, 0.0)
        return shares[number]

    def _take_more(self, number: int, limit: RateLimitItem, user_id: str, lacking: int) -> _Share:
        """Take a share, or more if that is not enough, and add it to what is left."""
        wanted = max(lacking, min(self._share(number, user_id).next_size, limit.amount // SHARES))
        key, window = limit.key_for("e2emsg", user_id), limit.get_expiry()
        used = self._storage.incr(key, window, wanted)
        given = max(0, wanted - max(0, used - limit.amount))
        ends = self._share(number, user_id).ends
        if ends == 0.0:
            seconds = min(max(self._storage.get_expiry(key) - time.time(), 0.0), window)
            ends = time.monotonic() + seconds
        with self._lock:
            share = self._share(number, user_id)
            if share.ends == 0.0:
                shares = self._shares.setdefault(user_id, [_Share(0, 0.0) for _ in self._limits])
                share = shares[number] = _Share(0, ends)
                if len(self._shares) > REMEMBERED_USERS:
                    self._shares.popitem(last=False)
            share.left += given
            share.next_size *= 2
            share.is_last = given < wanted
        return share
