"""What a client keeps: its keys, those of others, chains, entries, outbox and cursor.

Guarantees: private keys are unreadable without the passphrase, and cleartext is never written. Who
writes to whom and when stands in the file as it does on the server.
"""

from __future__ import annotations

import secrets
from os import PathLike
from pathlib import Path
from typing import Any

from ..protocol.envelope import kid_of
from ..protocol.values import Cursor
from .chain import Link, newest_of
from .database import Database
from .entries import Entries
from .errors import WrongUser
from .keys import IdentityKey
from .outbox import Outbox
from .vault import Lock, Vault, passphrase_of_the_system

_CHECK = b"this store"
_OWN_KEY = "flask-e2emsg store own key v1"


class Store:
    """The file of one user on one device.

    Args:
        path: where it is, or will be.
        passphrase: what the private keys are wrapped under; None asks the operating system's
            keyring, for which the package `keyring` has to be installed.

    Raises:
        WrongPassphrase: it is another one.
        StoreInUse: another process has the file open.
    """

    def __init__(self, path: str | PathLike[str], passphrase: str | None = None) -> None:
        self.database = Database(Path(path))
        try:
            self._vault = self._unlock(passphrase)
        except BaseException:
            self.database.close()
            raise
        self.entries = Entries(self.database)
        self.outbox = Outbox(self.database)

    def close(self) -> None:
        """Let go of the file. Again: nothing."""
        self.database.close()

    def __repr__(self) -> str:
        return "Store()"

    def _unlock(self, passphrase: str | None) -> Vault:
        known = self._fact("lock")
        with self.database.transaction():
            if known is None:
                lock = Lock()
                self._note("name", secrets.token_hex(8))
                self._note("salt", lock.salt)
                self._note("cost", lock.cost)
            vault = Vault(self._passphrase(passphrase), self._lock())
            if known is None:
                self._note("lock", vault.wrap(_CHECK, "lock"))
        if known is not None:
            vault.unwrap(known, "lock")
        return vault

    def _passphrase(self, given: str | None) -> str:
        return passphrase_of_the_system(self._fact("name")) if given is None else given

    def _lock(self) -> Lock:
        return Lock(self._fact("salt"), self._fact("cost"))

    # Whose it is, and how far it has come.

    @property
    def user_id(self) -> str | None:
        """The user, once known."""
        found: str | None = self._fact("user_id")
        return found

    def belongs_to(self, user_id: str) -> None:
        """Note the user, or see that it is the same as ever.

        Raises:
            WrongUser: it is another one.
        """
        owner = self.user_id
        if owner is not None and owner != user_id:
            raise WrongUser(owner)
        if owner is None:
            with self.database.transaction():
                self._note("user_id", user_id)

    @property
    def cursor(self) -> Cursor | None:
        """Up to where everything is stored."""
        epoch = self._fact("epoch")
        return None if epoch is None else Cursor(epoch, self._fact("seq"))

    def move_cursor(self, cursor: Cursor) -> None:
        """Note that everything up to there is stored, along with what was stored."""
        with self.database.transaction():
            self._note("epoch", cursor.epoch)
            self._note("seq", cursor.seq)

    def _fact(self, name: str) -> Any:
        row = self.database.row("SELECT value FROM facts WHERE name = ?", (name,))
        return row and row[0]

    def _note(self, name: str, value: str | int | bytes) -> None:
        self.database.run("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # My own keys.

    def own_keys(self) -> list[IdentityKey]:
        """All of them, the current one first."""
        rows = self.database.rows("SELECT wrapped FROM own_keys ORDER BY place DESC")
        return [IdentityKey.from_bytes(self._vault.unwrap(row[0], _OWN_KEY)) for row in rows]

    def add_own_key(self, key: IdentityKey, *, made_here: bool) -> None:
        """Make it the current one; those before it are kept for history."""
        wrapped = self._vault.wrap(key.to_bytes(), _OWN_KEY)
        with self.database.transaction():
            self.database.run("DELETE FROM own_keys WHERE kid = ?", (key.kid,))
            self.database.run(
                "INSERT INTO own_keys (kid, wrapped, made_here) VALUES (?, ?, ?)",
                (key.kid, wrapped, made_here),
            )

    def was_made_here(self, key: IdentityKey) -> bool:
        """Whether no other device can have used this key before this one."""
        row = self.database.row("SELECT made_here FROM own_keys WHERE kid = ?", (key.kid,))
        return bool(row and row[0])

    # The keys of others.

    def pins(self, contact: str) -> list[bytes]:
        """The public keys that were pinned for a contact, the current one first."""
        rows = self.database.rows(
            "SELECT public_key FROM pins WHERE contact = ? ORDER BY place DESC", (contact,)
        )
        return [row[0] for row in rows]

    def pin(self, contact: str, public_key: bytes) -> None:
        """Make it the contact's current key, which needs no more to be accepted."""
        values = (contact, public_key)
        with self.database.transaction():
            self.database.run("DELETE FROM pins WHERE contact = ? AND public_key = ?", values)
            self.database.run("INSERT INTO pins (contact, public_key) VALUES (?, ?)", values)
            self.withdraw(contact)

    def offer(self, contact: str, public_key: bytes | None) -> None:
        """Keep a key that the user has not accepted; None: the contact has none any more."""
        with self.database.transaction():
            self.database.run("INSERT OR REPLACE INTO offers VALUES (?, ?)", (contact, public_key))

    def withdraw(self, contact: str) -> None:
        """Forget what was offered."""
        with self.database.transaction():
            self.database.run("DELETE FROM offers WHERE contact = ?", (contact,))

    def offered(self, contact: str) -> tuple[bytes | None] | None:
        """The key that waits for the user, in a tuple; None when none does."""
        row = self.database.row("SELECT public_key FROM offers WHERE contact = ?", (contact,))
        return None if row is None else (row[0],)

    def contacts(self) -> list[str]:
        """Everybody whose key is pinned."""
        return [row[0] for row in self.database.rows("SELECT DISTINCT contact FROM pins")]

    # Chains.

    def link(self, direction: str, contact: str, kid: bytes) -> Link | None:
        """The newest link of a chain: `to` a contact under my key, or `from` one under theirs."""
        row = self.database.row(
            "SELECT n, hash FROM chains WHERE direction = ? AND contact = ? AND kid = ?",
            (direction, contact, kid),
        )
        return None if row is None else Link(*row)

    def add_link(self, direction: str, contact: str, kid: bytes, link: Link) -> None:
        """The chain's newest is this one, if it is newer."""
        newest = newest_of(self.link(direction, contact, kid), link)
        self.database.run(
            "INSERT OR REPLACE INTO chains VALUES (?, ?, ?, ?, ?)",
            (direction, contact, kid, newest.n, newest.hash),
        )

    def knows_kid(self, contact: str, kid: bytes) -> bool:
        """Whether a pinned key of the contact has this kid."""
        return any(kid_of(public_key) == kid for public_key in self.pins(contact))
