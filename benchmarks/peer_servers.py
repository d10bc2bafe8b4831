"""The peers as servers to measure; those that cannot run here are left out, and it is said why."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from .servers import Server

PACKAGE = "benchmarks.peers"


def peer_servers(say: Callable[[str], object]) -> dict[str, Server]:
    """The peers that run on this machine, by name."""
    if importlib.util.find_spec(PACKAGE) is None:
        say("Left out: the peers are not part of this tree.")
        return {}
    peers: Any = importlib.import_module(PACKAGE)
    try:
        peers.prepare()
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"Left out: what the peers need could not be installed. {error}")
        return {}
    return {peer.name: _server(peers, peer) for peer in peers.PEERS.values() if _can_run(peer, say)}


def _can_run(peer: Any, say: Callable[[str], object]) -> bool:
    if not peer.needs_node or shutil.which("node"):
        return True
    say(f"Left out: {peer.title} needs Node.js (node), which was not found.")
    return False


def _server(peers: Any, peer: Any) -> Server:
    def start(database_url: str, secret: str, port: int) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = peers.start(peer, database_url, secret, port)
        return process

    return Server(
        name=peer.name,
        title=peer.title,
        start=start,
        client_options=("--socketio",) if peer.is_socketio else (),
        table="messages",
        keeps_order=False,
    )
