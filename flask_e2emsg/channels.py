"""Which channel the processes of an app wake each other through, by `E2EMSG_BUS_URL`."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .config import Settings
from .delivery.bus import Channel
from .delivery.redis_channel import RedisChannel
from .delivery.seal import Seal
from .errors import ConfigurationError
from .store.notifications import NotificationChannel

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy.engine import Engine

    from .store.database import Database

LOCAL, POSTGRESQL, REDIS = "local", "postgresql", "redis"
_SECRETS = ("JWT_SECRET_KEY", "SECRET_KEY", "JWT_PRIVATE_KEY")


def kind_of(settings: Settings, dialect: str) -> str:
    """`local`, `postgresql` or `redis`."""
    url = settings.bus_url
    if url is None:
        return POSTGRESQL if dialect == POSTGRESQL else LOCAL
    return url if url in (LOCAL, POSTGRESQL) else REDIS


def check(app: Flask, settings: Settings, dialect: str) -> None:
    """See that the app can have the bus that it asks for.

    Raises:
        ConfigurationError: it cannot; the text says the cure.
    """
    kind = kind_of(settings, dialect)
    if kind == POSTGRESQL and dialect != POSTGRESQL:
        raise ConfigurationError(
            f'E2EMSG_BUS_URL is "postgresql", but the database is {dialect}. Leave it out, or give '
            "the address of a Redis."
        )
    if kind != REDIS:
        return
    if find_spec("redis") is None:
        raise ConfigurationError(
            "E2EMSG_BUS_URL names a Redis: install its client with "
            "`pip install flask-e2emsg[redis]`."
        )
    if not _secret(app):
        raise ConfigurationError(
            "Set SECRET_KEY: with it the workers know each other's messages on Redis."
        )


def make_seal(app: Flask) -> Seal:
    """What an app's processes know each other by."""
    return Seal(_secret(app))


def make_channel(
    app: Flask, settings: Settings, database: Database, engine: Engine
) -> Channel | None:
    """The channel of an app; None where its processes do not speak to each other."""
    kind = kind_of(settings, engine.dialect.name)
    if kind == LOCAL:
        return None
    named = [settings.bus_channel or ""]
    if kind == POSTGRESQL:
        # Two hosts may spell the database's address differently, and it is the same.
        return NotificationChannel(database, _name(_secret(app), named))
    if settings.bus_channel is None:
        url = engine.url
        named = [str(part) for part in (url.host, url.port, url.database)]
    assert settings.bus_url is not None
    return RedisChannel(settings.bus_url, _name(_secret(app), named))


def _name(secret: bytes, parts: list[str]) -> str:
    """The same for all processes of a deployment, and telling nothing about it."""
    text = "\0".join(parts).encode()
    key = hashlib.blake2b(secret, digest_size=32).digest()
    return "e2emsg_" + hashlib.blake2b(text, key=key, digest_size=12).hexdigest()


def _secret(app: Flask) -> bytes:
    found: Any = next((app.config[key] for key in _SECRETS if app.config.get(key)), b"")
    return found.encode() if isinstance(found, str) else bytes(found)
