"""An echo whose sockets are on gevent's loop.

`python -m gevent.monkey --module tests.transport.evented_echo SIZE` takes messages of up to so many
bytes, prints its address, and serves until it is terminated.
"""

from __future__ import annotations

import socket
import sys
import threading

from flask_e2emsg.transport.greenlets import GreenletReactor
from tests.transport.peers import Echo, EchoServer, serve


def main(max_message_bytes: int) -> None:
    """Serve until terminated."""
    reactor = GreenletReactor()

    def greet(sock: socket.socket, limit: int) -> None:
        serve(sock, limit, Echo(), reactor=reactor)

    with EchoServer(max_message_bytes, greet) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
