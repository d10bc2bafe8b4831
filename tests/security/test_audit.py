"""What people write is nowhere on the server: `flask e2emsg audit` after a day of real clients."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flask_e2emsg.client import events, vault
from tests.acceptance.conftest import Hosting
from tests.client.live.devices import Device, Devices
from tests.servers import REPOSITORY, GunicornServer, PostgresServer, RedisServer

HOST = "tests.acceptance.host:create_app"


@contextmanager
def captured(redis: RedisServer, path: Path) -> Iterator[None]:
    """Everything that Redis is told inside the block goes to a file."""
    address = urlsplit(redis.url)
    with socket.create_connection((address.hostname, address.port)) as monitor:
        monitor.sendall(b"MONITOR\r\n")
        assert monitor.recv(5) == b"+OK\r\n"

        def write_down() -> None:
            with path.open("wb") as file:
                while some := monitor.recv(65536):
                    file.write(some)

        writer = threading.Thread(target=write_down)
        writer.start()
        try:
            yield
        finally:
            monitor.shutdown(socket.SHUT_RDWR)
            writer.join()


class Audit:
    """A server, and the command that looks through what it leaves."""

    def __init__(self, server: GunicornServer, paths: list[Path]) -> None:
        self.server, self.paths = server, paths

    def run(self, texts: list[str]) -> tuple[int, str]:
        command = ["flask", "--app", HOST, "e2emsg", "audit", "-", *map(str, self.paths)]
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=REPOSITORY,
            env=self.server.environment,
            input="\n".join(texts),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def audit(
    hosting: Hosting, postgres: PostgresServer, tmp_path: Path, database: str
) -> Iterator[Audit]:
    """One worker on SQLite, or two on PostgreSQL with a Redis, as loud as logs get."""
    loud = hosting.configuration("loglevel = 'debug'")
    if database == "sqlite":
        env = hosting.environment("sqlite", E2EMSG_CHECK_ENVELOPES=True)
        with GunicornServer(env=env, config=loud, log_path=tmp_path / "log") as server:
            yield Audit(server, [server.log_path])
        return
    traffic = tmp_path / "traffic"
    with RedisServer() as redis, captured(redis, traffic):
        env = hosting.environment(
            "postgresql", E2EMSG_CHECK_ENVELOPES=True, E2EMSG_BUS_URL=redis.url
        )
        log = tmp_path / "log"
        with GunicornServer(env=env, config=loud, log_path=log, workers=2) as server:
            yield Audit(server, [log, traffic, postgres.log_of_changes])


@pytest.fixture
def server(audit: Audit) -> GunicornServer:
    return audit.server


@pytest.fixture
def devices(audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    monkeypatch.setattr(vault, "SCRYPT_N", 1 << 10)
    (tmp_path / "clients").mkdir()
    with Devices(audit.server, tmp_path / "clients") as made:
        yield made


def new_canary(n: int) -> str:
    return f"canary {n} says: {secrets.token_hex(8)} ünd mehr"


def talk(alice: Device, bob: Device) -> list[str]:
    """Write in every way there is; what was written."""
    canaries = [new_canary(n) for n in range(12)]
    first = alice.write(bob, canaries[0])
    bob.until(events.Message, body=canaries[0])
    bob.client.mark_read([first])
    bob.client.set_typing(alice.user_id)
    kinds = ("reply", "edit", "reaction")
    for kind, body in zip(kinds, canaries[1:4], strict=True):
        alice.write(bob, body, type=kind, target=first)
    for body in canaries[4:8]:
        bob.write(alice, body, conversation_id="a room", expires_in=3600)
    bob.client.close()
    for body in canaries[8:]:
        alice.write(bob, body)
    alice.write(alice, canaries[0])
    code = alice.client.make_backup()
    assert [one.body for one in alice.history_with(bob.user_id)][-1] == canaries[-1]
    return [*canaries, code, code.replace("-", "")]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nothing_of_what_people_write_is_on_the_server(
    audit: Audit, devices: Devices, tmp_path: Path
) -> None:
    alice, bob = devices.ready("alice"), devices.ready("bob")
    written = talk(alice, bob)
    audit.paths.append(tmp_path / "clients")
    status, said = audit.run(written)
    assert status == 0, said
    assert f"Looked for {len(written)} texts" in said
    # It would have seen it: the server does know who they are.
    status, said = audit.run([alice.user_id])
    assert status == 1
    assert "table e2emsg_accounts, column user_id" in said
    for path in audit.paths[1:]:
        assert f"{path}" in said, f"not looked through: {path}"
