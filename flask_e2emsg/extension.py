"""E2EMessaging: the extension object, and what belongs to an app.

An app's settings and callbacks live in `app.extensions["e2emsg"]`; what belongs to a process
(threads, connections, committers) is in process.py, where the layers are joined.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flask import Flask, current_app, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.exc import NoResultFound
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from . import channels, redaction
from .cli import e2emsg_cli
from .config import Settings
from .delivery.hub import Hub
from .errors import ConfigurationError, Unauthorized
from .process import Process
from .protocol import frames
from .store import models
from .store.database import SUPPORTED, Database
from .store.leases import Leases
from .transport import auth
from .transport.blueprint import BLUEPRINT, make_blueprint

AuthorizeSend = Callable[[str, str, str | None], bool]
UserIsActive = Callable[[str], bool]
OnUndelivered = Callable[[str], object]
Callback = TypeVar("Callback", bound=Callable[..., object])

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


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
      is accepted, and again and again while a connection is open, in a request context; False
      makes the token as good as invalid.
    * `@e2emsg.on_undelivered`: `(user_id) -> None`, by default nothing. Runs after a message was
      stored for somebody who has no live connection, in an app context, on a thread of its own:
      the place for a push notification.
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
        with app.app_context():
            channels.check(app, settings, database.engine.dialect.name)
        models.copy_tables(database.metadata)
        state = AppState(app, database, settings, self)
        app.extensions["e2emsg"] = state
        app.url_map.converters["e2emsg_id"] = _AnyCharacters
        app.register_blueprint(make_blueprint(state))
        app.teardown_request(state.notice_request)
        app.cli.add_command(e2emsg_cli)
        redaction.install(app.name)

    @property
    def connections(self) -> Connections:
        """The live connections of all workers."""
        process = _state().process
        return Connections(process.hub, process.leases)

    def send_event(self, user_id: str, name: str, data: object = None) -> int:
        """Send an `event` frame to the user's live connections, on all workers.

        Nothing is stored, and who is not connected never gets it. Returns how many connections
        there are.
        """
        return _state().process.tell(user_id, frames.encode("event", name=name, data=data))

    def disconnect(self, user_id: str) -> int:
        """Close the user's live connections with 4401. Returns how many there are.

        Those of this process hear of it at once, those of other workers through the bus or, where
        there is none, within `E2EMSG_SWEEP_SECONDS`.
        """
        return _state().process.end_all_of(user_id, 4401)

    def forget_user(self, user_id: str) -> bool:
        """Delete a user's account, key and log, and what the user sent to others.

        Live connections are closed with 4403. True if there was an account.
        """
        process = _state().process
        process.end_all_of(user_id, 4403)
        return process.accounts.delete(user_id)

    def _rules(self) -> tuple[AuthorizeSend | None, UserIsActive | None, OnUndelivered | None]:
        return self._authorize_send, self._user_is_active, self._on_undelivered


@dataclass(frozen=True, slots=True)
class Connections:
    """A view of the live connections. Safe to use from any thread.

    Those of this process are known exactly. Those of other workers are read from the database,
    where a worker that was killed is still counted until its lease ends, within 15 seconds.
    """

    _hub: Hub
    _leases: Leases

    def is_online(self, user_id: str) -> bool:
        """Whether the user has a live connection, on any worker."""
        return bool(self._hub.of(user_id)) or self._leases.held_elsewhere(user_id) > 0

    def count(self, user_id: str | None = None, *, here: bool = False) -> int:
        """How many live connections the user, or everybody, has; `here`: in this process only."""
        count = len(self._hub.all() if user_id is None else self._hub.of(user_id))
        if here:
            return count
        if user_id is None:
            return count + sum(self._leases.all_elsewhere().values())
        return count + self._leases.held_elsewhere(user_id)

    def users(self, *, here: bool = False) -> list[str]:
        """The users with a live connection; `here`: in this process."""
        users = self._hub.users()
        return users if here else sorted({*users, *self._leases.all_elsewhere()})


@dataclass(slots=True)
class AppState:
    """What `app.extensions["e2emsg"]` holds: settings, and the process's machinery on demand."""

    app: Flask
    db: SQLAlchemy
    settings: Settings
    extension: E2EMessaging
    server_connections: int | None = None  # what the server can serve at once; None: nobody said
    server_requests: int | None = None  # what it can answer at once, sockets left aside
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

    @contextmanager
    def request_context(self) -> Iterator[None]:
        """A request on the socket's route, apart from any that is under way.

        What the host's callbacks take in it, they give back at its end. A request context alone
        would share the app context of the request that it stands in.
        """
        path = f"{self.settings.url_prefix}/ws"
        with self.app.app_context(), self.app.test_request_context(path):
            yield

    def still_accepts(self, identity: auth.Identity) -> bool:
        """Whether the host would let in today whom it has let in before.

        To be asked in a request_context().

        Raises:
            Exception: the host has no answer, whatever its reason.
        """
        try:
            auth.confirm(identity)
            return self.user_is_active(identity.user_id)
        except (Unauthorized, NoResultFound):
            return False
        except HTTPException as error:
            if error.code is None or error.code >= 500:
                raise
            return False

    def has_questions(self) -> bool:
        """Whether the host has a way to turn away whom it has let in."""
        _, active, _ = self.extension._rules()
        return active is not None or auth.host_has_questions(self.app)

    def notice_request(self, _error: BaseException | None) -> None:
        """A request of the host's may have logged out, locked out or revoked somebody."""
        process = self._process
        is_ours_or_nobodys = request.blueprint == BLUEPRINT or request.url_rule is None
        if process is None or request.method in SAFE_METHODS or is_ours_or_nobodys:
            return
        user_id = auth.user_of_request()
        process.doubt(user_id)

    def prepare(self, server_connections: int, server_requests: int) -> None:
        """Set up this process, whose server can serve and answer so many connections at once."""
        self.server_connections = server_connections
        self.server_requests = server_requests
        self.process.durability.look_in_background()

    def drain(self) -> None:
        """Take no new connection in this process, close the live ones with 1012, end long polls."""
        self.process.drain()

    def has_sockets(self) -> bool:
        """Whether a connection is live in this process, if only to say goodbye."""
        return self._process is not None and not self._process.hub.is_empty

    def let_go(self) -> None:
        """Give back what the request holds of the host's connection pool."""
        self.db.session.remove()


class _AnyCharacters(BaseConverter):
    """A path part that may hold anything, slashes included."""

    regex = r"[\s\S]+"
    part_isolating = False


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
