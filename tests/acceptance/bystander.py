"""A client in a process of its own: `python -m tests.acceptance.bystander WS_URL USER_ID COUNT`.

Reads a token from its standard input, opens so many connections, says so, and stays.
"""

from __future__ import annotations

import signal
import sys

from tests.acceptance.client import SocketClient


def stay(ws_url: str, user_id: str, count: int) -> None:
    """Open the connections and wait for the end."""
    headers = {"Authorization": f"Bearer {sys.stdin.readline().strip()}"}
    clients = [SocketClient(ws_url, user_id, headers=headers) for _ in range(count)]
    print(f"all are there: {len(clients)}", flush=True)
    signal.pause()


if __name__ == "__main__":
    stay(sys.argv[1], sys.argv[2], int(sys.argv[3]))
