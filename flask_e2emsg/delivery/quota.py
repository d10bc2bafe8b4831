"""How much may wait for somebody who does not come for it: in all, and from one sender.

Counting on every send would cost more than the send, so a process counts what a sender has sent
after a few messages, and again after each tenth of a quota. What several processes, or several
senders at once, let through between two counts may exceed it by as much, each.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..store.accounts import Party, Waiting
from .thread import quick_lock

FIRST_PART = 16  # messages of a sender that are let through before anything is counted
PARTS = 10  # of a quota: how often it is counted while it fills
REMEMBERED_PAIRS = 100_000
RECOUNT_SECONDS = 1.0  # a quota that is used up is counted again after this


@dataclass(slots=True)
class _Allowance:
    """What may be sent before it is counted again."""

    left: int
    refused_until: float = 0.0  # on the monotonic clock


class Quotas:
    """The quotas of one app in one process.

    `waiting` counts what lies undelivered for a recipient: entries in all, and messages of one
    sender.
    """

    def __init__(
        self,
        waiting: Callable[[Party, Party, int], Waiting],
        of_one_sender: int | None,
        of_all: int | None,
    ) -> None:
        self._waiting = waiting
        self._of_one_sender = of_one_sender
        self._of_all = of_all
        quotas = [quota for quota in (of_one_sender, of_all) if quota is not None]
        self._part = max(1, min(quotas, default=PARTS) // PARTS)
        self._is_on = bool(quotas)
        self._allowances: OrderedDict[tuple[int, int], _Allowance] = OrderedDict()
        self._lock = quick_lock()

    def check(self, sender: Party, recipients: Sequence[Party]) -> int | None:
        """The index of the first recipient for whom too much waits; None if there is room for all.

        Raises:
            Unavailable: the database refused.
        """
        if not self._is_on:
            return None
        for index, recipient in enumerate(recipients):
            if recipient.account_id != sender.account_id and not self._has_room(sender, recipient):
                return index
        return None

    def _has_room(self, sender: Party, recipient: Party) -> bool:
        allowance = self._allowance(sender, recipient)
        if allowance.left <= 0:
            if allowance.refused_until > time.monotonic():
                return False
            left = self._count(sender, recipient)
            if left <= 0:
                allowance.refused_until = time.monotonic() + RECOUNT_SECONDS
                return False
            allowance.left = left
        allowance.left -= 1
        return True

    def _allowance(self, sender: Party, recipient: Party) -> _Allowance:
        pair = sender.account_id, recipient.account_id
        if (known := self._allowances.get(pair)) is not None:
            return known
        with self._lock:
            allowance = self._allowances.get(pair)
            if allowance is None:
                # So that most pairs never cost a query; small, since strangers may be many.
                first = min(self._part, FIRST_PART)
                allowance = self._allowances[pair] = _Allowance(first)
                if len(self._allowances) > REMEMBERED_PAIRS:
                    self._allowances.popitem(last=False)
            return allowance

    def _count(self, sender: Party, recipient: Party) -> int:
        enough = 0 if self._of_one_sender is None else self._of_one_sender
        waiting = self._waiting(recipient, sender, enough)
        left = self._part
        if self._of_one_sender is not None:
            left = min(left, self._of_one_sender - waiting.from_sender)
        if self._of_all is not None:
            left = min(left, self._of_all - waiting.in_all)
        return left
