"""The keys of others: pinned at first contact, and changed by the user alone (docs/crypto.md, 4).

unknown ──the directory has a key──▶ pinned ──another key is shown──▶ stopped
stopped ──the user accepts it, or the old one is shown again──▶ pinned
"""

from __future__ import annotations

from collections.abc import Callable

from . import events
from .errors import KeyNotAccepted, NoSuchKey, ServerError, UnusableKey
from .identity import Identity
from .keys import hpke_public_key
from .rest import Rest
from .safety import SafetyNumber, safety_number
from .store import Store


class Contacts:
    """Whom I write to and hear from."""

    def __init__(
        self, store: Store, rest: Rest, me: Identity, tell: Callable[[events.Event], None]
    ) -> None:
        self._store, self._rest, self._me, self._tell = store, rest, me, tell
        self._is_online = False
        self._asked: set[str] = set()  # since the connection was made
        self._shown: dict[str, tuple[bytes | None]] = {}  # what the user was told of

    def connected(self) -> None:
        """Ask for everybody's key again before the next message."""
        self._is_online = True
        self._asked.clear()

    def disconnected(self) -> None:
        """Go by what is pinned, rather than wait for a server that cannot be reached."""
        self._is_online = False

    def public_keys(self, user_id: str) -> list[bytes]:
        """The keys under which a user's messages open; mine are my own."""
        if user_id == self._me.user_id:
            return [key.public for key in self._me.keys]
        return self._store.pins(user_id)

    def key_for_sending(self, contact: str) -> bytes:
        """The key to seal for, of what is known after a `check`.

        Raises:
            NoSuchKey: the contact has none.
            KeyNotAccepted: it is another one than the pinned one.
        """
        if contact == self._me.user_id:
            return self._me.current().public
        pins = self._store.pins(contact)
        if not pins:
            raise NoSuchKey(contact)
        if self.is_stopped(contact):
            raise KeyNotAccepted(contact)
        return pins[0]

    def check(self, contact: str) -> None:
        """Ask the directory once for each connection, and each time while nothing is pinned.

        Raises:
            ServerError: nothing is pinned, and the directory does not answer.
        """
        is_pinned = bool(self._store.pins(contact))
        is_needed = contact not in self._asked and (self._is_online or not is_pinned)
        if not is_needed or contact == self._me.user_id:
            return
        try:
            self.ask(contact)
        except ServerError:
            if not is_pinned:
                raise

    def meet(self, contact: str) -> None:
        """Pin the directory's key of somebody whom this store does not know."""
        if not self._store.pins(contact):
            self.check(contact)

    def ask(self, contact: str) -> None:
        """Compare the directory's key with the pinned one."""
        public_key = self._rest.published_key(contact)
        if public_key is not None:
            self.shown(contact, public_key)
            self._asked.add(contact)

    def shown(self, contact: str, public_key: bytes | None) -> None:
        """Somebody says that this is the contact's key; None: that there is none."""
        if public_key is not None and not _is_usable(public_key):
            return
        pins = self._store.pins(contact)
        if not pins:
            if public_key is None:
                return
            with self._store.database.transaction():
                self._store.pin(contact, public_key)
                self._store.entries.release(contact)
        elif public_key is not None and public_key == pins[0]:
            self._store.withdraw(contact)
            self._shown.pop(contact, None)
        else:
            self._offer(contact, public_key)

    def _offer(self, contact: str, public_key: bytes | None) -> None:
        self._store.offer(contact, public_key)
        if self._shown.get(contact) != (public_key,):
            self._shown[contact] = (public_key,)
            number = None if public_key is None else self._number(contact, public_key)
            self._tell(events.KeyChanged(contact, number))

    def is_stopped(self, contact: str) -> bool:
        """Whether a key waits for the user."""
        return self._store.offered(contact) is not None

    def safety_number(self, contact: str) -> SafetyNumber:
        """The number to compare: of the key that waits for the user, else of the pinned one."""
        return self._number(contact, self._newest(contact))

    def accept(self, contact: str, number: SafetyNumber | str | None) -> None:
        """Pin the key that waits, if it has this number.

        Raises:
            NoSuchKey: the contact has no key.
            KeyNotAccepted: by now it is yet another key, with another number.
        """
        public_key = self._newest(contact)
        if number is not None and str(number) != str(self._number(contact, public_key)):
            raise KeyNotAccepted(contact)
        with self._store.database.transaction():
            self._store.pin(contact, public_key)
            self._store.entries.release(contact)

    def _newest(self, contact: str) -> bytes:
        offered = self._store.offered(contact)
        if offered is None or offered == (None,):
            self.check(contact)
            offered = self._store.offered(contact)
        known = self._store.pins(contact) if offered is None else offered
        if not known or known[0] is None:
            raise NoSuchKey(contact)
        return known[0]

    def _number(self, contact: str, public_key: bytes) -> SafetyNumber:
        return safety_number((self._me.user_id, self._me.keys[0].public), (contact, public_key))


def _is_usable(public_key: bytes) -> bool:
    try:
        hpke_public_key(public_key)
    except UnusableKey:
        return False
    return True
