"""A load client that costs little: raw sockets, one selector, frames recognised by their bytes.

Every pair is a sender that keeps `window` messages unanswered and a recipient that acknowledges
what it gets. Counts what was answered and what was delivered, and how long each took.
"""

from __future__ import annotations

import base64
import os
import selectors
import socket
import time
import uuid
from collections import deque
from dataclasses import dataclass, field

READ_BYTES = 262144
ACK_EVERY = 32


@dataclass
class Result:
    """What one run saw. Latencies in milliseconds."""

    accepted: int = 0
    delivered: int = 0
    seconds: float = 0.0
    accept_ms: list[float] = field(default_factory=list)
    deliver_ms: list[float] = field(default_factory=list)


class Peer:
    """One socket: its handshake, and the frames that come in."""

    def __init__(self, port: int, token: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /api/ws?token={token} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise ConnectionError(head.decode("latin-1"))

    def frames(self) -> list[bytes]:
        """The complete frames that have come; waits for the first bytes."""
        self._buffer += self._read()
        found, buffer, at = [], self._buffer, 0
        while len(buffer) - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if len(buffer) < start + size:
                break
            found.append(buffer[start : start + size])
            at = start + size
        self._buffer = buffer[at:]
        return found

    def send(self, text: bytes) -> None:
        """Send one text frame; a mask of zeros is a mask."""
        size = len(text)
        head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
        self.socket.sendall(head + b"\0\0\0\0" + text)

    def _read(self) -> bytes:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the server closed")
        return data


class Pair:
    """A sender and its recipient."""

    def __init__(self, sender: Peer, recipient: Peer, to: str, content: str, result: Result):
        self.sender, self.recipient, self._result = sender, recipient, result
        self._tail = f'","to":"{to}","encrypted_content":"{content}"}}'.encode()
        self._sent: dict[bytes, float] = {}
        self._answered: deque[bytes] = deque(maxlen=4096)
        self._unacknowledged = 0

    def send(self) -> None:
        """Send one more message."""
        message_id = str(uuid.uuid4()).encode()
        self._sent[message_id] = time.perf_counter()
        self.sender.send(b'{"type":"send","id":"' + message_id + self._tail)

    def answers(self, *, go_on: bool) -> None:
        """Take what came to the sender; each answer makes room for one more message."""
        moment = time.perf_counter()
        for frame in self.sender.frames():
            if frame.startswith(b'{"type":"accepted","id":"'):
                self._result.accepted += 1
                self._result.accept_ms.append((moment - self._sent[frame[25:61]]) * 1000)
                if go_on:
                    self.send()
            elif frame.startswith(b'{"type":"receipt"'):
                self.sender.send(b'{"type":"ack","seq":' + _seq(frame) + b"}")
            elif frame.startswith(b'{"type":"error"'):
                raise ConnectionError(frame.decode())

    def deliveries(self) -> None:
        """Take what came to the recipient, and acknowledge it."""
        moment, seq = time.perf_counter(), b""
        for frame in self.recipient.frames():
            if frame.startswith(b'{"type":"message"'):
                self._result.delivered += 1
                at = frame.index(b'"id":"') + 6
                self._result.deliver_ms.append((moment - self._sent[frame[at : at + 36]]) * 1000)
                seq = _seq(frame)
        if seq:
            self.recipient.send(b'{"type":"ack","seq":' + seq + b"}")


def _seq(frame: bytes) -> bytes:
    at = frame.index(b'"seq":') + 6
    return frame[at : frame.index(b",", at)]


def run(pairs: list[Pair], result: Result, window: int, seconds: float) -> Result:
    """Drive the pairs for some seconds, then wait until everything has arrived."""
    selector = selectors.DefaultSelector()
    for pair in pairs:
        selector.register(pair.sender.socket, selectors.EVENT_READ, (pair, True))
        selector.register(pair.recipient.socket, selectors.EVENT_READ, (pair, False))
        for _ in range(window):
            pair.send()
    began = time.perf_counter()
    ends, gives_up, sent = began + seconds, began + seconds + 30, window * len(pairs)
    while (moment := time.perf_counter()) < gives_up:
        for key, _ in selector.select(0.05):
            pair, is_sender = key.data
            if is_sender:
                pair.answers(go_on=moment < ends)
            else:
                pair.deliveries()
        if moment >= ends:
            if not result.seconds:
                result.seconds, sent = moment - began, result.accepted
            if result.delivered >= result.accepted and result.accepted >= sent + window:
                break
            if result.delivered == result.accepted and moment > ends + 1:
                break
    return result
