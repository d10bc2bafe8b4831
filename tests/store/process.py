"""The store as one process of an app has it, with words for what the tests do to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy import Engine

from flask_e2emsg.errors import Refusal
from flask_e2emsg.protocol.entries import Entry
from flask_e2emsg.protocol.frames import Outgoing
from flask_e2emsg.protocol.values import encode_binary
from flask_e2emsg.store.accounts import Accounts, MailboxState, Party
from flask_e2emsg.store.database import Database
from flask_e2emsg.store.history import History
from flask_e2emsg.store.mailbox import Ack, Append, Appended, Committed, Mailboxes, Read
from flask_e2emsg.store.postgresql import PostgreSQLMailboxes
from flask_e2emsg.store.sqlite import SQLiteMailboxes


class Process:
    """A database, and everything that one process keeps for it."""

    def __init__(self, engine: Engine) -> None:
        self.database = Database(engine)
        self.accounts = Accounts(self.database)
        self.history = History(self.database)
        kind = SQLiteMailboxes if self.database.is_sqlite else PostgreSQLMailboxes
        self.mailboxes: Mailboxes = kind(self.database)

    def user(self, user_id: str) -> Party:
        """The account of a user, made if need be."""
        return self.accounts.ensure(user_id).owner

    def state(self, owner: Party) -> MailboxState:
        state = self.accounts.state(owner.user_id)
        assert state is not None
        return state

    def append(self, *appends: Append) -> list[Appended | int | Refusal]:
        """The outcomes of several appends in one batch."""
        return list(self.mailboxes.append(appends).outcomes)

    def send(
        self,
        sender: Party,
        recipient: Party,
        text: str = "hello",
        *,
        message_id: UUID | None = None,
        conversation_id: str | None = None,
        expires_in: int | None = None,
    ) -> UUID:
        """Store one message, as the frame `send` does; its id."""
        message = outgoing(recipient, text, message_id, conversation_id, expires_in)
        [outcome] = self.append(Append(sender, [recipient], [message], keeps_sent=True))
        assert isinstance(outcome, Appended), outcome
        return message.id

    def ack(self, owner: Party, seq: int | None = None) -> Committed:
        """Acknowledge up to a position, or everything."""
        reached = self.state(owner).last_seq if seq is None else seq
        return self.mailboxes.ack([Ack(owner, reached)])

    def read(self, owner: Party, *ids: UUID) -> Committed:
        return self.mailboxes.read([Read(owner, ids)])

    def entries(self, owner: Party, after: int = 0, limit: int = 10_000) -> list[Entry]:
        return self.mailboxes.entries_after(owner, after, limit).entries

    def positions(self, owner: Party) -> list[int]:
        return [entry.seq for entry in self.entries(owner)]

    def execute(self, statement: sa.Update | sa.Delete) -> None:
        """Change rows behind the store's back, to make time pass or things go wrong."""
        with self.database.write() as connection:
            connection.execute(statement)

    def count(self, table: sa.Table) -> int:
        with self.database.read() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(table))
        assert count is not None
        return int(count)


def outgoing(
    recipient: Party,
    text: str = "hello",
    message_id: UUID | None = None,
    conversation_id: str | None = None,
    expires_in: int | None = None,
) -> Outgoing:
    """A message as `decode` makes it from a frame."""
    content = text.encode()
    return Outgoing(
        message_id or uuid4(),
        recipient.user_id,
        content,
        encode_binary(content),
        conversation_id,
        expires_in,
    )


def sending(sender: Party, recipient: Party, text: str = "hello") -> Append:
    """The append of one new message, with the sender's own entry."""
    return Append(sender, [recipient], [outgoing(recipient, text)], keeps_sent=True)


def sending_many(
    sender: Party, to: Sequence[Party], ids: Mapping[int, UUID] | None = None, text: str = "hello"
) -> Append:
    """The append of `send_many`: a message for each; `ids` gives some of them a chosen id."""
    given = ids or {}
    messages = [outgoing(party, text, given.get(n)) for n, party in enumerate(to)]
    return Append(sender, to, messages, keeps_sent=False)
