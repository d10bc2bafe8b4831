"""A client that sends as fast as it can, and the neighbours who are served meanwhile."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

import psutil

from tests.acceptance.client import SocketClient
from tests.acceptance.people import Person
from tests.acceptance.raw import RawClient
from tests.servers import GunicornServer, wait_until

DEADLINE_SECONDS = 15.0
BYTES_AT_ONCE = 65536


class Flood:
    """Sends the same bytes at full speed, and reads whatever comes, until it is stopped or cut."""

    def __init__(self, client: RawClient, unit: bytes) -> None:
        self.units_sent = 0
        self._client = client
        self._per_send = max(1, BYTES_AT_ONCE // len(unit))
        self._data = unit * self._per_send
        self._stopped = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._receiver = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Self:
        self._sender.start()
        self._receiver.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        # A reset: what the kernel still holds of the flood must not hit the next test.
        linger = struct.pack("ii", 1, 0)
        self._client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with contextlib.suppress(OSError):
            self._client.socket.shutdown(socket.SHUT_RDWR)
        self._sender.join()
        self._receiver.join()
        self._client.close()

    def wait_until_it_is_slowed_down(self) -> None:
        """Wait until more has been sent than the server takes at once."""
        wait_until(
            lambda: self.units_sent > self._per_send,
            DEADLINE_SECONDS,
            lambda: f"{self.units_sent} units were sent",
        )

    def was_cut(self) -> bool:
        """Whether the server has ended the connection."""
        return not self._receiver.is_alive()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopped.is_set():
                self._client.socket.sendall(self._data)
                self.units_sent += self._per_send

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while self._client.socket.recv(BYTES_AT_ONCE):
                pass


class Neighbours:
    """Two people who write to each other."""

    def __init__(self, alice: Person, bob: Person) -> None:
        self._ours: SocketClient = alice.connect()
        self._theirs: SocketClient = bob.connect()
        self._bob = bob

    def latencies(self, count: int) -> list[float]:
        """How long so many messages take, one after the other, in seconds, in rising order."""
        return sorted(self._latency() for _ in range(count))

    def _latency(self) -> float:
        began = time.monotonic()
        message_id = self._ours.send(self._bob.id)
        self._theirs.message(message_id)
        self._ours.accepted(message_id)
        self._theirs.ack()
        return time.monotonic() - began


class Memory:
    """How much larger a server's only worker becomes."""

    def __init__(self, server: GunicornServer) -> None:
        (pid,) = server.worker_pids()
        self._process = psutil.Process(pid)
        self._before = self._process.memory_info().rss

    def growth(self) -> int:
        """Bytes of resident memory since the beginning."""
        return int(self._process.memory_info().rss) - self._before
