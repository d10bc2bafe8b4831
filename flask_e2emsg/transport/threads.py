"""Two threads for one connection: the way that works on every server, and through TLS.

The reader (the request's own thread) decodes messages and gives them to the session; the writer, a
second thread, is the only one that writes. Under gevent both are greenlets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from .framing import Ended
from .pace import Turn
from .websocket import WebSocket
from .ws import Session, Start

GOODBYE_SECONDS = 1.0  # for the client to close as well
REST_SECONDS = 0.0001  # a read that waited so long for bytes has let others run


class Threads:
    """Reader and writer of one connection."""

    def __init__(self, session: Session, websocket: WebSocket) -> None:
        self._session = session
        self._pump = session.pump
        self._websocket = websocket
        self._stirred = Event()
        self._answered = Event()
        self._reader_ended = Event()
        self._pump.attach(self._stirred, self._answered)

    def run(self, start: Start) -> None:
        """Serve until the end. Whatever fails, the client gets a close frame."""
        writer = Thread(target=self._write_until_closed, daemon=True)
        with self._failing_as("opening"):
            self._session.begin(start)
            writer.start()
        if writer.ident is None:
            self._reader_ended.set()
            self._write_until_closed()
        else:
            self._read_until_closed()
            self._reader_ended.set()
            writer.join()
        self._websocket.linger()

    @contextmanager
    def _failing_as(self, what: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._session.failed(what, error)

    def _read_until_closed(self) -> None:
        with self._failing_as("reading"):
            try:
                self._read_loop()
            except Ended as ended:
                self._pump.close(1006 if ended.code is None else ended.code)

    def _read_loop(self) -> None:
        pump, websocket, turn = self._pump, self._websocket, Turn()
        while pump.close_code is None:
            texts = websocket.receive()
            if websocket.waited_seconds >= REST_SECONDS:
                turn.begin()
            for text in texts:
                if self._wait_for_room():
                    turn.begin()
                if pump.close_code is not None:
                    return
                self._session.handle(text)
                turn.worked(len(text))
            if websocket.has_pongs:
                self._stirred.set()

    def _wait_for_room(self) -> bool:
        """Wait until the client's answers keep up with its requests, or the end is near.

        Whether it had to wait.
        """
        has_waited = False
        while self._pump.is_full:
            self._answered.clear()
            if self._pump.is_full:
                self._answered.wait()
                has_waited = True
        return has_waited

    def _write_until_closed(self) -> None:
        pump, websocket = self._pump, self._websocket
        try:
            with self._failing_as("writing"):
                try:
                    self._write_loop()
                except OSError:
                    pump.close(4480)
                    websocket.abort()
            self._say_goodbye(pump.close_code or 1011)
        finally:
            if not self._reader_ended.is_set():
                websocket.abort()

    def _say_goodbye(self, code: int) -> None:
        if code != 1006:
            self._websocket.close(code)
        if code not in (1006, 4408):  # Those are gone; others may answer.
            self._reader_ended.wait(GOODBYE_SECONDS)

    def _write_loop(self) -> None:
        pump, websocket, session = self._pump, self._websocket, self._session
        while True:
            now = time.monotonic()
            session.silent_since = websocket.waiting_since
            session.end_if_due(now)
            if pump.close_code is not None:
                websocket.send(session.replies())
                return
            self._write_frames(websocket.take_pongs() + session.due(now))
            if self._stirred.wait(max(session.due_at - now, 0.0)):
                self._stirred.clear()

    def _write_frames(self, frames: list[bytes]) -> None:
        self._websocket.send(frames)
