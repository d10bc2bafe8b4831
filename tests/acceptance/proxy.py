"""A network between a client and a server that takes its time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from queue import Empty, SimpleQueue
from typing import Self
from urllib.parse import urlsplit

from tests.servers import WebServer

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing drops what was not sent, and resets

Line = SimpleQueue[tuple[float, bytes | None]]  # None: a reset; no bytes: the end


class DelayingProxy:
    """Forwards connections to a server; every byte, end and reset comes later by the delay.

    A reset takes away what is still on its way, as it does from a client that reads late.
    """

    def __init__(self, server: WebServer, delay_seconds: float) -> None:
        address = urlsplit(server.url)
        self._target = (str(address.hostname), address.port or 80)
        self._delay = delay_seconds
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._connections: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}/api/ws"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._connections:
            connection.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connections.append(threading.Thread(target=self._forward, args=(client,)))
                self._connections[-1].start()

    def _forward(self, client: socket.socket) -> None:
        there: Line = SimpleQueue()
        back: Line = SimpleQueue()
        with client, socket.create_connection(self._target) as server:
            threads = [
                threading.Thread(target=self._take, args=(client, there)),
                threading.Thread(target=self._give, args=(server, there, back)),
                threading.Thread(target=self._take, args=(server, back)),
                threading.Thread(target=self._give, args=(client, back, there)),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _take(self, source: socket.socket, line: Line) -> None:
        data = b"..."
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                self._reset(line)
                return
            line.put((time.monotonic() + self._delay, data))

    def _give(self, target: socket.socket, line: Line, back: Line) -> None:
        try:
            while data := self._due(line):
                target.sendall(data)
            if data is None:
                target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                target.shutdown(socket.SHUT_RD)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self._reset(back)

    def _due(self, line: Line) -> bytes | None:
        due_at, data = line.get()
        time.sleep(max(0.0, due_at - time.monotonic()))
        return data

    def _reset(self, line: Line) -> None:
        with contextlib.suppress(Empty):
            while True:
                line.get_nowait()
        line.put((time.monotonic() + self._delay, None))
