"""What is wrong with an app, its database and its server, as far as can be seen from here.

Every finding says what to do. Nothing is changed, and no secret is printed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from flask import Flask
from flask_jwt_extended.config import config as jwt_config
from sqlalchemy.engine import Connection

from . import channels
from .durability import weaknesses
from .errors import ConfigurationError, E2EMsgError
from .server_checks import Finding, check_gunicorn, per_process
from .store.database import ConnectionLost
from .store.models import Base

if TYPE_CHECKING:
    from .extension import AppState

BUS_SECONDS = 2.0


def examine(state: AppState, gunicorn: Any = None) -> Iterator[Finding]:
    """All findings for an app; with gunicorn's configuration, for its server as well.

    Needs an app context.
    """
    yield from check_database(state)
    yield from check_tokens(state.app)
    yield from check_settings(state)
    yield from check_bus(state)
    if gunicorn is not None:
        yield from check_gunicorn(gunicorn, state.settings)


def check_database(state: AppState) -> Iterator[Finding]:
    """Whether it answers, has the tables, and keeps what it has committed."""
    engine = state.db.engine
    yield from _check_driver(engine)
    try:
        with state.database.read() as connection:
            yield from _check_tables(connection)
            if engine.dialect.name == "sqlite":
                yield from _check_journal(connection)
            yield from map(Finding, weaknesses(connection))
    except (E2EMsgError, sa.exc.SQLAlchemyError) as error:
        # The text may hold the address, and that a password.
        cause = error.__cause__ or error
        kind = type(getattr(cause, "orig", None) or cause).__name__
        yield Finding(
            f"The database does not answer ({kind}): check SQLALCHEMY_DATABASE_URI, and that the "
            "server runs and lets this user in."
        )


def _check_driver(engine: sa.Engine) -> Iterator[Finding]:
    if engine.dialect.driver == "psycopg2":
        yield Finding(
            "The driver is psycopg2, which blocks a whole gevent worker while it waits: "
            "use postgresql+psycopg://."
        )


def _check_tables(connection: Connection) -> Iterator[Finding]:
    inspector = sa.inspect(connection)
    found = set(inspector.get_table_names())
    expected = Base.metadata.tables
    if missing := sorted(expected.keys() - found):
        yield Finding(
            f"The tables {', '.join(missing)} are missing: run `flask e2emsg revision`, then "
            "`flask db upgrade`."
        )
    for name in sorted(expected.keys() & found):
        columns = {column["name"] for column in inspector.get_columns(name)}
        if columns != set(expected[name].columns.keys()):
            yield Finding(
                f"The table {name} is of another version of flask_e2emsg: run "
                "`flask e2emsg revision`, then `flask db upgrade`."
            )


def _check_journal(connection: Connection) -> Iterator[Finding]:
    """As our own connections have it; they set it themselves."""
    mode = connection.scalar(sa.text("PRAGMA journal_mode"))
    if mode not in ("wal", "memory"):
        yield Finding(
            f"SQLite's journal_mode is {mode}, and cannot be switched to WAL: readers and the "
            "writer wait for each other. Put the file on a local disk."
        )


def check_tokens(app: Flask) -> Iterator[Finding]:
    """The settings and callbacks of Flask-JWT-Extended."""
    with app.test_request_context():
        yield from _check_secret(app)
        if jwt_config.access_expires is False:
            yield Finding(
                "JWT_ACCESS_TOKEN_EXPIRES = False: messaging refuses tokens that never end. "
                "Set an hour or less."
            )
        if "query_string" in jwt_config.token_location:
            yield Finding(
                "JWT_TOKEN_LOCATION has query_string: your own routes take tokens from "
                "addresses, which end up in logs. Leave it out; sockets do not need it."
            )
    if _is_default(app, "_token_in_blocklist_callback"):
        yield Finding(
            "There is no token_in_blocklist_loader: a token cannot be revoked before it ends.",
            is_problem=False,
        )


def _check_secret(app: Flask) -> Iterator[Finding]:
    algorithm = jwt_config.algorithm
    if not algorithm.startswith("HS") or not _is_default(app, "_decode_key_callback"):
        return
    secret = jwt_config.decode_key
    needed = int(algorithm.removeprefix("HS")) // 8  # RFC 7518, 3.2: as long as the hash
    if len(secret.encode() if isinstance(secret, str) else secret) < needed:
        yield Finding(
            f"JWT_SECRET_KEY is too short for {algorithm}, which needs {needed} bytes, and can "
            "be guessed: make one with `python -c 'import secrets; print(secrets.token_hex(64))'`."
        )


def check_settings(state: AppState) -> Iterator[Finding]:
    """Debug mode, the `E2EMSG_*` keys, and several processes as the environment has them."""
    if state.app.debug:
        yield Finding(
            "Debug mode is on: whoever can reach the server sees its insides, and with the "
            "debugger can run code. Leave FLASK_DEBUG and --debug out in production."
        )
    if state.settings.allowed_origins == "*":
        yield Finding(
            'E2EMSG_ALLOWED_ORIGINS = "*": pages of any site may open a socket for whoever '
            "gives them a token. List your origins."
        )
    workers = os.environ.get("WEB_CONCURRENCY", "1")
    if workers.isdecimal() and int(workers) > 1:
        yield per_process(int(workers))


def check_bus(state: AppState) -> Iterator[Finding]:
    """Whether what one process says is heard, by saying something that all of them ignore."""
    engine, settings = state.db.engine, state.settings
    channel = channels.make_channel(state.app, settings, state.database, engine)
    if channel is None:
        return
    is_redis = channels.kind_of(settings, engine.dialect.name) == channels.REDIS
    where = "the Redis of E2EMSG_BUS_URL" if is_redis else "PostgreSQL"
    try:
        with channel.subscribe() as subscription:
            channel.publish([""])
            if not subscription.receive(BUS_SECONDS):
                yield Finding(
                    f"What is published through {where} is not heard, so workers find each "
                    "other's messages by the sweep only. A pooler in transaction mode does that: "
                    "connect to PostgreSQL itself, or set E2EMSG_BUS_URL to the address of a Redis."
                )
    except ConnectionLost:
        return  # Of a database that does not answer, it was said before.
    except Exception as error:
        # The text may hold the address, and that a password.
        yield Finding(
            f"Workers cannot wake each other through {where} ({type(error).__name__}): see that it "
            "runs, and that its address is right."
        )


def load_gunicorn(location: str) -> Any:
    """The gunicorn configuration from a file, or a module as `python:name`, by gunicorn's own code.

    What the environment adds (GUNICORN_CMD_ARGS, WEB_CONCURRENCY) is included. gunicorn ends the
    process, with a text, if it cannot take the configuration.

    Raises:
        ConfigurationError: gunicorn is not installed.
    """
    try:
        from gunicorn.app.base import Application
    except ImportError:
        raise ConfigurationError("gunicorn is not installed here.") from None

    class Loader(Application):
        def load_config(self) -> None:
            self.chdir()
            self.load_config_from_module_name_or_filename(location)
            arguments = self.cfg.get_cmd_args_from_env()
            for name, value in vars(self.cfg.parser().parse_args(arguments)).items():
                if value is not None and name != "args":
                    self.cfg.set(name.lower(), value)

    return Loader().cfg


def _is_default(app: Flask, name: str) -> bool:
    """Whether a callback of Flask-JWT-Extended is its own."""
    callback: Callable[..., object] | None = getattr(
        app.extensions["flask-jwt-extended"], name, None
    )
    return callback is None or callback.__module__.startswith("flask_jwt_extended")
