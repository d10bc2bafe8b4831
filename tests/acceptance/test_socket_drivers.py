"""How a worker serves its sockets: on gevent's loop, on ours, and how one can tell."""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from tests.servers import GunicornServer, WorkerClass, wait_until

ON_THE_LOOP = "sockets are served on gevent's loop"
WITH_THREADS = "sockets are served by a few threads"
SAID: dict[WorkerClass, str] = {"gevent": ON_THE_LOOP, "gthread": WITH_THREADS}
TIMEOUT_SECONDS = 20.0
FEW_THREADS = 3


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


@pytest.fixture(params=["gevent", "gthread"])
def worker_class(request: pytest.FixtureRequest) -> WorkerClass:
    kind: WorkerClass = request.param
    return kind


@pytest.fixture
def server(hosting: Hosting, worker_class: WorkerClass) -> Iterator[GunicornServer]:
    with GunicornServer(
        env=hosting.environment("sqlite"),
        log_path=hosting.log_path(),
        config=hosting.configuration(),
        worker_class=worker_class,
        threads=FEW_THREADS,
    ) as running:
        yield running


def test_the_log_says_how_sockets_are_served(
    server: GunicornServer, people: People, worker_class: WorkerClass
) -> None:
    people.new("alice").enrol().connect()
    wanted = SAID[worker_class]
    wait_until(lambda: wanted in server.log(), TIMEOUT_SECONDS, lambda: f"no {wanted}")
    [other] = set(SAID.values()) - {wanted}
    assert other not in server.log()


def test_sockets_hold_none_of_the_servers_threads(server: GunicornServer, people: People) -> None:
    users = [people.new().enrol() for _ in range(3)]
    clients = [user.connect() for user in users for _ in range(10)]
    for client in clients:
        client.round_trip()
    assert users[0].rest.get("/api/sync").status == 200
    for user in users:
        user.clients[-1].store(users[0].id)
    for client in clients:
        client.round_trip()


class TestWithTls:
    @pytest.fixture
    def server(
        self, hosting: Hosting, tmp_path: Path, worker_class: WorkerClass
    ) -> Iterator[TlsServer]:
        with TlsServer(
            tmp_path,
            env=hosting.environment("sqlite"),
            log_path=hosting.log_path(),
            config=hosting.configuration("keepalive = 20"),  # also for the first request
            worker_class=worker_class,
            threads=FEW_THREADS,
        ) as running:
            yield running

    def test_a_message_goes_through_tls_that_ends_in_gunicorn(self, server: TlsServer) -> None:
        with server.connect("alice") as alice, server.connect("bob") as bob:
            message = {"id": new_id(), "to": "bob", "encrypted_content": new_content()}
            alice.send(json.dumps({"type": "send", **message}))
            assert next_frame(alice, "accepted")["id"] == message["id"]
            delivered = next_frame(bob, "message")
            assert delivered["encrypted_content"] == message["encrypted_content"]

    def test_both_ways_are_full_at_the_same_time(self, server: TlsServer) -> None:
        """What comes is larger and smaller than what TLS gives at once (16 KiB)."""
        sizes = [10, 20_000, 300, 12_000] * 25
        with (
            server.connect("alice") as alice,
            server.connect("bob") as bob,
            ThreadPoolExecutor(2) as senders,
        ):
            sent = {
                name: [
                    {"id": new_id(), "to": to, "encrypted_content": new_content(size)}
                    for size in sizes
                ]
                for name, to in (("alice", "bob"), ("bob", "alice"))
            }

            def send_all(client: ClientConnection, name: str) -> None:
                for message in sent[name]:
                    client.send(json.dumps({"type": "send", **message}))

            sending = [
                senders.submit(send_all, alice, "alice"),
                senders.submit(send_all, bob, "bob"),
            ]
            for client, other in ((bob, "alice"), (alice, "bob")):
                got = [next_message_with_ack(client, other) for _ in sizes]
                assert [one["id"] for one in got] == [one["id"] for one in sent[other]]
                assert [one["encrypted_content"] for one in got] == [
                    one["encrypted_content"] for one in sent[other]
                ]
            for one in sending:
                one.result(TIMEOUT_SECONDS)


def next_message_with_ack(client: ClientConnection, sender: str) -> dict[str, Any]:
    """The next message of this sender's, acknowledged."""
    while True:
        frame = next_frame(client, "message")
        client.send(json.dumps({"type": "ack", "seq": frame["seq"]}))
        if frame["sender"] == sender:
            return frame


def next_frame(client: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        frame: dict[str, Any] = json.loads(client.recv(TIMEOUT_SECONDS))
        if frame["type"] == kind:
            return frame
