"""How many sockets one process may hold, so that ordinary requests are answered beside them.

A server that has all the connections that it takes accepts nobody, not even a health check. What
clients hold on to therefore has to stay below that, and below the limit of open files.
"""

from __future__ import annotations

import contextlib
import sys

# gunicorn takes 1,000 connections if nobody says otherwise, and other servers say nothing.
UNKNOWN_SERVER = 1000
# For requests, pooled database connections, logs, listeners and what the host opens.
RESERVED_FILES = 200


def connections(served: int | None) -> int:
    """How many sockets a process holds whose server can serve so many connections at once."""
    room = _most_of(served)
    files = _file_limit()
    if files is not None:
        room = min(room, files - RESERVED_FILES)
    return max(room, 1)


def long_polls(answered: int | None) -> int:
    """How many requests may wait for news where the server can work at so many at once."""
    return max(_most_of(answered), 1)


def _most_of(number: int | None) -> int:
    return (UNKNOWN_SERVER if number is None else number) * 9 // 10


def allow_files(served: int) -> None:
    """Raise the soft limit of open files to what so many connections need, if the hard one lets.

    The usual soft limit of 1,024 would be the real limit of connections.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = served + RESERVED_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # A system may have a limit of its own.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _file_limit() -> int | None:
    """The soft limit of open files, where there is one."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
