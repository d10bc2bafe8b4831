"""A directory in memory, and a way out that ends in a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from flask_e2emsg.client import events, vault
from flask_e2emsg.client.contacts import Contacts
from flask_e2emsg.client.envelope import Address, open_envelope, parse
from flask_e2emsg.client.errors import NoBackup
from flask_e2emsg.client.identity import Identity
from flask_e2emsg.client.ids import new_message_id
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.plaintext import Plaintext, decode
from flask_e2emsg.client.rest import Rest
from flask_e2emsg.client.sending import Draft, Sending
from flask_e2emsg.client.store import Store
from flask_e2emsg.protocol.values import decode_binary, encode_binary

Frame = dict[str, Any]
EPOCH = "0123456789abcdef"
CREATED_AT = "2026-03-01T12:00:00.123Z"


class FakeRest(Rest):
    """The calls of alice, answered from dictionaries."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.pages: dict[str, list[Frame]] = {}

    def user_id(self) -> str:
        return "alice"

    def published_key(self, user_id: str) -> bytes | None:
        return self.keys.get(user_id)

    def publish_key(self, public_key: bytes) -> None:
        self.keys["alice"] = public_key

    def history(self, contact: str, before: int | None, limit: int) -> Frame:
        return {"messages": self.pages.get(contact, []), "next": None}

    def backup(self) -> tuple[bytes, int]:
        raise NoBackup


class Desk:
    """Alice writes; what goes out is in `out`, what she is told in `told`."""

    def __init__(self, path: Path) -> None:
        self.rest, self.out, self.told = FakeRest(), [], []
        self.path = path
        self.bob = IdentityKey.generate()
        self.rest.keys["bob"] = self.bob.public
        self.open()

    out: list[Frame]
    told: list[events.Event]

    def open(self) -> None:
        """Start, as a process does."""
        before, vault.SCRYPT_N = vault.SCRYPT_N, 1 << 10
        self.store = Store(self.path, "passphrase")
        vault.SCRYPT_N = before
        self.me = Identity(self.store, self.rest, self.told.append)
        self.me.prepare()
        self.contacts = Contacts(self.store, self.rest, self.me, self.told.append)
        self.sending = Sending(self.store, self.rest, self.me, self.contacts, self.told.append)

    def restart(self) -> None:
        """The process ends and starts again."""
        self.store.close()
        self.open()

    def connect(self) -> None:
        """A connection is made."""
        self.contacts.connected()
        self.sending.connected(self.out.append)

    def write(self, body: str, to: str = "bob") -> str:
        """Send a text; its id."""
        message_id = new_message_id()
        self.sending.send(Draft(message_id, to, None, "text", body, None, 1), None)
        return str(message_id)

    def accept(self, message_id: str) -> None:
        """The server has stored it."""
        self.sending.accepted(message_id, None, EPOCH, CREATED_AT)

    def refuse(self, message_id: str, code: str, **members: Any) -> None:
        """The server says no."""
        self.sending.refused({"type": "error", "ref": message_id, "code": code, **members})

    def stale(self, message_id: str, user_id: str, public_key: bytes | None) -> None:
        """The server names the key that counts."""
        text = None if public_key is None else encode_binary(public_key)
        self.refuse(message_id, "stale_key", key={"user_id": user_id, "public_key": text})

    def sent(self) -> list[str]:
        """The ids of what went out."""
        return [frame["id"] for frame in self.out]

    def read(self, frame: Frame, reader: IdentityKey | None = None) -> Plaintext:
        """What bob reads in a frame that went out."""
        address = Address(UUID(frame["id"]), "alice", frame["to"])
        envelope = parse(decode_binary(frame["encrypted_content"], "content"))
        senders = [key.public for key in self.me.keys]
        return decode(open_envelope(envelope, address, [reader or self.bob], senders))
