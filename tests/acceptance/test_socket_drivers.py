"""How a worker serves its sockets: on gevent's loop, with threads, and how one can tell."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.client import ClientConnection, connect

from flask_e2emsg.protocol.values import now
from tests.acceptance.conftest import JWT_SECRET_KEY, Hosting
from tests.acceptance.people import People
from tests.acceptance.tokens import sign
from tests.acceptance.wire import new_content, new_id
from tests.servers import GunicornServer, wait_until

ON_THE_LOOP = "sockets are served on gevent's loop"
WITH_THREADS = "sockets are served with two threads each: "
TIMEOUT_SECONDS = 20.0


class TlsServer(GunicornServer):
    """A gunicorn that ends TLS itself, with a certificate that signs itself."""

    def __init__(self, folder: Path, **options: Any) -> None:
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        make_certificate(certificate, key)
        self.context = ssl.create_default_context(cafile=str(certificate))
        super().__init__(arguments=[f"--certfile={certificate}", f"--keyfile={key}"], **options)

    def _answers(self) -> bool:
        self._fail_if_dead()
        try:
            with urlopen(self.url.replace("http", "https"), context=self.context):
                return True
        except OSError:
            return False

    def connect(self, user_id: str) -> ClientConnection:
        """A socket of this user's."""
        claims = {"sub": user_id, "type": "access", "jti": new_id(), "fresh": False}
        token = sign({**claims, "exp": now() + timedelta(hours=1)}, JWT_SECRET_KEY)
        return connect(
            self.ws_url.replace("ws:", "wss:"),
            additional_headers={"Authorization": f"Bearer {token}"},
            ssl=self.context,
            open_timeout=TIMEOUT_SECONDS,
        )


def make_certificate(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, private.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now() - timedelta(days=1))
    builder = builder.not_valid_after(now() + timedelta(days=1))
    signed = builder.add_extension(alternative, critical=False).sign(private, hashes.SHA256())
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture
def server(hosting: Hosting) -> Iterator[GunicornServer]:
    with hosting.gunicorn("sqlite") as running:
        yield running


def test_the_log_says_how_sockets_are_served(server: GunicornServer, people: People) -> None:
    configured = os.environ.get("TEST_SOCKET_DRIVER")
    people.new("alice").enrol().connect()
    wanted = f"{WITH_THREADS}that is configured" if configured == "threads" else ON_THE_LOOP
    wait_until(lambda: wanted in server.log(), TIMEOUT_SECONDS, lambda: f"no {wanted}")


class TestByChoice:
    @pytest.fixture
    def server(self, hosting: Hosting) -> Iterator[GunicornServer]:
        with hosting.gunicorn("sqlite", E2EMSG_SOCKET_DRIVER="threads") as running:
            yield running

    def test_threads_can_be_asked_for(self, server: GunicornServer, people: People) -> None:
        people.new("alice").enrol().connect()
        wanted = f"{WITH_THREADS}that is configured"
        wait_until(lambda: wanted in server.log(), TIMEOUT_SECONDS, lambda: f"no {wanted}")
        assert ON_THE_LOOP not in server.log()


class TestWithTls:
    @pytest.fixture
    def server(self, hosting: Hosting, tmp_path: Path) -> Iterator[TlsServer]:
        env, log_path = hosting.environment("sqlite"), hosting.log_path()
        with TlsServer(tmp_path, env=env, log_path=log_path) as running:
            yield running

    def test_tls_that_ends_in_gunicorn_is_served_with_threads(self, server: TlsServer) -> None:
        with server.connect("alice") as alice, server.connect("bob") as bob:
            message = {"id": new_id(), "to": "bob", "encrypted_content": new_content()}
            alice.send(json.dumps({"type": "send", **message}))
            assert next_frame(alice, "accepted")["id"] == message["id"]
            delivered = next_frame(bob, "message")
            assert delivered["encrypted_content"] == message["encrypted_content"]
        assert WITH_THREADS in server.log()
        assert ON_THE_LOOP not in server.log()


def next_frame(client: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        frame: dict[str, Any] = json.loads(client.recv(TIMEOUT_SECONDS))
        if frame["type"] == kind:
            return frame
