"""Reading back: the messages of a conversation by position, and the list of conversations.

Every query is scoped to one mailbox. A message's `position` is its place in that mailbox; a message
without one (sent by `send_many` without an own copy) is not part of the sender's history. Pages are
cut by position, never by offset, so nothing is skipped or repeated while messages arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.sql import Select, Subquery

from ..protocol.values import now
from .accounts import Party
from .database import Database, asked_again
from .models import accounts, messages
from .times import aware, aware_or_none


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as its sender or recipient finds it in the history."""

    position: int
    id: UUID
    sender: str
    recipient: str
    conversation_id: str | None
    content: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Span:
    """Which page is wanted: at most `limit` messages before or after a position."""

    limit: int
    before: int | None = None  # newest first
    after: int | None = None  # oldest first


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Messages in the order asked for; `next` continues, None at the end."""

    messages: list[StoredMessage]
    next: int | None
    has_more: bool


@dataclass(frozen=True, slots=True)
class Conversation:
    """The newest message of a conversation, and how many in it are unread."""

    contact_id: str
    conversation_id: str | None
    last: StoredMessage
    unread: int


class History:
    """The messages of one database, as their owners may read them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def with_contact(self, owner: Party, contact: Party, span: Span) -> HistoryPage:
        """Both directions between two users."""
        to, sent = _received(owner.account_id), _sent(owner.account_id)
        return self._page(
            span,
            to.where(messages.c.sender_id == contact.account_id),
            sent.where(messages.c.recipient_id == contact.account_id),
        )

    def in_conversation(self, owner: Party, conversation_id: str, span: Span) -> HistoryPage:
        """What the mailbox holds of a conversation, own messages included."""
        same = messages.c.conversation_id == conversation_id
        return self._page(
            span, _received(owner.account_id).where(same), _sent(owner.account_id).where(same)
        )

    def unread_from(self, owner: Party, contact: Party, up_to: int, limit: int) -> list[UUID]:
        """Ids of unread messages from a contact, oldest first."""
        statement = (
            sa.select(messages.c.id)
            .where(
                messages.c.recipient_id == owner.account_id,
                messages.c.sender_id == contact.account_id,
                messages.c.recipient_seq <= up_to,
                messages.c.read_at.is_(None),
                _alive(),
            )
            .order_by(messages.c.recipient_seq)
            .limit(limit)
        )
        with self._database.read() as connection:
            return list(connection.scalars(statement))

    @asked_again
    def has(self, message_id: UUID) -> bool:
        """Whether a message with this id is stored, whosever it is."""
        with self._database.read() as connection:
            statement = sa.select(messages.c.id).where(messages.c.id == message_id)
            return connection.scalar(statement) is not None

    def conversations(self, owner: Party, before: int | None, limit: int) -> list[Conversation]:
        """Conversations by their newest message, newest first.

        A conversation is what shares a `conversation_id`, and without one, a contact.
        """
        me = owner.account_id
        mine = sa.union_all(_received(me), _sent(me)).subquery("mine")
        other = _other(mine, me)
        contact = sa.case((mine.c.conversation_id.is_(None), other), else_=None)
        # An own copy of what I wrote to others is not news to me.
        from_others = (mine.c.recipient_id == me) & (mine.c.sender_id != me)
        unread = sa.case((from_others & mine.c.read_at.is_(None), 1), else_=0)
        newest = (
            sa.select(
                sa.func.max(mine.c.position).label("position"), sa.func.sum(unread).label("unread")
            )
            .group_by(contact, mine.c.conversation_id)
            .subquery("newest")
        )
        statement = _with_names(
            sa.select(mine, newest.c.unread)
            .join(newest, newest.c.position == mine.c.position)
            .order_by(mine.c.position.desc())
            .limit(limit),
        )
        if before is not None:
            statement = statement.where(newest.c.position < before)
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return [_conversation(row, owner) for row in rows]

    def _page(self, span: Span, received: Select[Any], sent: Select[Any]) -> HistoryPage:
        ascending = span.after is not None
        branches = [
            _cut(received, messages.c.recipient_seq, span),
            _cut(sent, messages.c.sender_seq, span),
        ]
        both = sa.union_all(*(sa.select(branch.subquery()) for branch in branches)).subquery("mine")
        order = both.c.position if ascending else both.c.position.desc()
        statement = _with_names(sa.select(both).order_by(order).limit(span.limit + 1))
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        found = [_stored_message(row) for row in rows[: span.limit]]
        has_more = len(rows) > span.limit
        return HistoryPage(found, found[-1].position if has_more else None, has_more)


def _received(account_id: int) -> Select[Any]:
    return sa.select(*_columns(messages.c.recipient_seq)).where(
        messages.c.recipient_id == account_id, _alive()
    )


def _sent(account_id: int) -> Select[Any]:
    # A message to oneself stands twice in the log, and once in the history.
    return sa.select(*_columns(messages.c.sender_seq)).where(
        messages.c.sender_id == account_id,
        messages.c.sender_seq.is_not(None),
        messages.c.recipient_id != account_id,
        _alive(),
    )


def _columns(position: sa.Column[Any]) -> list[Any]:
    return [
        position.label("position"),
        messages.c.id,
        messages.c.sender_id,
        messages.c.recipient_id,
        messages.c.conversation_id,
        messages.c.encrypted_content,
        messages.c.created_at,
        messages.c.expires_at,
        messages.c.delivered_at,
        messages.c.read_at,
    ]


def _alive() -> sa.ColumnElement[bool]:
    return messages.c.expires_at.is_(None) | (
        messages.c.expires_at > sa.bindparam(None, now(), type_=messages.c.expires_at.type)
    )


def _cut(statement: Select[Any], position: sa.Column[Any], span: Span) -> Select[Any]:
    if span.after is not None:
        statement = statement.where(position > span.after).order_by(position)
    else:
        statement = statement.order_by(position.desc())
        if span.before is not None:
            statement = statement.where(position < span.before)
    return statement.limit(span.limit + 1)


def _other(mine: Subquery, me: int) -> Any:
    return sa.case((mine.c.sender_id == me, mine.c.recipient_id), else_=mine.c.sender_id)


def _with_names(statement: Select[Any]) -> Select[Any]:
    mine = statement.selected_columns
    sender, recipient = accounts.alias("sender"), accounts.alias("recipient")
    return (
        statement.add_columns(
            sender.c.user_id.label("sender"), recipient.c.user_id.label("recipient")
        )
        .outerjoin(sender, sender.c.id == mine.sender_id)
        .outerjoin(recipient, recipient.c.id == mine.recipient_id)
    )


def _stored_message(row: Any) -> StoredMessage:
    return StoredMessage(
        row.position,
        row.id,
        row.sender,
        row.recipient,
        row.conversation_id,
        bytes(row.encrypted_content),
        aware(row.created_at),
        aware_or_none(row.expires_at),
        aware_or_none(row.delivered_at),
        aware_or_none(row.read_at),
    )


def _conversation(row: Any, owner: Party) -> Conversation:
    last = _stored_message(row)
    contact_id = last.recipient if last.sender == owner.user_id else last.sender
    return Conversation(contact_id, last.conversation_id, last, int(row.unread))
