"""TLS for a socket that one thread reads while others write to it.

OpenSSL allows no two calls for one connection at the same time, and Python's own TLS sockets make
them from any thread: that breaks connections, and sometimes the process. Here a lock is held for
what OpenSSL does, which is in memory only, and by nobody who waits for the network.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

RECEIVE_BYTES = 65536


class ThreadSafeTls:
    """Wraps sockets as the `ssl.SSLContext` does that it is made of."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, sock: socket.socket, server_hostname: str | None = None) -> TlsSocket:
        """Shake hands over a connected socket, and check the server's certificate.

        Raises:
            OSError: what `ssl.SSLContext.wrap_socket` raises, such as SSLCertVerificationError.
        """
        return TlsSocket(sock, self._context, server_hostname)


class TlsSocket:
    """What a WebSocket needs of a socket. The rest is that of the socket below."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None
    ) -> None:
        self._sock = sock
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=server_hostname)
        self._lock = threading.Lock()
        self._sending = threading.Lock()  # records go out in the order in which they were made
        self._shake_hands()

    def recv(self, _size: int) -> bytes:
        """All that has come, more than `_size` if need be; at least one byte, unless it was all.

        Whoever waits with `select` learns of no byte that we keep.
        """
        while (data := self._opened()) is None:
            self._take()
        return data

    def sendall(self, data: bytes) -> None:
        """Send all of it, and what OpenSSL itself has to say."""
        with self._sending:
            with self._lock:
                self._tls.write(data)  # Memory has room for all of it.
                sealed = self._leaving.read()
            self._sock.sendall(sealed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                pass
            finally:
                self._sock.sendall(self._leaving.read())
            self._take()

    def _take(self) -> None:
        data = self._sock.recv(RECEIVE_BYTES)
        with self._lock:
            if data:
                self._arrived.write(data)
            else:
                self._arrived.write_eof()

    def _opened(self) -> bytes | None:
        """What has come, empty at the end; None if nothing has."""
        parts = []
        with self._lock:
            try:
                while part := self._tls.read(RECEIVE_BYTES):
                    parts.append(part)
            except ssl.SSLWantReadError:
                return b"".join(parts) or None
            except ssl.SSLEOFError:
                pass  # Without a goodbye: the frames above say whether anything is missing.
        return b"".join(parts)
