"""TLS that one thread reads while another writes."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flask_e2emsg.client.tls import ThreadSafeTls, TlsSocket
from tests.certificates import make_certificate

DEADLINE_SECONDS = 10.0
Serve = Callable[[ssl.SSLSocket], None]
Connect = Callable[..., contextlib.AbstractContextManager[TlsSocket]]


class Watched(ssl.SSLObject):
    """Tells how many threads were in OpenSSL at the same time, for longer than it takes."""

    inside, most = 0, 0

    def read(self, *given: Any) -> Any:
        return self._watched(super().read, *given)

    def write(self, *given: Any) -> Any:
        return self._watched(super().write, *given)

    @classmethod
    def _watched(cls, call: Callable[..., Any], *given: Any) -> Any:
        cls.inside += 1
        cls.most = max(cls.most, cls.inside)
        time.sleep(0.0005)
        try:
            return call(*given)
        finally:
            cls.inside -= 1


class Hesitant(socket.socket):
    """Takes a moment before it sends, in which somebody else might."""

    def sendall(self, *given: Any) -> None:
        time.sleep(secrets.randbelow(3) / 2000)
        super().sendall(*given)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


@pytest.fixture
def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.fixture
def serve(certificate: tuple[Path, Path]) -> Iterator[Callable[[Serve], int]]:
    """Starts a server that does with one connection what the test says; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    def answer(listener: socket.socket, serves: Serve) -> None:
        # Who refuses the certificate goes away in the middle.
        with listener, contextlib.suppress(OSError):
            below, _ = listener.accept()
            with below, context.wrap_socket(below, server_side=True) as tls:
                serves(tls)

    with ThreadPoolExecutor(1) as pool:

        def start(serves: Serve) -> int:
            listener = socket.create_server(("127.0.0.1", 0))
            pool.submit(answer, listener, serves)
            return int(listener.getsockname()[1])

        yield start


@pytest.fixture
def connect(trusting: ssl.SSLContext) -> Connect:
    """Opens a connection to a port, by a context that trusts the server unless another is given."""

    @contextlib.contextmanager
    def connected(
        port: int, context: ssl.SSLContext = trusting, name: str = "127.0.0.1"
    ) -> Iterator[TlsSocket]:
        with Hesitant() as sock:
            sock.settimeout(DEADLINE_SECONDS)
            sock.connect(("127.0.0.1", port))
            yield ThreadSafeTls(context).wrap_socket(sock, server_hostname=name)

    return connected


def echo(tls: ssl.SSLSocket) -> None:
    while data := tls.recv(50_000):
        tls.sendall(data)


def received(tls: TlsSocket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = tls.recv(1000)
        assert data, "the end came too early"
        got += data
    return got


def test_both_ways_are_full_at_the_same_time(
    serve: Callable[[Serve], int], connect: Connect
) -> None:
    chunks = [secrets.token_bytes(size) for size in (1, 70_000, 300, 16_384, 5000) * 40]
    with connect(serve(echo)) as tls, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(received, tls, sum(map(len, chunks)))
        for chunk in chunks:
            tls.sendall(chunk)
        assert reading.result() == b"".join(chunks)


def test_no_two_threads_are_in_openssl_at_the_same_time(
    serve: Callable[[Serve], int], connect: Connect, trusting: ssl.SSLContext
) -> None:
    trusting.sslobject_class = Watched
    chunks = [secrets.token_bytes(3000) for _ in range(40)]
    with connect(serve(echo)) as tls, ThreadPoolExecutor(3) as pool:
        reading = pool.submit(received, tls, 2 * sum(map(len, chunks)))
        for _ in pool.map(tls.sendall, chunks * 2):
            pass
        assert len(reading.result()) == 2 * sum(map(len, chunks))
    assert Watched.most == 1


def test_who_waits_with_select_is_told_of_everything(
    serve: Callable[[Serve], int], connect: Connect
) -> None:
    """A byte that has been taken from the network is in no socket, so all is given at once."""

    def say_much(tls: ssl.SSLSocket) -> None:
        for _ in range(100):
            tls.sendall(b"0123456789" * 100)  # a record each
        tls.recv(1)  # the end

    with connect(serve(say_much)) as tls:
        got = b""
        while len(got) < 100_000:
            ready, _, _ = select.select([tls.fileno()], [], [], DEADLINE_SECONDS)
            assert ready, f"nothing more after {len(got)} bytes"
            got += tls.recv(10)
        assert got == b"0123456789" * 10_000


@pytest.mark.parametrize("has_goodbye", [True, False])
def test_the_end_is_an_end(
    serve: Callable[[Serve], int], connect: Connect, has_goodbye: bool
) -> None:
    def say_a_word(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"word")
        if has_goodbye:
            tls.unwrap()

    with connect(serve(say_a_word)) as tls:
        assert received(tls, 4) == b"word"
        assert [tls.recv(1000), tls.recv(1000)] == [b"", b""]


def test_a_server_that_nobody_vouches_for_is_refused(
    serve: Callable[[Serve], int], connect: Connect
) -> None:
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        connect(serve(echo), ssl.create_default_context()),
    ):
        pass


def test_a_server_of_another_name_is_refused(
    serve: Callable[[Serve], int], connect: Connect
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), connect(serve(echo), name="127.0.0.2"):
        pass


def test_what_is_no_tls_is_refused(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        pool.submit(answer)
        with pytest.raises(ssl.SSLError), connect(plain.getsockname()[1]):
            pass
