"""An echo whose sockets are on gevent's loop.

`python -m gevent.monkey --module tests.transport.evented_echo SIZE` takes messages of up to so many
bytes, prints its address, and serves until it is terminated.
"""

from __future__ import annotations

import math
import socket
import sys
import threading
from typing import cast

from flask_e2emsg.delivery.pump import Signal
from flask_e2emsg.transport.evented import Evented, why_not
from flask_e2emsg.transport.framing import text_frame
from flask_e2emsg.transport.reactor import Reactor
from flask_e2emsg.transport.ws import Session, Start
from tests.transport.peers import EchoServer

WRITE_TIMEOUT_SECONDS = 10.0


class EchoPump:
    """As much of a pump as a connection asks for."""

    is_full = False

    def __init__(self) -> None:
        self.close_code: int | None = None
        self.stirred: Signal | None = None

    def attach(self, stirred: Signal, _answered: Signal) -> None:
        self.stirred = stirred
        stirred.set()

    def close(self, code: int) -> None:
        self.close_code = self.close_code or code
        self.stir()

    def stir(self) -> None:
        if self.stirred is not None:
            self.stirred.set()


class EchoSession:
    """As much of a session; every message is its own answer."""

    silent_since: float | None = None

    def __init__(self) -> None:
        self.pump = EchoPump()
        self.due_at = math.inf
        self._answers: list[bytes] = []

    def begin(self, _start: Start) -> None:
        pass

    def failed(self, _what: str, _error: BaseException) -> None:
        self.pump.close(1011)

    def handle(self, text: bytes) -> None:
        self._answers.append(text_frame(text))
        self.pump.stir()

    def replies(self) -> list[bytes]:
        answers, self._answers = self._answers, []
        return answers

    def due(self, _now: float) -> list[bytes]:
        return self.replies()

    def end_if_due(self, _now: float) -> None:
        pass


class Echoes:
    """Serves each connection that comes."""

    def __init__(self) -> None:
        self._reactor = Reactor()

    def serve(self, sock: socket.socket, max_message_bytes: int) -> None:
        assert why_not(sock) is None
        session = cast("Session", EchoSession())
        limits = max_message_bytes, WRITE_TIMEOUT_SECONDS
        connection = Evented(self._reactor, session, sock, b"", *limits, lambda: None)
        connection.start(cast("Start", None))


if __name__ == "__main__":
    with EchoServer(int(sys.argv[1]), Echoes().serve) as server:
        print(server.url, flush=True)
        threading.Event().wait()
