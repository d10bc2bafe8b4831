"""The frames of a WebSocket without the socket (RFC 6455): bytes in, messages out.

What nearly all frames are, a whole text message in one masked frame, is read here, and so are the
answers to our pings. Everything else goes to `websockets`, whole frame by whole frame, and so does
whatever breaks the rules: that library decides what is wrong with it. A connection that never needs
the library has none of it.

Guarantees: a message is limited in bytes while it arrives; control frames and fragments are limited
in number; close reasons are fixed words.
"""

from __future__ import annotations

import logging
from collections import deque

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from .pace import Bucket

try:
    from websockets.speedups import apply_mask
except ImportError:  # No wheel of it was compiled for this platform.
    from websockets.utils import apply_mask

MAX_PONGS = 16
CONTROL_BURST = 64
CONTROL_PER_SECOND = 10.0  # pings and pongs
MAX_CONTROL_BYTES = 125  # RFC 6455, 5.5
MAX_FRAGMENTS = 64  # of one message
RECEIVE_BYTES = 8192  # all frames in them are parsed at once, while everybody else waits
FEW_BYTES = 512  # the same, of a client that sends many small frames which cost much
MANY_ODD_FRAMES = 8  # in so few bytes

_WHOLE_TEXT = 0x81
_PONG = 0x8A
_FIN = 0x80
_FRAGMENTS = (0x00, 0x01, 0x02)  # opcodes of which messages are made
_MASKED = 0x80  # beside the length; frames of a client always are
_TWO_BYTES, _EIGHT_BYTES = _MASKED | 126, _MASKED | 127

# websockets logs parts of frames at DEBUG; ciphertext and tokens must not get there. Nobody else
# can find this logger: a host that configures logging enables all that it finds.
_silent = logging.Logger("flask_e2emsg.frames", logging.CRITICAL + 1)

REASONS = {
    1000: "",
    1001: "going away",
    1002: "protocol error",
    1003: "text frames only",
    1007: "invalid UTF-8",
    1008: "policy violation",
    1009: "message too big",
    1011: "server fault",
    1012: "service restart",
    1013: "overload",
    4401: "token expired or revoked",
    4403: "forbidden",
    4408: "heartbeat missed",
    4429: "flooding",
    4480: "slow consumer",
}


class Ended(Exception):
    """There is nothing more to read.

    Attributes:
        code: what to close with; None when the peer is gone without a close frame.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class Decoder:
    """What comes from one client.

    Attributes:
        appetite: how many bytes to give it next.
        has_ended: whether nothing that comes is read any more.
    """

    __slots__ = (
        "_close_code",
        "_control",
        "_is_fragmented",
        "_max_bytes",
        "_odd",
        "_odd_frames",
        "_rest",
        "appetite",
        "has_ended",
    )

    def __init__(self, max_message_bytes: int) -> None:
        self.appetite = RECEIVE_BYTES
        self._odd_frames = 0  # in what was given last
        self._max_bytes = max_message_bytes
        self._rest = b""  # less than a frame
        self._odd: _OddFrames | None = None
        self._is_fragmented = False  # the message that is under way
        self._control: Bucket | None = None
        self.has_ended = False
        self._close_code: int | None = None  # why it has ended

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now, as valid UTF-8; no data is the end of the stream.

        Raises:
            Ended: the peer closed, broke the protocol, or is gone. What came before counts, even
                if it came with it: then the next call raises this.
        """
        messages: list[bytes] = []
        if not self.has_ended:
            self._odd_frames = 0
            try:
                self._take(data, messages)
            except Ended as ended:
                # Kept, it would keep us, through its traceback.
                self.has_ended, self._close_code = True, ended.code
            is_costly = self._odd_frames >= MANY_ODD_FRAMES * max(1, len(data) // FEW_BYTES)
            self.appetite = FEW_BYTES if is_costly else RECEIVE_BYTES
        if self.has_ended and not messages:
            raise Ended(self._close_code)
        return messages

    def close(self) -> None:
        """Forget what is unfinished: it is memory that otherwise only the collector finds."""
        if self._odd is not None:
            self._odd.close()

    @property
    def has_pongs(self) -> bool:
        """Whether take_pongs() has something to give."""
        return self._odd is not None and self._odd.has_pongs

    def take_pongs(self) -> list[bytes]:
        """What answers the pings that have come, to be written now."""
        return [] if self._odd is None else self._odd.take_pongs()

    def _take(self, data: bytes, messages: list[bytes]) -> None:
        if not data:
            raise Ended(None)
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= 2:
            first, start, length = data[at], at + 2, data[at + 1]
            if length >= _TWO_BYTES:
                start += 2 if length == _TWO_BYTES else 8
                if size < start:
                    break
                length = _MASKED + int.from_bytes(data[at + 2 : start], "big")
            length -= _MASKED
            if not 0 <= length <= self._max_bytes:
                # Unmasked or too long: nobody needs to wait for the rest of it.
                self._take_odd(data[at:], messages)
                return
            start += 4
            end = start + length
            if size < end:
                break
            if first == _WHOLE_TEXT and not self._is_fragmented:
                messages.append(_valid(apply_mask(data[start:end], data[start - 4 : start])))
            elif first == _PONG and length <= MAX_CONTROL_BYTES:
                if not self._control_frames().take():
                    raise Ended(4429)
            else:
                self._take_odd(data[at:end], messages)
            at = end
        self._rest = data[at:]

    def _take_odd(self, frame: bytes, messages: list[bytes]) -> None:
        if self._odd is None:
            self._odd = _OddFrames(self._max_bytes, self._control_frames())
        self._odd_frames += 1
        self._odd.take(frame, messages)
        if frame[0] & 0x0F in _FRAGMENTS:
            self._is_fragmented = not frame[0] & _FIN

    def _control_frames(self) -> Bucket:
        if self._control is None:
            self._control = Bucket(CONTROL_BURST, CONTROL_PER_SECOND)
        return self._control


class _OddFrames:
    """Control frames, fragments, and what is wrong: the library's part."""

    def __init__(self, max_message_bytes: int, control: Bucket) -> None:
        self._protocol = Protocol(Side.SERVER, max_size=max_message_bytes, logger=_silent)
        self._parts: list[bytes] = []
        self._control = control
        # Only the newest ping must be answered (RFC 6455, 5.5.3).
        self._pongs: deque[bytes] = deque(maxlen=MAX_PONGS)

    @property
    def has_pongs(self) -> bool:
        return bool(self._pongs)

    def close(self) -> None:
        # Its parser, and the error that it may have ended with, hold what holds them.
        vars(self._protocol).clear()

    def take_pongs(self) -> list[bytes]:
        return [self._pongs.popleft() for _ in range(len(self._pongs))]

    def take(self, data: bytes, messages: list[bytes]) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                message = self._message(event)
                if message is not None:
                    messages.append(message)
        protocol.data_to_send()  # Its answers carry its own words; ours are elsewhere.
        if protocol.close_rcvd is not None:
            # Also when it came between fragments, which the library takes for an error.
            code = int(protocol.close_rcvd.code)
            raise Ended(1000 if code in (1005, 1006) else code)
        if protocol.parser_exc is not None:
            sent = protocol.close_sent
            raise Ended(1002 if sent is None else int(sent.code))

    def _message(self, frame: Frame) -> bytes | None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.CONT:
            self._parts.append(bytes(frame.data))
            if not frame.fin:
                if len(self._parts) >= MAX_FRAGMENTS:
                    raise Ended(1008)
                return None
            text = b"".join(self._parts)
            self._parts.clear()
            return _valid(text)
        if frame.opcode is Opcode.BINARY:
            raise Ended(1003)
        if frame.opcode is not Opcode.CLOSE and not self._control.take():
            raise Ended(4429)
        if frame.opcode is Opcode.PING:
            self._pongs.append(Frame(Opcode.PONG, frame.data).serialize(mask=False))
        return None


def _valid(text: bytes) -> bytes:
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            raise Ended(1007) from None
    return text


def text_frame(text: bytes) -> bytes:
    """A text message as one unmasked frame."""
    size = len(text)
    if size < 126:
        return bytes((0x81, size)) + text
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text


def close_frame(code: int) -> bytes:
    """The last frame of a connection."""
    payload = code.to_bytes(2, "big") + REASONS.get(code, "").encode()
    return Frame(Opcode.CLOSE, payload).serialize(mask=False)


PING = Frame(Opcode.PING, b"").serialize(mask=False)
