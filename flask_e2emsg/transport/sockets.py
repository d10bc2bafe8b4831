"""How the sockets of a process are served: on gevent's loop where there is one, else on our own.

The choice is made for each connection and said in the log when it is made for the first time.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import sys
import threading
from _socket import socket as PlainSocket
from collections.abc import Callable

from ..config import Settings
from .evented import Evented
from .greenlets import GreenletReactor
from .reactor import Reactor
from .threads import ThreadReactor
from .ws import Session, Start

logger = logging.getLogger("flask_e2emsg.sockets")


class Sockets:
    """The sockets of one process."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.max_frame_bytes, settings.write_timeout_seconds
        self._lock = threading.Lock()
        self._on_gevent: GreenletReactor | None = None
        self._on_threads: ThreadReactor | None = None

    def serve(
        self,
        session: Session,
        sock: socket.socket,
        early: bytes,
        start: Start,
        on_end: Callable[[], None],
        *,
        may_keep: bool,
    ) -> bool:
        """Serve an upgraded connection, until its end or beyond the end of its request.

        `may_keep`: whether its server lets the socket outlive the request.

        Whether it goes on: then `on_end` is called at its end, and the socket is no longer the
        server's.
        """
        reactor = self._reactor(sock)
        # What lies in a TLS socket beside its descriptor cannot be taken away.
        if may_keep and not isinstance(sock, ssl.SSLSocket):
            ours = _taken_away(sock)
            Evented(reactor, session, ours, early, *self._limits, on_end, is_ours=True).start(start)
            return True
        over = threading.Event()
        Evented(reactor, session, sock, early, *self._limits, over.set, is_ours=False).start(start)
        over.wait()
        return False

    def _reactor(self, sock: socket.socket) -> Reactor:
        with self._lock:
            if _is_of_gevent(sock):
                if self._on_gevent is None:
                    self._on_gevent = GreenletReactor()
                    logger.info("sockets are served on gevent's loop")
                return self._on_gevent
            if self._on_threads is None:
                self._on_threads = ThreadReactor()
                logger.info("sockets are served by a few threads: this server has no gevent loop")
            return self._on_threads


def _is_of_gevent(sock: socket.socket) -> bool:
    gevent_socket = sys.modules.get("gevent.socket")
    return gevent_socket is not None and isinstance(sock, gevent_socket.socket)


def _taken_away(sock: socket.socket) -> PlainSocket:
    """The connection as a socket of ours; the server is left with one that is nobody's."""
    if _is_of_gevent(sock):
        # gevent's loop knows descriptors by their numbers, so this one stays what it is.
        return PlainSocket(sock.family, sock.type, sock.proto, sock.detach())
    ours = PlainSocket(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
    dead, other = socket.socketpair()
    with dead, other:
        # gunicorn's threads count a connection twice as ended if its socket has no descriptor.
        os.dup2(dead.fileno(), sock.fileno())
    return ours
