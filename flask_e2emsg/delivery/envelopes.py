"""Refuses what no recipient could open: envelopes that are malformed, or for a key of the past.

Keys are remembered, so that a send costs no query: for a minute while this process hears from the
others of new ones, else for a moment. What does not fit a remembered key is compared with the
database before it is refused; what fits a key that was replaced a moment ago, on another worker,
may still be taken.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from uuid import UUID

from ..errors import BadRequest, StaleKey
from ..protocol.envelope import kid_of, outline
from ..protocol.frames import Outgoing
from ..protocol.values import encode_binary, format_time
from ..store.accounts import Party, PublicKey
from .thread import quick_lock

KEY_SECONDS = 5.0
TOLD_KEY_SECONDS = 60.0  # a hint may be lost
REMEMBERED_KEYS = 100_000


class Envelopes:
    """The check of one app in one process.

    `find_key` reads the directory; `is_stored` tells whether a message id is taken: what was stored
    once may be sent again, whatever has become of the keys. `hears` tells whether this process
    learns of keys that others publish.
    """

    def __init__(
        self,
        find_key: Callable[[str], PublicKey | None],
        is_stored: Callable[[UUID], bool],
        hears: Callable[[], bool],
    ) -> None:
        self._find_key = find_key
        self._is_stored = is_stored
        self._hears = hears
        self._kids: OrderedDict[str, tuple[bytes | None, float]] = OrderedDict()
        self._times_forgotten = 0
        self._lock = quick_lock()

    def check(self, sender: Party, message: Outgoing, *, names_message: bool) -> None:
        """Let an envelope pass, or refuse it.

        Raises:
            BadRequest: it is none, or for another message.
            StaleKey: it was sealed by another key than the sender's, or for another one than the
                recipient's; the current one is in the refusal.
            Unavailable: the database refused.
        """
        culprit = str(message.id) if names_message else None
        try:
            seen = outline(message.content, message.id)
        except BadRequest as error:
            raise BadRequest(error.message, message_id=culprit) from None
        moment = time.monotonic()
        if self._kid_of(sender.user_id, moment) != seen.sender:
            self._look_again(sender.user_id, (seen.sender,), message.id, culprit)
        if self._kid_of(message.recipient, moment) not in seen.readers:
            self._look_again(message.recipient, seen.readers, message.id, culprit)

    def forget(self, user_id: str) -> None:
        """The user's key may have changed."""
        with self._lock:
            self._times_forgotten += 1
            self._kids.pop(user_id, None)

    def forget_all(self) -> None:
        """Keys may have changed, and nobody knows whose."""
        with self._lock:
            self._times_forgotten += 1
            self._kids.clear()

    def _kid_of(self, user_id: str, moment: float) -> bytes | None:
        known = self._kids.get(user_id)
        if known is not None:
            kid, since = known
            if moment < since + KEY_SECONDS:
                return kid
            if moment < since + TOLD_KEY_SECONDS and self._hears():
                return kid
        return self._ask(user_id)[0]

    def _look_again(
        self,
        user_id: str,
        kids: Collection[bytes],
        message_id: UUID,
        culprit: str | None,
    ) -> None:
        kid, key = self._ask(user_id)
        if kid not in kids and not self._is_stored(message_id):
            raise StaleKey(_shown(user_id, key), message_id=culprit)

    def _ask(self, user_id: str) -> tuple[bytes | None, PublicKey | None]:
        moment, times_forgotten = time.monotonic(), self._times_forgotten
        key = self._find_key(user_id)
        kid = None if key is None else kid_of(key.public_key)
        with self._lock:
            # Else what was read before a hint would outlive it.
            if times_forgotten == self._times_forgotten:
                self._kids[user_id] = kid, moment
                if len(self._kids) > REMEMBERED_KEYS:
                    self._kids.popitem(last=False)
        return kid, key


def _shown(user_id: str, key: PublicKey | None) -> dict[str, object]:
    if key is None:
        return {"user_id": user_id, "public_key": None, "key_version": None, "updated_at": None}
    return {
        "user_id": user_id,
        "public_key": encode_binary(key.public_key),
        "key_version": key.key_version,
        "updated_at": format_time(key.updated_at),
    }
