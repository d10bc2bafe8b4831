"""Which processes hear each other: those of one deployment, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine

from flask_e2emsg.channels import kind_of, make_channel, make_seal
from flask_e2emsg.config import Settings
from flask_e2emsg.store.database import Database

REDIS = "redis://localhost:6379/0"
SQLITE, POSTGRESQL = "sqlite:///:memory:", "postgresql+psycopg://me@localhost/app"


@pytest.mark.parametrize(
    ("url", "dialect", "kind"),
    [
        (None, "sqlite", "local"),
        (None, "postgresql", "postgresql"),
        ("local", "postgresql", "local"),
        ("postgresql", "postgresql", "postgresql"),
        *((url, "postgresql", "redis") for url in (REDIS, "rediss://:pw@h:1", "unix:///run/r")),
        (REDIS, "sqlite", "redis"),
    ],
)
def test_the_bus_is_chosen_by_its_address_or_by_the_database(
    url: str | None, dialect: str, kind: str
) -> None:
    settings = Settings.from_mapping({"E2EMSG_BUS_URL": url})
    assert kind_of(settings, dialect) == kind


@pytest.fixture
def name_of(connect_to: Callable[[str], Engine]) -> Callable[..., str]:
    """The name of the channel of an app with a secret, on a database."""

    def name(database: str, secret: str = "secret", **settings: object) -> str:
        app = Flask("app")
        app.config["SECRET_KEY"] = secret
        engine = connect_to(database)
        keys = {f"E2EMSG_{key}": value for key, value in settings.items()}
        channel: Any = make_channel(app, Settings.from_mapping(keys), Database(engine), engine)
        assert channel is not None
        return str(channel._name)

    return name


def test_processes_with_the_same_settings_share_a_channel(name_of: Callable[..., str]) -> None:
    assert name_of(POSTGRESQL) == name_of(POSTGRESQL)
    assert name_of(POSTGRESQL, BUS_URL=REDIS) == name_of(POSTGRESQL, BUS_URL=REDIS)


def test_another_password_of_the_database_makes_no_other_channel(
    name_of: Callable[..., str],
) -> None:
    other = "postgresql+psycopg2://you:secret@localhost/app"
    assert name_of(POSTGRESQL, BUS_URL=REDIS) == name_of(other, BUS_URL=REDIS)


@pytest.mark.parametrize("bus", [{}, {"BUS_URL": REDIS}])
def test_other_secrets_and_names_make_other_channels(
    name_of: Callable[..., str], bus: dict[str, object]
) -> None:
    names = {
        name_of(POSTGRESQL, **bus),
        name_of(POSTGRESQL, "another secret", **bus),
        name_of(POSTGRESQL, BUS_CHANNEL="staging", **bus),
        name_of(POSTGRESQL, BUS_CHANNEL="testing", **bus),
    }
    assert len(names) == 4


def test_on_a_redis_other_databases_make_other_channels(name_of: Callable[..., str]) -> None:
    others = ("postgresql+psycopg://me@localhost/other", "postgresql+psycopg://me@elsewhere/app")
    databases = (POSTGRESQL, *others, SQLITE)
    assert len({name_of(database, BUS_URL=REDIS) for database in databases}) == 4


def test_a_name_that_is_given_joins_databases_that_are_written_differently(
    name_of: Callable[..., str],
) -> None:
    other = "postgresql+psycopg://me@127.0.0.1/app"
    settings = {"BUS_URL": REDIS, "BUS_CHANNEL": "production"}
    assert name_of(POSTGRESQL, **settings) == name_of(other, **settings)


def test_names_tell_nothing_and_are_plain(name_of: Callable[..., str]) -> None:
    name = name_of(POSTGRESQL, BUS_URL=REDIS, BUS_CHANNEL="production")
    assert name.isidentifier()
    assert len(name) < 60
    assert "production" not in name


@pytest.mark.parametrize("secret", ["secret", b"secret"])
def test_a_secret_may_be_text_or_bytes(secret: str | bytes) -> None:
    app, other = Flask("app"), Flask("other")
    app.config["JWT_SECRET_KEY"], other.config["SECRET_KEY"] = secret, "secret"
    assert make_seal(other).take_off(make_seal(app).put_on("text")) == "text"
    other.config["SECRET_KEY"] = "another"
    assert make_seal(other).take_off(make_seal(app).put_on("text")) is None
