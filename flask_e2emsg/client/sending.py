"""From a text to a stored message: sealed into the outbox, then sent, one per recipient at a time.

outbox ──sent──▶ unanswered ──accepted──────────────▶ gone; its link is the chain's newest
──refused, final────────▶ gone; what follows is sealed again
──refused for a while───▶ outbox, sent again when the time has come
──stale_key─────────────▶ outbox, until the key is accepted
──the connection broke──▶ outbox, the same bytes are sent again
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ..errors import BadRequest
from ..protocol.envelope import kid_of
from ..protocol.values import decode_binary, encode_binary
from . import events, plaintext
from .chain import Link
from .contacts import Contacts
from .envelope import Address, open_envelope, parse, seal
from .errors import CannotOpen, CannotSend, ServerError
from .identity import Identity
from .outbox import Outgoing
from .reading import Frame, Reader, kid_in, time_of
from .rest import Rest
from .store import Store

FINAL = {"bad_request", "unknown_recipient", "too_large", "id_conflict", "forbidden", "not_found"}
RETRY_SECONDS = 1.0  # when the server does not say
Write = Callable[[Frame], None]


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody writes."""

    id: UUID
    recipient: str
    conversation_id: str | None
    type: str
    body: str | None = field(repr=False)
    target: str | None
    sent_at: int  # milliseconds


class Sending:
    """The way out. Used by the application's threads and the connection's."""

    def __init__(
        self,
        store: Store,
        rest: Rest,
        me: Identity,
        contacts: Contacts,
        tell: Callable[[events.Event], None],
    ) -> None:
        self._store, self._rest, self._me, self._contacts = store, rest, me, contacts
        self._tell = tell
        self._lock = threading.RLock()  # never held while something is written to the socket
        self._write: Write | None = None
        self._unanswered: dict[str, str] = {}  # recipient to message id
        self._due: dict[str, float] = {}  # recipient to when it may be tried again

    def send(self, draft: Draft, expires_in: int | None) -> None:
        """Seal into the outbox, durably, and send if there is a connection.

        Raises:
            CannotSend, CannotSeal: nothing was kept.
            ServerError: it takes the server to seal, and it does not answer.
        """
        self._me.current()
        self._contacts.check(draft.recipient)
        self._find_my_place(draft.recipient)
        with self._lock:
            public_key = self._contacts.key_for_sending(draft.recipient)
            envelope, link = self._seal(draft, public_key, self._newest_link(draft.recipient))
            is_next = self._store.outbox.first(draft.recipient) is None
            self._store.outbox.put(
                str(draft.id),
                draft.recipient,
                draft.conversation_id,
                expires_in,
                envelope,
                link,
                tried=is_next and self._may_send(draft.recipient),
            )
        self.kick(draft.recipient)

    def _seal(self, draft: Draft, public_key: bytes, before: Link | None) -> tuple[bytes, Link]:
        key = self._me.current()
        content = plaintext.Plaintext(
            draft.type,
            draft.sent_at,
            1 if before is None else before.n + 1,
            plaintext.hash_text(None if before is None else before.hash),
            draft.body,
            draft.target,
        )
        address = Address(draft.id, self._me.user_id, draft.recipient, draft.conversation_id)
        envelope = seal(plaintext.encode(content), address, key, [public_key])
        return envelope, Link(content.n, plaintext.hash_of(envelope))

    def _newest_link(self, recipient: str) -> Link | None:
        """What the next envelope follows: the last one of the outbox, or the last stored one."""
        kid = self._me.current().kid
        last = self._store.outbox.last(recipient)
        if last is not None and parse(last.envelope).sender_kid == kid:
            return last.link
        return self._store.link("to", recipient, kid)

    def _find_my_place(self, recipient: str) -> None:
        """With a key that other devices have used, go on after its newest message in history."""
        key = self._me.current()
        if self._newest_link(recipient) is not None or self._store.was_made_here(key):
            return
        reader = Reader(self._me, self._contacts)
        for frame in self._rest.history(recipient, None, 100)["messages"]:
            if frame["sender"] == self._me.user_id and kid_in(frame) == key.kid:
                with self._store.database.transaction():
                    self._store.add_link("to", recipient, key.kid, reader.open(frame).link)
                return

    # Towards the server.

    def connected(self, write: Write) -> None:
        """Send what waits, the same bytes again for what was not answered."""
        with self._lock:
            self._write = write
            self._unanswered.clear()
            self._due.clear()
        for recipient in self._store.outbox.recipients():
            try:
                self._contacts.check(recipient)
            except ServerError:
                continue
            self.kick(recipient)

    def disconnected(self) -> None:
        """Keep everything until the next connection."""
        with self._lock:
            self._write = None

    def kick(self, recipient: str) -> None:
        """Send the next message to somebody, if it is its turn."""
        with self._lock:
            item = self._store.outbox.first(recipient)
            write = self._write
            if item is None or write is None or not self._may_send(recipient):
                return
            if not item.tried:
                self._store.outbox.mark_tried(item.id, True)
            self._unanswered[recipient] = item.id
        write(_frame(item))

    def kick_due(self) -> None:
        """Send what had to wait and need not any more."""
        now = time.monotonic()
        with self._lock:
            due = [recipient for recipient, when in self._due.items() if when <= now]
            for recipient in due:
                del self._due[recipient]
        for recipient in due:
            self.kick(recipient)

    def seconds_until_due(self) -> float | None:
        """How long until something has to be tried again; None: nothing has."""
        with self._lock:
            when = min(self._due.values(), default=None)
        return None if when is None else max(0.0, when - time.monotonic())

    def _may_send(self, recipient: str) -> bool:
        return (
            self._write is not None
            and recipient not in self._unanswered
            and recipient not in self._due
            and self._me.may_send
            and not self._contacts.is_stopped(recipient)
        )

    # What the server answers.

    def accepted(self, message_id: str, seq: int | None, epoch: str, created_at: str) -> None:
        """It is stored: it leaves the outbox, and stays among the entries as told."""
        with self._lock:
            item = self._store.outbox.get(message_id)
            if item is None:
                return
            stored = {**_stored(item, self._me.user_id), "seq": seq, "created_at": created_at}
            with self._store.database.transaction():
                kid = parse(item.envelope).sender_kid
                self._store.add_link("to", item.recipient, kid, item.link)
                self._store.outbox.remove(item.id)
                self._store.entries.add(epoch, stored, item.recipient, "told")
            self._unanswered.pop(item.recipient, None)
        self._tell(events.Sent(item.id, item.recipient, time_of(created_at)))
        self.kick(item.recipient)

    def refused(self, error: Frame) -> None:
        """It is not stored: for good, for a while, or until a key was accepted."""
        item = self._store.outbox.get(str(error.get("ref")))
        if item is None:
            return
        code, retry_after = str(error["code"]), error.get("retry_after")
        with self._lock:
            self._unanswered.pop(item.recipient, None)
        if code in FINAL:
            self._give_up(item, code)
        elif code == "stale_key" and isinstance(error.get("key"), dict):
            self._stale(item, error["key"])
        else:
            self._put_off(item, code, float(retry_after or RETRY_SECONDS))

    def _give_up(self, item: Outgoing, code: str) -> None:
        with self._lock, self._store.database.transaction():
            self._store.outbox.remove(item.id)
            self._reseal(item.recipient)
        self._tell(events.Refused(item.id, item.recipient, code, True))
        self.kick(item.recipient)

    def _put_off(self, item: Outgoing, code: str, seconds: float) -> None:
        with self._lock:
            self._due[item.recipient] = time.monotonic() + seconds
        self._tell(events.Refused(item.id, item.recipient, code, False, seconds))

    def _stale(self, item: Outgoing, key: Frame) -> None:
        """The server names the key that counts: mine, or the recipient's."""
        public_key = _public_key(key)
        self._store.outbox.mark_tried(item.id, False)
        if key["user_id"] == self._me.user_id != item.recipient:
            self._me.published_is(public_key)
        elif item.recipient != self._me.user_id:
            self._contacts.shown(item.recipient, public_key)
        if not self._me.may_send or self._contacts.is_stopped(item.recipient):
            return
        if _is_sealed_for(item, self._contacts.public_keys(item.recipient)[0]):
            # All agree but the server, which may know better later.
            self._put_off(item, "stale_key", RETRY_SECONDS)
            return
        self.reseal([item.recipient])

    # Sealing again.

    def reseal(self, recipients: Iterable[str] | None = None) -> None:
        """Seal for the keys that count now what was not sent; then send it. None: to everybody."""
        chosen = self._store.outbox.recipients() if recipients is None else recipients
        for recipient in chosen:
            with self._lock, self._store.database.transaction():
                self._reseal(recipient)
            self.kick(recipient)

    def resume(self, contact: str) -> None:
        """The contact's new key was accepted: seal for it all that the server does not have."""
        with suppress(ServerError):
            page = self._rest.history(contact, None, 100)
            stored = {frame["id"] for frame in page["messages"]}
            with self._lock:
                # What is under way may be stored by now, with the bytes that it has.
                stored.add(self._unanswered.get(contact, ""))
                for item in self._store.outbox.to(contact):
                    if item.id not in stored:
                        self._store.outbox.mark_tried(item.id, False)
        self.reseal([contact])

    def written_elsewhere(self, recipient: str, kid: bytes, link: Link) -> None:
        """Another device of mine has written to somebody: go on after it."""
        with self._lock, self._store.database.transaction():
            known = self._store.link("to", recipient, kid)
            self._store.add_link("to", recipient, kid, link)
            if known is None or link.n > known.n:
                self._reseal(recipient)

    def _reseal(self, recipient: str) -> None:
        """What is not tried gets its new place after what is, or was stored."""
        if not self._me.may_send or self._contacts.is_stopped(recipient):
            return
        kid, keys = self._me.current().kid, self._contacts.public_keys(recipient)
        newest = self._store.link("to", recipient, kid)
        for item in self._store.outbox.to(recipient):
            if item.tried:
                newest = item.link if parse(item.envelope).sender_kid == kid else newest
                continue
            try:
                envelope, newest = self._seal(self._draft(item), keys[0], newest)
            except (CannotOpen, CannotSend, IndexError):
                continue  # sealed under a key that is no more; it cannot be read here either
            self._store.outbox.reseal(item.id, envelope, newest)

    def _draft(self, item: Outgoing) -> Draft:
        """What an item says, by the wrap for myself."""
        envelope, me = parse(item.envelope), self._me.user_id
        address = Address(UUID(item.id), me, item.recipient, item.conversation_id)
        keys = self._me.keys
        text = open_envelope(envelope, address, keys, [key.public for key in keys])
        content = plaintext.decode(text)
        facts = (item.recipient, item.conversation_id, content.type, content.body, content.target)
        return Draft(UUID(item.id), *facts, content.sent_at)


def _frame(item: Outgoing) -> Frame:
    optional = {"conversation_id": item.conversation_id, "expires_in": item.expires_in}
    return {
        "type": "send",
        "id": item.id,
        "to": item.recipient,
        "encrypted_content": encode_binary(item.envelope),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _stored(item: Outgoing, sender: str) -> Frame:
    """The frame that another device of mine gets for it."""
    return {
        "type": "message",
        "id": item.id,
        "sender": sender,
        "recipient": item.recipient,
        "conversation_id": item.conversation_id,
        "encrypted_content": encode_binary(item.envelope),
    }


def _public_key(key: dict[str, Any]) -> bytes | None:
    try:
        return None if key["public_key"] is None else decode_binary(key["public_key"], "key")
    except BadRequest:
        return None


def _is_sealed_for(item: Outgoing, public_key: bytes) -> bool:
    return kid_of(public_key) in {wrap.kid for wrap in parse(item.envelope).wraps}
