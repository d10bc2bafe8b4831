"""Many live clients at once, and requests beside them, for what happens to a crowd.

`Residents` stay connected: whoever loses its socket comes back and resumes at its cursor. Each
notes how long it was away, and with which close code it was sent away. `Visitors` ask for a plain
page, again and again, and note what went wrong.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.acceptance.people import Person
from tests.acceptance.wire import parse_server_frame
from tests.servers import wait_until

ARRIVAL_SECONDS = 30.0
VISIT_SECONDS = 15.0


@dataclass
class Resident:
    """One client, and what it has lived through."""

    url: str
    token: str = field(repr=False)
    arrivals: list[float] = field(default_factory=list)  # seconds from wanting in to `hello`
    refusals: list[int] = field(default_factory=list)  # statuses in place of a 101
    closed_with: list[int] = field(default_factory=list)
    received: dict[int, str] = field(default_factory=dict)  # message ids by position
    is_live: bool = False
    _epoch: str = ""
    _position: int = 0
    _wanted_in_at: float = 0.0

    async def live(self) -> None:
        """Be connected until cancelled."""
        self._wanted_in_at = time.monotonic()
        while True:
            try:
                await self._visit()
            except InvalidStatus as refused:
                self.refusals.append(refused.response.status_code)
            except (OSError, InvalidHandshake, ConnectionClosed, EOFError):
                pass
            self.is_live = False
            await asyncio.sleep(random.uniform(0.05, 0.2))

    async def _visit(self) -> None:
        cursor = f"?cursor={self._epoch}:{self._position}" if self._epoch else ""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with connect(
            self.url + cursor,
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            open_timeout=ARRIVAL_SECONDS,
            proxy=None,
        ) as socket:
            hello = parse_server_frame(str(await socket.recv()))
            assert not hello["reset"], hello
            self._epoch, self._position = hello["epoch"], max(self._position, hello["after"])
            self.arrivals.append(time.monotonic() - self._wanted_in_at)
            self.is_live = True
            try:
                while True:
                    if self._take(str(await socket.recv())):
                        await socket.send(f'{{"type": "ack", "seq": {self._position}}}')
            except ConnectionClosed:
                self.closed_with.append(socket.close_code or 1006)
                self._wanted_in_at = time.monotonic()
                raise

    def _take(self, text: str) -> bool:
        """Whether it was a message, which is to be acknowledged."""
        frame = parse_server_frame(text)
        if frame["type"] != "message":
            return False
        assert self.received.setdefault(frame["seq"], frame["id"]) == frame["id"]
        self._position = max(self._position, frame["seq"])
        return True


class Residents:
    """So many sockets of each person, on an event loop of their own."""

    def __init__(self, people: Sequence[Person], sockets_each: int = 1) -> None:
        self.all = [
            Resident(person.server.ws_url, str(person.rest.token))
            for person in people
            for _ in range(sockets_each)
        ]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._living: list[Future[None]] = []

    @property
    def arrivals(self) -> list[float]:
        """How long everybody's connecting took, shortest first."""
        return sorted(seconds for one in self.all for seconds in one.arrivals)

    @property
    def refusals(self) -> set[int]:
        """The statuses that anybody got in place of a 101."""
        return {status for one in self.all for status in one.refusals}

    def wait_until_all_are_live(self, arrivals: int = 0) -> None:
        """Everybody has a socket, after so many arrivals each at least; nobody has failed.

        Who has not yet noticed that its socket is lost passes for live.
        """
        wait_until(
            lambda: all(one.is_live and len(one.arrivals) >= arrivals for one in self.all),
            ARRIVAL_SECONDS,
            lambda: f"{sum(one.is_live for one in self.all)} of {len(self.all)} are live",
        )
        self.check()

    def check(self) -> None:
        """Raise what a resident has failed with."""
        for future in self._living:
            if future.done():
                future.result()

    def __enter__(self) -> Self:
        self._thread.start()
        self._living = [
            asyncio.run_coroutine_threadsafe(one.live(), self._loop) for one in self.all
        ]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(ARRIVAL_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ARRIVAL_SECONDS)
        self._loop.close()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Visitors:
    """Threads that ask for a page until the end, each time over a new connection."""

    def __init__(self, url: str, threads: int = 3, pause: float = 0.01) -> None:
        self.failures: list[str] = []
        self.answered = 0
        self._address = urlsplit(url)
        self._pause = pause
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(VISIT_SECONDS)

    def _run(self) -> None:
        while not self._ended.wait(self._pause):
            try:
                status = visit(f"http://{self._address.netloc}/")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            else:
                self.answered += 1
                if status != 200:
                    self.failures.append(str(status))


def visit(url: str) -> int:
    """The status of one GET."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(
        str(address.hostname), address.port, timeout=VISIT_SECONDS
    )
    try:
        connection.request("GET", address.path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def p99(seconds: Sequence[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    assert seconds, "nothing was measured"
    return sorted(seconds)[max(0, -(-len(seconds) * 99 // 100) - 1)]
