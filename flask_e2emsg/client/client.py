"""The client as an application sees it: send, and iterate over events.

    store = Store("alice.e2emsg", passphrase)
    with Client("https://chat.example", token=login, store=store) as client:
        client.send("bob", "Hello")
        for event in client.events():
            ...

Every method may be called from any thread. What comes is told by `events`, from one thread at a
time.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from . import events
from .connection import Connection
from .contacts import Contacts
from .errors import NotReady
from .identity import Identity
from .ids import new_message_id
from .news import News
from .reading import Reader
from .receiving import Receiving
from .rest import Rest, Tokens
from .safety import SafetyNumber
from .sending import Draft, Sending
from .store import Store

PREFIX = "/api"
READY_SECONDS = 15.0

Messages = Sequence[events.Message | events.Unreadable]


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of what was written with a contact, newest first."""

    messages: Messages = field(repr=False)
    next: int | None  # give it as `before`; None: this was the oldest page


class Client:
    """One user on one device.

    Args:
        url: where the host is, such as `https://chat.example`.
        token: gives a valid access token (JWT) each time that it is called.
        store: what this device keeps; the client closes it.
        tls: for `https`; None takes the system's authorities.
        prefix: of the messaging API on this host.

    The first time, a key is made and published. If the account has a key already that is not in the
    store, `OwnKeyChanged` says so, and `restore` or `make_new_key` goes on.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        store: Store,
        *,
        tls: ssl.SSLContext | None = None,
        prefix: str = PREFIX,
    ) -> None:
        address, tokens = url.rstrip("/") + prefix, Tokens(token)
        self._store, self._news = store, News()
        self._rest = Rest(address, tokens, tls)
        self._me = Identity(store, self._rest, self._news.add)
        self._contacts = Contacts(store, self._rest, self._me, self._news.add)
        self._sending = Sending(store, self._rest, self._me, self._contacts, self._news.add)
        self._receiving = Receiving(
            store, self._rest, self._me, self._contacts, self._sending, self._news
        )
        self._connection = Connection(
            address,
            tls,
            tokens,
            store,
            self._me,
            self._sending,
            self._receiving,
            self._news,
            self._contacts,
        )
        self._is_closed = False
        self._connection.start()

    @property
    def user_id(self) -> str:
        """Who I am. Waits for the first connection of a new store.

        Raises:
            NotReady: there was none so far.
        """
        self._until_ready()
        return self._me.user_id

    def send(
        self,
        to: str,
        body: str | None,
        *,
        type: str = "text",
        target: str | None = None,
        conversation_id: str | None = None,
        expires_in: int | None = None,
    ) -> str:
        """Seal a message and put it into the outbox; its id. `Sent` or `Refused` follows.

        Args:
            to: the user id of the recipient.
            body: what is written.
            type: `text`, `reply`, `edit`, `delete` or `reaction`.
            target: the id of the message that this one is about.
            conversation_id: the conversation that it belongs to.
            expires_in: seconds after which the server forgets it.

        Raises:
            CannotSend: there is no key to seal for, or with; or one that is not accepted.
            CannotSeal: it is too long.
            ServerError: it takes the server to begin, and it does not answer.
        """
        self._until_ready()
        message_id = new_message_id()
        sent_at = int(time.time() * 1000)
        draft = Draft(message_id, to, conversation_id, type, body, target, sent_at)
        self._sending.send(draft, expires_in)
        return str(message_id)

    def events(self, timeout: float | None = None) -> Iterator[events.Event]:
        """What happens, in order; ends when nothing does for so many seconds, or after `close`.

        A message counts as handled when the next event is asked for, which is noted in batches:
        after a crash the last ones, at most 128, are told once more.
        """
        while not self._is_closed:
            event = self._receiving.next(timeout)
            if event is None:
                return
            yield event

    def history(self, contact: str, before: int | None = None, limit: int = 50) -> HistoryPage:
        """A page of all messages with a contact, from the server, newest first.

        Args:
            contact: the other user.
            before: `next` of the page before; None begins with the newest message.
            limit: 1 to 100.
        """
        self._until_ready()
        self._contacts.meet(contact)
        page, reader = self._rest.history(contact, before, limit), Reader(self._me, self._contacts)
        return HistoryPage([reader.read(frame) for frame in page["messages"]], page["next"])

    def kept(self, contact: str, limit: int = 50) -> Messages:
        """The newest messages with a contact that this store has, newest first, without a server.

        Args:
            contact: the other user.
            limit: how many at most.
        """
        reader = Reader(self._me, self._contacts)
        return [reader.read(frame) for frame in self._store.entries.of(contact, limit)]

    def mark_read(self, ids: Sequence[str]) -> None:
        """Say that messages were read; lost if there is no connection."""
        for at in range(0, len(ids), 500):
            self._connection.write({"type": "read", "ids": list(ids[at : at + 500])})

    def set_typing(self, to: str, active: bool = True, conversation_id: str | None = None) -> None:
        """Say that I am writing, or have stopped."""
        frame = {"type": "typing", "to": to, "active": active, "conversation_id": conversation_id}
        self._connection.write(frame)

    # Keys.

    def contacts(self) -> list[str]:
        """Everybody whose key this store has pinned."""
        return self._store.contacts()

    def safety_number(self, contact: str) -> SafetyNumber:
        """What two people compare over another channel; of a new key while one waits.

        Raises:
            NoSuchKey: the contact has none.
        """
        self._until_ready()
        return self._contacts.safety_number(contact)

    def accept_key(self, contact: str, number: SafetyNumber | str | None = None) -> None:
        """Trust the contact's new key: what waits is sealed for it, what was held is opened.

        Args:
            contact: whose key it is.
            number: the safety number that was compared; another key than that is not accepted.

        Raises:
            NoSuchKey: the contact has none.
            KeyNotAccepted: the number is of another key.
        """
        self._contacts.accept(contact, number)
        self._sending.resume(contact)
        self._receiving.reread()

    def make_backup(self) -> str:
        """Leave the key on the server, sealed; the recovery code, to be shown once."""
        self._until_ready()
        return self._me.make_backup()

    def restore(self, code: str) -> None:
        """Take the account's key from its backup.

        Raises:
            CannotRestore: there is no backup, or the code is not the one.
        """
        self._me.restore(code)
        self._key_changed()

    def make_new_key(self) -> None:
        """Give up the account's key: contacts see another one, and the old messages stay sealed."""
        self._me.make_new_key()
        self._key_changed()

    def publish_my_key(self) -> None:
        """Say that the key of this store is the one that counts, not the directory's."""
        self._me.publish()
        self._key_changed()

    def _key_changed(self) -> None:
        with self._store.database.transaction():
            self._store.entries.release_all()
        self._sending.reseal()
        self._receiving.reread()

    # The end.

    def close(self) -> None:
        """Say goodbye; what waits in the outbox is sent the next time. Again: nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._connection.close()
        self._news.close()
        self._receiving.finish()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _until_ready(self) -> None:
        """A new store learns who it is at the first connection."""
        if not self._me.known.wait(READY_SECONDS):
            raise NotReady
