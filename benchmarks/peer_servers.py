"""The peers as servers to measure; those that cannot run here are left out, and it is said why."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable

from . import peers
from .peers import Peer
from .servers import Server

NODE = ("node", "npm")


def peer_servers(say: Callable[[str], object]) -> dict[str, Server]:
    """The peers that run on this machine, by name."""
    try:
        peers.prepare()
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"Left out: what the peers need could not be installed. {error}")
        return {}
    return {peer.name: _server(peer) for peer in peers.PEERS.values() if _can_run(peer, say)}


def _can_run(peer: Peer, say: Callable[[str], object]) -> bool:
    missing = [program for program in NODE if peer.needs_node and shutil.which(program) is None]
    if missing:
        say(f"Left out: {peer.title} needs Node.js, of which {' and '.join(missing)} is missing.")
    return not missing


def _server(peer: Peer) -> Server:
    return Server(
        name=peer.name,
        title=peer.title,
        start=functools.partial(peers.start, peer),
        client_options=("--socketio",) if peer.is_socketio else (),
        table="messages",
        keeps_order=False,
    )
