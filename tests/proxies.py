"""A network that can be told to fail: cut, reset, stand still, crawl, or swallow an answer.

Connections that are forwarded are links. A link that is frozen or slow loses nothing; TCP passes
the standstill on to both ends. `swallow_answers` is for a database: the statement goes there, is
committed, and the link is cut before the answer is through.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Self

from sqlalchemy.engine import make_url

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing drops what was not sent, and resets
CHUNK_BYTES = 65536
SLOW_CHUNK_BYTES = 512

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass(frozen=True)
class TcpAddress:
    """Where a server listens."""

    host: str
    port: int

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)


@dataclass(frozen=True)
class UnixAddress:
    """Where a server listens that has no port."""

    path: str

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)


def dial_database(url: str) -> Dial:
    """How to reach the PostgreSQL of an SQLAlchemy address."""
    address = make_url(url)
    folder = address.query.get("host")
    if isinstance(folder, str) and folder.startswith("/"):
        return UnixAddress(f"{folder}/.s.PGSQL.{address.port or 5432}").dial
    return TcpAddress(address.host or "127.0.0.1", address.port or 5432).dial


def by_port(url: str, port: int) -> str:
    """The same database at a port of this machine."""
    plain = make_url(url).difference_update_query(["host"])
    there = plain.set(host="127.0.0.1", port=port)
    return there.render_as_string(hide_password=False)


class Link:
    """One connection through a proxy."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._writers = (near, far)
        self._may_flow = asyncio.Event()
        self._may_flow.set()
        self.bytes_per_second: int | None = None  # towards the client; None: as fast as it goes
        self.swallows_answer = False

    def freeze(self) -> None:
        self._may_flow.clear()

    def thaw(self) -> None:
        self._may_flow.set()

    def cut(self) -> None:
        """Reset both ends."""
        self.thaw()
        for writer in self._writers:
            end = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                if end.family != socket.AF_UNIX:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def flowing(self) -> None:
        await self._may_flow.wait()


class ChaosProxy:
    """Forwards a loopback port of its own to a server. Use it in an `async with` statement.

    Args:
        dial: How to reach the server.
        mark: Bytes by which a statement is known whose answer may be swallowed.
    """

    def __init__(self, dial: Dial, mark: bytes = b"") -> None:
        self._dial = dial
        self._marks = (mark, mark.hex().encode()) if mark else ()
        self._to_swallow = 0
        self._links: set[Link] = set()
        self._is_frozen = False
        self._server: asyncio.Server | None = None
        self.swallowed = 0

    @property
    def port(self) -> int:
        assert self._server is not None, "the proxy was not started"
        return int(self._server.sockets[0].getsockname()[1])

    def some(self, fraction: float, dice: random.Random) -> list[Link]:
        """A part of the links, at least one if there are any."""
        links = sorted(self._links, key=id)
        return dice.sample(links, min(len(links), max(1, round(fraction * len(links)))))

    def cut_all(self) -> None:
        for link in list(self._links):
            link.cut()

    def freeze_all(self) -> None:
        """Everything stands still, and what connects meanwhile, too."""
        self._is_frozen = True
        for link in self._links:
            link.freeze()

    def thaw_all(self) -> None:
        self._is_frozen = False
        for link in self._links:
            link.thaw()

    def swallow_answers(self, count: int) -> None:
        """Cut the links of the next marked statements when they were answered."""
        self._to_swallow = count

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._is_frozen = False
        self.cut_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, far_writer)
        if self._is_frozen:
            link.freeze()
        self._links.add(link)
        try:
            await asyncio.gather(
                self._forward(link, reader, far_writer), self._return(link, far_reader, writer)
            )
        finally:
            self._links.discard(link)
            for end in (writer, far_writer):
                end.close()

    async def _forward(
        self, link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        """From the client to the server."""
        try:
            while data := await source.read(CHUNK_BYTES):
                await link.flowing()
                if self._to_swallow and any(mark in data for mark in self._marks):
                    self._to_swallow -= 1
                    link.swallows_answer = True
                target.write(data)
                await target.drain()
            target.write_eof()
        except OSError:
            link.cut()

    async def _return(
        self, link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        """From the server to the client."""
        try:
            while data := await source.read(CHUNK_BYTES):
                await link.flowing()
                if link.swallows_answer:
                    self.swallowed += 1
                    link.cut()
                    return
                await _write_at_pace(link, data, target)
            target.write_eof()
        except OSError:
            link.cut()


async def _write_at_pace(link: Link, data: bytes, target: asyncio.StreamWriter) -> None:
    while data and link.bytes_per_second is not None:
        chunk, data = data[:SLOW_CHUNK_BYTES], data[SLOW_CHUNK_BYTES:]
        target.write(chunk)
        await target.drain()
        await asyncio.sleep(len(chunk) / link.bytes_per_second)
    target.write(data)
    await target.drain()


@contextlib.contextmanager
def in_background(proxy: ChaosProxy) -> Iterator[ChaosProxy]:
    """A proxy that runs on a thread, for tests without a loop of their own."""
    loop, over, is_ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def run() -> None:
        async with proxy:
            is_ready.set()
            await over.wait()

    def main() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=main, name="proxy")
    thread.start()
    try:
        is_ready.wait()
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
