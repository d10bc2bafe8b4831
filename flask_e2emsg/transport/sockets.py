"""How the sockets of a process are served: on gevent's loop where there is one, else with threads.

The choice is made for each connection and said in the log when it is made for the first time.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from ..config import Settings
from .evented import Evented, why_not
from .reactor import Reactor
from .threads import Threads
from .websocket import WebSocket
from .ws import Session, Start

logger = logging.getLogger("flask_e2emsg.sockets")


class Sockets:
    """The sockets of one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reactor: Reactor | None = None
        self._said: set[str | None] = set()

    def serve(
        self,
        session: Session,
        sock: socket.socket,
        early: bytes,
        start: Start,
        on_end: Callable[[], None],
    ) -> bool:
        """Serve an upgraded connection, until its end or beyond the end of its request.

        Whether it goes on: then `on_end` is called at its end, and the socket is no longer the
        server's.
        """
        settings = self._settings
        limits = settings.max_frame_bytes, settings.write_timeout_seconds
        if self._uses_threads(sock):
            Threads(session, WebSocket(sock, *limits, early)).run(start)
            return False
        if self._reactor is None:
            self._reactor = Reactor()
        Evented(self._reactor, session, sock, early, *limits, on_end).start(start)
        return True

    def _uses_threads(self, sock: socket.socket) -> bool:
        setting = self._settings.socket_driver
        reason = "that is configured" if setting == "threads" else why_not(sock)
        if reason not in self._said:
            self._said.add(reason)
            if reason is None:
                logger.info("sockets are served on gevent's loop")
            else:
                logger.info("sockets are served with two threads each: %s", reason)
        return reason is not None
