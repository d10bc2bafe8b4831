"""RFC 6455 as the Autobahn test suite judges it, against echoes on both kinds of our sockets.

Left out are the cases that need what we do not take: binary messages (1.2, 9.2, 9.4, 9.6, 9.8),
compression (12, 13), and messages in more than 64 fragments (9.3.1 to 9.3.5).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import kosoku
import pytest

from flask_e2emsg.transport.framing import REASONS
from tests.servers import REPOSITORY
from tests.transport.peers import EchoServer

if TYPE_CHECKING:
    from kosoku._kosoku import CaseResult

LARGEST_CASE_BYTES = 16 * 1024 * 1024
GROUPS = {
    "framing": ["1.1.*"],
    "pings and pongs": ["2.*"],
    "reserved bits": ["3.*"],
    "opcodes": ["4.*"],
    "fragmentation": ["5.*"],
    "UTF-8": ["6.*"],
    "closing": ["7.*"],
    "large messages": ["9.1.*", "9.5.*", "9.7.*"],
    "large fragments": ["9.3.6", "9.3.7", "9.3.8", "9.3.9"],
    "fragmentation by the sender": ["10.*"],
}


@contextmanager
def echo_with_threads() -> Iterator[str]:
    with EchoServer(LARGEST_CASE_BYTES) as server:
        yield server.url


@contextmanager
def echo_on_the_loop() -> Iterator[str]:
    command = ["-m", "gevent.monkey", "--module", "tests.transport.evented_echo"]
    with subprocess.Popen(
        [sys.executable, *command, str(LARGEST_CASE_BYTES)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.mark.parametrize("echo", [echo_with_threads, echo_on_the_loop])
@pytest.mark.parametrize("group", GROUPS)
def test_the_socket_conforms_to_rfc_6455(
    group: str, echo: Callable[[], AbstractContextManager[str]]
) -> None:
    with echo() as url:
        try:
            results = asyncio.run(run(url, GROUPS[group]))
        except kosoku.FailureError as failure:
            results = failure.results
    failed = {
        one.case_id: (one.behavior.value, one.behavior_close.value, one.description)
        for one in results
        if not one.passed
    }
    assert not failed
    assert len(results) > 0
    # Reasons are fixed words, never library text or what the peer wrote.
    assert {one.remote_close_reason or "" for one in results} <= set(REASONS.values())


async def run(url: str, cases: list[str]) -> list[CaseResult]:
    return list(await kosoku.run_fuzzingclient(url, cases, concurrency=8))
