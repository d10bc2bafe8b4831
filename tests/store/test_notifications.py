"""LISTEN and NOTIFY, through both drivers of PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from flask_e2emsg.errors import Unavailable
from flask_e2emsg.store.database import Database
from flask_e2emsg.store.notifications import NotificationChannel, _Texts
from tests.listening import SECONDS, hear

DRIVERS = ("psycopg", "psycopg2")


@pytest.fixture(params=DRIVERS)
def database(
    request: pytest.FixtureRequest, postgresql_url: str, connect_to: Callable[[str], Engine]
) -> Iterator[Database]:
    url = make_url(postgresql_url).set(drivername=f"postgresql+{request.param}")
    one = Database(connect_to(url.render_as_string(hide_password=False)))
    yield one
    one.dispose()


@pytest.fixture
def channel(database: Database) -> NotificationChannel:
    return NotificationChannel(database, "e2emsg_test")


@pytest.mark.parametrize(
    "texts",
    [
        ["hello"],
        [""],
        ["one", "two", "two", "three"],
        ["x" * 7499, "x" * 7500, "x" * 7501],
        ["a" * 20_000 + "equal ends" * 750, "b" * 20_000 + "equal ends" * 750],
        ["é" * 30_000, "🔑" * 30_000],
        ["quotes ' and \\ and %s"],
        [str(number) for number in range(1000)],
    ],
    ids=lambda texts: f"{len(texts)} of {sum(map(len, texts))}",
)
def test_what_is_published_is_heard_whole_and_in_order(
    channel: NotificationChannel, texts: list[str]
) -> None:
    with channel.subscribe() as subscription:
        channel.publish(texts)
        assert hear(subscription, len(texts)) == texts
        assert subscription.receive(0.05) == []


def test_every_subscriber_hears_and_no_other_channel(
    channel: NotificationChannel, database: Database
) -> None:
    with channel.subscribe() as one, channel.subscribe() as two:
        NotificationChannel(database, "e2emsg_other").publish(["not for you"])
        channel.publish(["for you"])
        assert hear(one, 1) == hear(two, 1) == ["for you"]


def test_a_subscription_whose_connection_is_ended_says_so(
    channel: NotificationChannel, postgresql_url: str
) -> None:
    url = postgresql_url.replace("postgresql+psycopg", "postgresql")
    with channel.subscribe() as subscription:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        with pytest.raises(Exception, match=r"."):
            hear(subscription, 1)


def test_a_subscription_ends_with_its_block_and_gives_nothing_to_the_pool(
    channel: NotificationChannel, connect_to: Callable[[str], Engine], postgresql_url: str
) -> None:
    listening = sa.text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    )
    engine = connect_to(postgresql_url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        with channel.subscribe():
            assert connection.scalar(listening) == 1
        deadline = time.monotonic() + SECONDS
        while connection.scalar(listening):
            assert time.monotonic() < deadline, "it is still there"


def test_publishing_to_a_database_that_is_away_is_a_refusal(
    connect_to: Callable[[str], Engine],
) -> None:
    nobody = connect_to("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(Unavailable):
        NotificationChannel(Database(nobody), "e2emsg_test").publish(["hello"])


def test_pieces_that_make_no_sense_are_nothing() -> None:
    texts = _Texts()
    for junk in ("", "hello", ":", "x 0:part", "1 :part", "-1 0:part", "99999 0:part", "1:part"):
        assert texts.add(1, junk) is None
    assert texts.add(1, "0 0:whole") == "whole"


def test_pieces_of_several_senders_do_not_mix() -> None:
    texts = _Texts()
    assert texts.add(1, "1 0:a") is None
    assert texts.add(2, "1 0:x") is None
    assert texts.add(1, "0 0:b") == "ab"
    assert texts.add(2, "0 0:y") == "xy"
