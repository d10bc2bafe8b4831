"""RFC 6455 as the Autobahn test suite judges it, against an echo on our `WebSocket`.

Left out are the cases that need what we do not take: binary messages (1.2, 9.2, 9.4, 9.6, 9.8),
compression (12, 13), and messages in more than 64 fragments (9.3.1 to 9.3.5).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import kosoku
import pytest

from flask_e2emsg.transport.framing import REASONS
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


@pytest.mark.parametrize("group", GROUPS)
def test_the_socket_conforms_to_rfc_6455(group: str) -> None:
    with EchoServer(LARGEST_CASE_BYTES) as server:
        try:
            results = asyncio.run(run(server.url, GROUPS[group]))
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
