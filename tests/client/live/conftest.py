"""A server, and people with devices: each device is a client with a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_e2emsg.client import vault
from tests.acceptance.conftest import Hosting, _quiet_log, hosting
from tests.client.live.devices import Devices
from tests.servers import GunicornServer

__all__ = ["_quiet_log", "hosting"]


@pytest.fixture(scope="module")
def server(hosting: Hosting) -> Iterator[GunicornServer]:
    """A gunicorn with one gevent worker, on SQLite, of this module alone; it checks envelopes."""
    with hosting.gunicorn("sqlite", E2EMSG_CHECK_ENVELOPES=True) as running:
        yield running


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases are cheap, and no proxy is on the way."""
    monkeypatch.setattr(vault, "SCRYPT_N", 1 << 10)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def devices(server: GunicornServer, tmp_path: Path, near: None) -> Iterator[Devices]:
    with Devices(server, tmp_path) as all_of_them:
        yield all_of_them
