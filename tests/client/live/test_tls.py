"""Clients at a server that speaks TLS, as those of real users do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from flask_e2emsg.client import Client, Store, events
from tests.acceptance.conftest import Hosting
from tests.acceptance.tls import TlsServer

MESSAGES = 100
DEADLINE_SECONDS = 20.0


@pytest.fixture
def server(hosting: Hosting, tmp_path: Path) -> Iterator[TlsServer]:
    env = hosting.environment("sqlite", E2EMSG_CHECK_ENVELOPES=True)
    with TlsServer(
        tmp_path, env=env, log_path=hosting.log_path(), config=hosting.configuration()
    ) as running:
        yield running


Kind = TypeVar("Kind")
Open = Callable[[str], Client]


@pytest.fixture
def open_client(server: TlsServer, tmp_path: Path, near: None) -> Iterator[Open]:
    url = server.url.replace("http", "https")
    with ExitStack() as closing:

        def opened(user_id: str) -> Client:
            store = Store(tmp_path / f"{user_id}.e2emsg", "a passphrase")
            client = Client(url, lambda: server.token(user_id), store, tls=server.context)
            closing.callback(client.close)
            return client

        yield opened


def test_two_who_write_at_the_same_time_read_all_of_it(open_client: Open) -> None:
    alice, bob = open_client("alice"), open_client("bob")
    for client in (alice, bob):
        assert_told(client, events.CaughtUp, 1)
    for n in range(MESSAGES):
        alice.send("bob", f"to bob {n}")
        bob.send("alice", f"to alice {n}")
    for client, name in ((alice, "alice"), (bob, "bob")):
        told = [one.body for one in assert_told(client, events.Message, MESSAGES)]
        assert told == [f"to {name} {n}" for n in range(MESSAGES)]


def assert_told(client: Client, kind: type[Kind], count: int) -> list[Kind]:
    """So many events of a kind, and meanwhile no loss of the connection."""
    told: list[Kind] = []
    for event in client.events(DEADLINE_SECONDS):
        assert not isinstance(event, events.Disconnected), event
        if isinstance(event, kind):
            told.append(event)
        if len(told) == count:
            return told
    raise AssertionError(f"{len(told)} of {count}")
