"""E2EMessaging: the extension object, and the only place that joins the layers.

    protocol  <  store  <  delivery  <  transport  <  here

What belongs to an app lives in `app.extensions["e2emsg"]`; what belongs to a process (threads,
connections, the committer) is made when that process first needs it, so forking servers are safe.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

import limits
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from werkzeug.routing import BaseConverter

from . import redaction
from .cli import e2emsg_cli
from .config import Settings
from .delivery.background import Notifier, Ticker
from .delivery.committer import Committer
from .delivery.hub import Hub
from .delivery.pump import Pump
from .delivery.router import Router
from .errors import ConfigurationError
from .protocol import frames
from .protocol.entries import Entry, MessageEntry, ReceiptEntry
from .signals import message_delivered, message_stored, user_connected, user_disconnected
from .store import models
from .store.accounts import Accounts
from .store.database import SUPPORTED, Database
from .store.history import History
from .store.mailbox import Mailboxes
from .store.postgresql import PostgreSQLMailboxes
from .store.purge import purge
from .store.sqlite import SQLiteMailboxes
from .store.tickets import Tickets
from .store.user import known_to_host
from .transport.blueprint import make_blueprint

PURGE_SECONDS = 300.0

AuthorizeSend = Callable[[str, str, str | None], bool]
UserIsActive = Callable[[str], bool]
OnUndelivered = Callable[[str], object]
Callback = TypeVar("Callback", bound=Callable[..., object])


class Hook(Generic[Callback]):
    """A callback of the host, set as a decorator or by assignment; None where there is none."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(
        self, instance: E2EMessaging, owner: type | None = None
    ) -> Callable[[Callback], Callback]:
        def register(callback: Callback) -> Callback:
            self.__set__(instance, callback)
            return callback

        return register

    def __set__(self, instance: E2EMessaging, callback: Callback | None) -> None:
        setattr(instance, self._name, callback)


class E2EMessaging:
    """End-to-end encrypted messaging for one or more Flask apps.

        e2emsg = E2EMessaging()
        e2emsg.init_app(app, db)

    Three callbacks, each optional, are set as decorators or by assignment:

    * `@e2emsg.authorize_send`: `(sender, recipient, conversation_id) -> bool`, by default always
      true. Runs before a message is stored or a typing notice forwarded, in an app context.
    * `@e2emsg.user_is_active`: `(user_id) -> bool`, by default always true. Runs whenever a token
      is accepted, in the request's context; False makes the token as good as invalid.
    * `@e2emsg.on_undelivered`: `(user_id) -> None`, by default nothing. Runs after a message was
      stored for somebody who has no live connection in this process, in an app context, on a
      thread of its own: the place for a push notification.
    """

    authorize_send = Hook[AuthorizeSend]()
    user_is_active = Hook[UserIsActive]()
    on_undelivered = Hook[OnUndelivered]()

    _authorize_send: AuthorizeSend | None = None
    _user_is_active: UserIsActive | None = None
    _on_undelivered: OnUndelivered | None = None

    def __init__(self, app: Flask | None = None, db: SQLAlchemy | None = None) -> None:
        if app is not None:
            self.init_app(app, db)

    def init_app(self, app: Flask, db: SQLAlchemy | None = None) -> None:
        """Add messaging to an app that has Flask-SQLAlchemy and Flask-JWT-Extended.

        Reads the `E2EMSG_*` keys of docs/configuration.md, once. Adds the tables to
        `db.metadata`, the routes under `E2EMSG_URL_PREFIX`, and the commands `flask e2emsg …`.

        Raises:
            ConfigurationError: a prerequisite is missing or a key is wrong; the text says the cure.
        """
        if "e2emsg" in app.extensions:
            raise ConfigurationError("E2EMessaging is already set up for this app.")
        settings = Settings.from_mapping(app.config)
        database = _checked_database(app, db)
        _check_jwt(app)
        models.copy_tables(database.metadata)
        state = AppState(app, database, settings, self)
        app.extensions["e2emsg"] = state
        app.url_map.converters["e2emsg_id"] = _AnyCharacters
        app.register_blueprint(make_blueprint(state))
        app.cli.add_command(e2emsg_cli)
        redaction.install()

    @property
    def connections(self) -> Connections:
        """The live connections of this process."""
        return Connections(_state().process.hub)

    def send_event(self, user_id: str, name: str, data: object = None) -> int:
        """Send an `event` frame to the user's live connections in this process.

        Nothing is stored. Returns how many connections got it.
        """
        frame = frames.encode("event", name=name, data=data)
        pumps = _state().process.hub.of(user_id)
        for pump in pumps:
            pump.tell(frame)
        return len(pumps)

    def disconnect(self, user_id: str) -> int:
        """Close the user's live connections in this process with 4401. Returns how many."""
        pumps = _state().process.hub.of(user_id)
        for pump in pumps:
            pump.close(4401)
        return len(pumps)

    def forget_user(self, user_id: str) -> bool:
        """Delete a user's account, key and log, and what the user sent to others.

        Live connections are closed with 4403. True if there was an account.
        """
        process = _state().process
        existed = process.accounts.delete(user_id)
        for pump in process.hub.of(user_id):
            pump.close(4403)
        return existed

    def _rules(self) -> tuple[AuthorizeSend | None, UserIsActive | None, OnUndelivered | None]:
        return self._authorize_send, self._user_is_active, self._on_undelivered


@dataclass(frozen=True, slots=True)
class Connections:
    """A view of the live connections of this process. Safe to use from any thread."""

    _hub: Hub

    def is_online(self, user_id: str) -> bool:
        """Whether the user has a live connection here."""
        return bool(self._hub.of(user_id))

    def count(self, user_id: str | None = None) -> int:
        """How many live connections the user, or everybody, has here."""
        return len(self._hub.all() if user_id is None else self._hub.of(user_id))

    def users(self) -> list[str]:
        """The users with a live connection here."""
        return self._hub.users()


@dataclass(slots=True)
class AppState:
    """What `app.extensions["e2emsg"]` holds: settings, and the process's machinery on demand."""

    app: Flask
    db: SQLAlchemy
    settings: Settings
    extension: E2EMessaging
    _process: Process | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def process(self) -> Process:
        """The machinery of this process; after a fork, a new one."""
        process = self._process
        if process is not None and process.pid == os.getpid():
            return process
        with self._lock:
            if self._process is None or self._process.pid != os.getpid():
                self._process = Process(self)
            return self._process

    @property
    def database(self) -> Database:
        """The store's way to the database."""
        return self.process.database

    def user_is_active(self, user_id: str) -> bool:
        """The host's answer; True where it has none."""
        _, active, _ = self.extension._rules()
        return active is None or bool(active(user_id))

    def drain(self) -> None:
        """Take no new connection in this process, and close the live ones with 1012."""
        self.process.hub.drain()

    def let_go(self) -> None:
        """Give back what the request holds of the host's connection pool."""
        self.db.session.remove()


class Process:
    """The layers of one app in one process, joined."""

    def __init__(self, state: AppState) -> None:
        self.pid = os.getpid()
        self._state = state
        settings = state.settings
        with state.app.app_context():
            self.database = Database(state.db.engine)
        self.accounts = Accounts(self.database)
        kind = SQLiteMailboxes if self.database.is_sqlite else PostgreSQLMailboxes
        self.mailboxes: Mailboxes = kind(self.database, _ids_in_one_receipt(settings))
        self.history = History(self.database)
        self.tickets = Tickets(self.database)
        self.hub = Hub(settings.max_connections_per_user)
        self.notifier = Notifier("e2emsg-notifier")
        sends = self._committer("e2emsg-sends")
        # A mark must not make a message wait; where there is one writer they share its commits.
        marks = sends if self.database.is_sqlite else self._committer("e2emsg-marks")
        self.router = Router(
            _HostRules(state), self.accounts, self.hub, sends, marks, settings.max_frame_bytes
        )
        self.sweeper = Ticker("e2emsg-sweep", settings.sweep_seconds, self._sweep)
        self.purger = Ticker("e2emsg-purge", PURGE_SECONDS, self._purge)

    def new_pump(self, user_id: str) -> Pump:
        """A connection's pump, registered before its mailbox is first read.

        Raises:
            TooManyConnections: the user is at the cap.
        """
        owner = self.accounts.find(user_id) or self.accounts.ensure(user_id).owner
        pump = Pump(owner, self.mailboxes.entries_after, self.router.ack)
        self.hub.add(pump)
        self.keep_up()
        return pump

    def keep_up(self) -> None:
        """Make sure that the sweep and the purge run."""
        self.sweeper.ensure_running()
        self.purger.ensure_running()

    def connected(self, pump: Pump) -> None:
        """Tell the host that a connection is live."""
        self._signal(user_connected, user_id=pump.owner.user_id, connection_id=pump.id)

    def removed(self, pump: Pump) -> None:
        """Forget a connection that has ended, and tell the host."""
        if self.hub.remove(pump):
            self._signal(user_disconnected, user_id=pump.owner.user_id, connection_id=pump.id)

    def _committer(self, name: str) -> Committer:
        boxes = self.mailboxes
        return Committer(
            name, boxes.append, boxes.ack, boxes.read, self.database.together, self._publish
        )

    def _publish(self, entries: Mapping[str, list[Entry]]) -> None:
        self.hub.publish(entries)
        _, _, on_undelivered = self._state.extension._rules()
        if not (on_undelivered or message_stored.receivers or message_delivered.receivers):
            return
        for user_id, new in entries.items():
            offline = on_undelivered is not None and not self.hub.of(user_id)
            for entry in _once(new):
                self._tell_host(user_id, entry)
            if offline and any(_is_received(entry, user_id) for entry in new):
                self.notifier.tell(self._in_context(on_undelivered, user_id))

    def _tell_host(self, user_id: str, entry: Entry) -> None:
        if isinstance(entry, ReceiptEntry):
            if entry.kind == "delivered":
                self._signal(
                    message_delivered,
                    message_ids=[str(message_id) for message_id in entry.ids],
                    sender_id=user_id,
                    recipient_id=entry.by,
                )
        elif _is_received(entry, user_id):
            message = entry.message
            self._signal(
                message_stored,
                message_id=str(message.id),
                sender_id=message.sender,
                recipient_id=message.recipient,
                conversation_id=message.conversation_id,
            )

    def _signal(self, signal: Any, **news: Any) -> None:
        if signal.receivers:
            self.notifier.tell(self._in_context(lambda: signal.send(self._state.app, **news)))

    def _in_context(self, callback: Any, *arguments: Any) -> Callable[[], object]:
        def run() -> None:
            with self._state.app.app_context():
                callback(*arguments)

        return run

    def _sweep(self) -> None:
        self.hub.sweep(self.accounts.heads)

    def _purge(self) -> None:
        purge(self.database, self._state.settings.retention_days)


class _HostRules:
    """The host's callbacks and limits, as the router asks for them."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        rate = state.settings.rate_limit
        self._limits = [] if rate is None else limits.parse_many(rate)
        self._limiter = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())

    def may_send(self, sender: str, recipient: str, conversation_id: str | None) -> bool:
        authorize, _, _ = self._state.extension._rules()
        if authorize is None:
            return True
        with self._state.app.app_context():
            return bool(authorize(sender, recipient, conversation_id))

    def may_send_now(self, sender: str, count: int) -> float | None:
        for limit in self._limits:
            if not self._limiter.test(limit, sender, cost=count):
                reset_at = self._limiter.get_window_stats(limit, sender).reset_time
                return round(max(reset_at - time.time(), 0.1), 1)
        for limit in self._limits:
            self._limiter.hit(limit, sender, cost=count)
        return None

    def knows_user(self, user_id: str) -> bool:
        with self._state.process.database.read() as connection:
            return known_to_host(self._state.db.metadata, connection, user_id)


class _AnyCharacters(BaseConverter):
    """A path part that may hold anything, slashes included."""

    regex = r"[\s\S]+"
    part_isolating = False


def _ids_in_one_receipt(settings: Settings) -> int:
    """As many as fit into a frame beside the longest user id."""
    return max(1, min(500, (settings.max_frame_bytes - 1700) // 39))


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """Without the second entry of a message to oneself."""
    seen: set[UUID] = set()
    kept = []
    for entry in entries:
        if isinstance(entry, MessageEntry):
            if entry.message.id in seen:
                continue
            seen.add(entry.message.id)
        kept.append(entry)
    return kept


def _is_received(entry: Entry, user_id: str) -> bool:
    return isinstance(entry, MessageEntry) and entry.message.recipient == user_id


def _state() -> AppState:
    state = current_app.extensions.get("e2emsg")
    if not isinstance(state, AppState):
        raise ConfigurationError("Call `e2emsg.init_app(app, db)` first.")
    return state


def _checked_database(app: Flask, db: SQLAlchemy | None) -> SQLAlchemy:
    registered: SQLAlchemy | None = app.extensions.get("sqlalchemy")
    db = db or registered
    if db is None:
        raise ConfigurationError(
            "E2EMessaging needs Flask-SQLAlchemy: call `e2emsg.init_app(app, db)` with your "
            "`db = SQLAlchemy()`."
        )
    if registered is not db:
        raise ConfigurationError("Call `db.init_app(app)` before `e2emsg.init_app(app, db)`.")
    with app.app_context():
        dialect = db.engine.dialect.name
    if dialect not in SUPPORTED:
        raise ConfigurationError(
            f"E2EMessaging keeps its mailboxes in PostgreSQL or SQLite, not in {dialect}."
        )
    return db


def _check_jwt(app: Flask) -> None:
    if "flask-jwt-extended" not in app.extensions:
        raise ConfigurationError(
            "E2EMessaging needs Flask-JWT-Extended: call `JWTManager(app)`, or "
            "`jwt.init_app(app)`, before `e2emsg.init_app(app, db)`."
        )
    loader = getattr(app.extensions["flask-jwt-extended"], "_decode_key_callback", None)
    if loader is not None and not loader.__module__.startswith("flask_jwt_extended"):
        return  # The host finds its keys in its own way.
    algorithm = str(app.config.get("JWT_ALGORITHM", "HS256"))
    if algorithm.startswith("HS"):
        if not (app.config.get("JWT_SECRET_KEY") or app.config.get("SECRET_KEY")):
            raise ConfigurationError("Set JWT_SECRET_KEY to a long random secret.")
    elif not app.config.get("JWT_PUBLIC_KEY"):
        raise ConfigurationError(f"Set JWT_PUBLIC_KEY: tokens are signed with {algorithm}.")
