"""Who I am: my user id, my keys, and whether the directory agrees (docs/crypto.md, 4 and 6).

no key here, none in the directory ──a new one is made and published──▶ ready
mine is not in the directory       ──it is published──────────────────▶ ready
another one is in the directory    ──OwnKeyChanged───▶ stopped ──restore, or my decision──▶ ready
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from . import events
from .backup import new_code, open_backup, seal_backup
from .errors import CannotSend, KeyNeeded, NoBackup, NotReady, OwnKeyReplaced, Refused
from .keys import IdentityKey
from .rest import Rest
from .store import Store

_TRIES = 3  # to replace a backup while another device does


class Identity:
    """My side. Used by all threads; calls on the network are made without the lock."""

    def __init__(self, store: Store, rest: Rest, tell: Callable[[events.Event], None]) -> None:
        self._store, self._rest, self._tell = store, rest, tell
        self._keys = store.own_keys()
        self._user_id = store.user_id
        self._stopped: type[CannotSend] | None = None
        self.changed = threading.Event()  # set whenever the keys or what stops them may have
        self.known = threading.Event()  # set once it is known who I am and whether I have a key
        if self._keys and self._user_id is not None:
            self.known.set()

    @property
    def user_id(self) -> str:
        """Raises `NotReady` before the first connection."""
        if self._user_id is None:
            raise NotReady
        return self._user_id

    @property
    def keys(self) -> list[IdentityKey]:
        """All of mine, the current one first."""
        return self._keys

    @property
    def has_key(self) -> bool:
        """Whether there is one at all."""
        return bool(self._keys)

    def current(self) -> IdentityKey:
        """The key to seal with.

        Raises:
            CannotSend: there is none, or the directory has another one.
        """
        if self._stopped is not None:
            raise self._stopped
        if not self._keys or self._user_id is None:
            raise NotReady
        return self._keys[0]

    @property
    def may_send(self) -> bool:
        """Whether `current` gives a key."""
        return bool(self._keys) and self._stopped is None

    def prepare(self) -> None:
        """Ask who I am and what the directory has for me; the first time, make a key."""
        user_id = self._learn_user_id()
        published = self._rest.published_key(user_id)
        if published is None:
            if not self._keys:
                self._add(IdentityKey.generate(), made_here=True)
            self._rest.publish_key(self._keys[0].public)
            published = self._keys[0].public
        self.published_is(published)

    def _learn_user_id(self) -> str:
        user_id = self._rest.user_id()
        self._store.belongs_to(user_id)
        self._user_id = user_id
        return user_id

    def published_is(self, public_key: bytes | None) -> None:
        """Compare what the directory has for me with what I have."""
        was = self._stopped
        if self._keys and self._keys[0].public == public_key:
            self._stopped = None
        else:
            self._stopped = OwnKeyReplaced if self._keys else KeyNeeded
            if was is not self._stopped:
                self._tell(events.OwnKeyChanged(known_here=bool(self._keys)))
        self.changed.set()
        self.known.set()

    def make_new_key(self) -> None:
        """Give up the key that the directory has; contacts will see another one."""
        self._add(IdentityKey.generate(), made_here=True)
        self.publish()

    def publish(self) -> None:
        """Say that my key is the one that counts."""
        if not self._keys:
            raise KeyNeeded
        self._rest.publish_key(self._keys[0].public)
        self.published_is(self._keys[0].public)

    def make_backup(self) -> str:
        """Leave the current key on the server, sealed; the code that opens it."""
        key, code = self.current(), new_code()
        blob = seal_backup(key, self.user_id, code, int(time.time() * 1000))
        version = self._version()
        for _ in range(_TRIES):
            try:
                self._rest.put_backup(blob, version)
                return code
            except Refused as refused:
                if refused.status != 409 or "version" not in refused.facts:
                    raise
                version = int(refused.facts["version"])
        raise Refused(409, "conflict")

    def _version(self) -> int:
        try:
            return self._rest.backup()[1]
        except NoBackup:
            return 0

    def restore(self, code: str) -> None:
        """Take the key from the backup; mine of before is kept for history.

        Raises:
            CannotRestore: there is no backup, or the code is not the one.
        """
        self._learn_user_id()
        blob, _ = self._rest.backup()
        key = open_backup(blob, self.user_id, code)
        if not self._keys or self._keys[0].public != key.public:
            self._add(key, made_here=False)
        self.prepare()

    def _add(self, key: IdentityKey, *, made_here: bool) -> None:
        self._store.add_own_key(key, made_here=made_here)
        self._keys = self._store.own_keys()
