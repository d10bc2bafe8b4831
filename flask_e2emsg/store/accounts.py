"""Accounts: who has a mailbox, where it stands, and the public key directory."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from ..protocol.values import now
from .arrays import array, array_of_texts
from .database import Conflict, Database, asked_again
from .models import accounts, events, key_backups, messages
from .times import aware

REMEMBERED_ACCOUNTS = 100_000
ROWS_AT_ONCE = 500  # that one statement deletes or looks up; then others have their turn
PAUSE_SECONDS = 0.001


class Party(msgspec.Struct, frozen=True, gc=False):
    """A user and the account that stands for it in the tables."""

    account_id: int
    user_id: str


@dataclass(frozen=True, slots=True)
class MailboxState:
    """The head of a mailbox at one moment."""

    owner: Party
    epoch: str  # 16 hex characters
    last_seq: int  # the newest position
    delivered_seq: int  # the newest acknowledged position
    floor_seq: int  # entries up to here may be gone


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A user's entry in the key directory."""

    user_id: str
    public_key: bytes = field(repr=False)  # 32 bytes, X25519
    key_version: int  # 1 for the first key
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a user has not acknowledged yet."""

    in_all: int  # entries of every kind
    from_sender: int  # messages of one sender


class Accounts:
    """The accounts of one database. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, Party] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, user_id: str) -> Party | None:
        """The account of a user, if there is one."""
        with self._lock:
            if party := self._known.get(user_id):
                return party
        return self.look_up({user_id}).get(user_id)

    def known(self, user_id: str) -> Party | None:
        """The account of a user whom this process knows, without asking anybody."""
        return self._known.get(user_id)

    def remembered(self, user_ids: set[str]) -> dict[str, Party]:
        """The accounts of those of the users whom this process knows, without asking anybody."""
        with self._lock:
            return {user_id: self._known[user_id] for user_id in user_ids & self._known.keys()}

    @asked_again
    def look_up(self, user_ids: set[str]) -> dict[str, Party]:
        """The accounts of those of the users that have one, from the database."""
        names = list(user_ids)
        rows = self._ask_about(_IDS_OF, names, array_of_texts(names))
        return {user_id: self.remember(Party(account_id, user_id)) for account_id, user_id in rows}

    @asked_again
    def waiting(self, recipient: Party, sender: Party, enough: int) -> Waiting:
        """What waits for the recipient; of the sender's messages at most `enough` are counted."""
        parameters = {
            "recipient": recipient.account_id,
            "sender": sender.account_id,
            "enough": enough,
        }
        rows = self._database.query(_WAITING, parameters)
        return Waiting(*rows[0]) if rows else Waiting(0, 0)

    def remember(self, party: Party) -> Party:
        """Spare the next find() of this user the database."""
        with self._lock:
            self._known[party.user_id] = party
            if len(self._known) > REMEMBERED_ACCOUNTS:
                self._known.popitem(last=False)
        return party

    def forget(self, user_id: str) -> None:
        """Drop what this process remembers of a user; the next find() asks the database."""
        with self._lock:
            self._known.pop(user_id, None)

    def ensure(self, user_id: str) -> MailboxState:
        """The state of a user's mailbox, which is made on first contact."""
        state = self.state(user_id)
        while state is None:
            try:
                with self._database.write() as connection:
                    insert_account(connection, user_id)
            except Conflict:
                pass  # Another process made it just now.
            state = self.state(user_id)
        return state

    @asked_again
    def state(self, user_id: str) -> MailboxState | None:
        """The state of a user's mailbox as it is now; None without an account."""
        rows = self._database.query(_STATE, {"user_id": user_id})
        if not rows:
            return None
        account_id, *state = rows[0]
        return MailboxState(self.remember(Party(account_id, user_id)), *state)

    def heads(self, account_ids: list[int]) -> dict[int, int]:
        """The newest positions of any number of mailboxes, by account."""
        newest: dict[int, int] = {}
        for start in range(0, len(account_ids), ROWS_AT_ONCE):
            newest.update(self._heads(account_ids[start : start + ROWS_AT_ONCE]))
        return newest

    @asked_again
    def _heads(self, account_ids: list[int]) -> Iterable[tuple[int, int]]:
        return self._ask_about(_HEADS_OF, account_ids, array(account_ids))

    @asked_again
    def public_key(self, user_id: str) -> PublicKey | None:
        """The user's current key, if it has published one."""
        rows = self._database.query(_KEY, {"user_id": user_id})
        if not rows:
            return None
        ((key, version, updated_at),) = rows
        return PublicKey(user_id, bytes(key), version, aware(updated_at))

    def set_public_key(self, user_id: str, key: bytes) -> PublicKey:
        """Publish a key. The same key again changes nothing."""
        with self._database.write() as connection:
            write_public_key(connection, user_id, key)
        published = self.public_key(user_id)
        if published is None:
            raise Conflict
        return published

    def delete(self, user_id: str) -> bool:
        """Delete the account and its log. True if it was there.

        All that the user received goes, and all that the user sent to others.
        """
        self.forget(user_id)
        state = self.state(user_id)
        self.forget(user_id)
        if state is None:
            return False
        me = {"me": state.owner.account_id}
        # Most of it in small steps that let others write, then the rest and the account at once:
        # who is interrupted finds the account still there, and begins again.
        for some in (_DELETE_SOME_RECEIVED, _DELETE_SOME_SENT, _DELETE_SOME_EVENTS):
            while self._write(some, me) == ROWS_AT_ONCE:
                time.sleep(PAUSE_SECONDS)
        if self._database.is_sqlite:
            with self._database.together():
                for rest in (_DELETE_MESSAGES, _DELETE_EVENTS, _DELETE_BACKUP, _DELETE_ACCOUNT):
                    self._write(rest, me)
        else:
            self._write(_DELETE_REST, me)
        self._database.clean_files()
        return True

    def renew_epochs(self) -> int:
        """Give every mailbox another epoch, so that no cursor of before counts; how many there are.

        Raises:
            Unavailable: the database refused.
        """
        if self._database.is_sqlite:
            tag = sa.func.lower(sa.func.hex(sa.func.randomblob(8)))
        else:
            tag = sa.func.left(
                sa.func.replace(sa.cast(sa.func.gen_random_uuid(), sa.Text), "-", ""), 16
            )
        return self._write(sa.update(accounts).values(epoch=tag), {})

    def _ask_about(
        self, question: _About, some: Sequence[int | str], as_array: str
    ) -> Sequence[Any]:
        if not self._database.is_sqlite:
            return self._database.query(question.array, {"some": as_array})
        with self._database.read() as connection:
            return connection.execute(question.list, {"some": some}).all()

    def _write(self, statement: sa.Executable, parameters: dict[str, int]) -> int:
        with self._database.write() as connection:
            return connection.execute(statement, parameters).rowcount


def insert_account(connection: Connection, user_id: str) -> None:
    """Make an empty mailbox for a user who has none."""
    connection.execute(sa.insert(accounts), new_account(user_id))


def new_account(user_id: str) -> dict[str, object]:
    """The columns of an account that has received nothing yet."""
    return {
        "user_id": user_id,
        "key_version": 0,
        "epoch": secrets.token_hex(8),
        "last_seq": 0,
        "delivered_seq": 0,
        "floor_seq": 0,
        "created_at": now(),
    }


def write_public_key(connection: Connection, user_id: str, key: bytes | None) -> None:
    """Set or remove a user's key; a new account holds it if there is none. No change, no write."""
    if key is None:
        connection.execute(_REMOVE_KEY, {"user": user_id, "at": now()})
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = insert(accounts).values(
        new_account(user_id)
        | {"public_key": _Unshown(key), "key_version": 1, "key_updated_at": now()}
    )
    # One statement, since the account may be in the making elsewhere.
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[accounts.c.user_id],
            set_={
                "public_key": new.excluded.public_key,
                "key_version": accounts.c.key_version + 1,
                "key_updated_at": new.excluded.key_updated_at,
            },
            where=accounts.c.public_key.is_distinct_from(new.excluded.public_key),
        )
    )


class _About:
    """A question about some accounts, given as a list or, on PostgreSQL, as an array's text.

    A list of parameters costs a worker more than the database the answer.
    """

    def __init__(
        self, question: sa.Select[Any], column: sa.ColumnElement[Any], kind: type[Any]
    ) -> None:
        some = sa.cast(sa.bindparam("some", type_=sa.Text()), postgresql.ARRAY(kind))
        self.array = question.where(column == sa.func.any(some))
        self.list = question.where(column.in_(sa.bindparam("some", expanding=True)))


class _Unshown(bytes):
    """Bytes that a log of the host's statements does not show."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


_user = accounts.c.user_id == sa.bindparam("user_id")
_IDS_OF = _About(sa.select(accounts.c.id, accounts.c.user_id), accounts.c.user_id, sa.Text)
_STATE = sa.select(
    accounts.c.id,
    accounts.c.epoch,
    accounts.c.last_seq,
    accounts.c.delivered_seq,
    accounts.c.floor_seq,
).where(_user)
_recipient = sa.bindparam("recipient", type_=sa.Integer())
_acknowledged = sa.select(accounts.c.delivered_seq).where(accounts.c.id == _recipient)
_undelivered = (
    sa.select(messages.c.recipient_seq)
    .where(
        messages.c.recipient_id == _recipient,
        messages.c.sender_id == sa.bindparam("sender", type_=sa.Integer()),
        messages.c.recipient_seq > _acknowledged.scalar_subquery(),
    )
    .limit(sa.bindparam("enough", type_=sa.Integer()))
    .subquery()
)
_WAITING = sa.select(
    (accounts.c.last_seq - accounts.c.delivered_seq).label("in_all"),
    sa.select(sa.func.count()).select_from(_undelivered).scalar_subquery().label("from_sender"),
).where(accounts.c.id == _recipient)
_HEADS_OF = _About(sa.select(accounts.c.id, accounts.c.last_seq), accounts.c.id, sa.Integer)
_KEY = sa.select(accounts.c.public_key, accounts.c.key_version, accounts.c.key_updated_at).where(
    _user, accounts.c.public_key.is_not(None)
)
_REMOVE_KEY = (
    sa.update(accounts)
    .where(accounts.c.user_id == sa.bindparam("user"), accounts.c.public_key.is_not(None))
    .values(
        public_key=None,
        key_version=accounts.c.key_version + 1,
        key_updated_at=sa.bindparam("at", type_=accounts.c.key_updated_at.type),
    )
)
_me: sa.BindParameter[int] = sa.bindparam("me")
_DELETE_ACCOUNT = sa.delete(accounts).where(accounts.c.id == _me)
_DELETE_EVENTS = sa.delete(events).where(events.c.account_id == _me)
_DELETE_BACKUP = sa.delete(key_backups).where(key_backups.c.account_id == _me)
_DELETE_MESSAGES = sa.delete(messages).where(
    (messages.c.recipient_id == _me) | (messages.c.sender_id == _me)
)
_DELETE_SOME_RECEIVED, _DELETE_SOME_SENT = (
    sa.delete(messages).where(
        messages.c.id.in_(sa.select(messages.c.id).where(side == _me).limit(ROWS_AT_ONCE))
    )
    for side in (messages.c.recipient_id, messages.c.sender_id)
)
_DELETE_SOME_EVENTS = sa.delete(events).where(
    events.c.account_id == _me,
    events.c.seq.in_(sa.select(events.c.seq).where(events.c.account_id == _me).limit(ROWS_AT_ONCE)),
)
# PostgreSQL commits each statement by itself, so this is one.
_DELETE_REST = _DELETE_ACCOUNT.add_cte(
    _DELETE_MESSAGES.cte("m"), _DELETE_EVENTS.cte("e"), _DELETE_BACKUP.cte("b")
)
