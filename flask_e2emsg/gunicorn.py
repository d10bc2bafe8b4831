"""Settings for gunicorn with live sockets: `from flask_e2emsg.gunicorn import *`.

Put that line first in a `gunicorn.conf.py`; what follows it overrides. A host with a
`post_worker_init` of its own calls `close_sockets_on_exit(worker)` from it.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

__all__ = [
    "access_log_format",
    "close_sockets_on_exit",
    "control_socket_disable",
    "graceful_timeout",
    "keepalive",
    "post_worker_init",
    "preload_app",
    "worker_class",
    "worker_connections",
]

worker_class = "gevent"
worker_connections = 10_000  # sockets and requests of one worker; beyond it nobody is answered
preload_app = False  # a driver that is loaded before gevent's patches blocks everybody
graceful_timeout = 10  # seconds; sockets are closed within one
keepalive = 5  # seconds; 0 would let a slow header stay for ever
control_socket_disable = True
# The query of an upgrade may carry a token, so no query is logged.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms'

WATCH_SECONDS = 0.1
MIDDLEWARE_DEPTH = 10
_INNER = ("app", "wsgi_app", "application")


def post_worker_init(worker: Any) -> None:
    """Watch a worker that has loaded its app, and leave Ctrl+C to the master."""
    # A terminal sends it to everybody: told to quit twice, a worker ends with a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    close_sockets_on_exit(worker)


def close_sockets_on_exit(worker: Any) -> None:
    """Close every socket with 1012 when the worker is told to stop.

    gunicorn tells a worker to stop by clearing `alive`, on SIGTERM, on SIGHUP and at
    `max_requests`, and would then wait for sockets that know nothing of it.
    """
    app = _flask_app(worker.wsgi)
    if app is not None and "e2emsg" in app.extensions:
        state = app.extensions["e2emsg"]
        threading.Thread(target=_watch, args=(worker, state), name="e2emsg-drain").start()


def _watch(worker: Any, state: Any) -> None:
    while worker.alive:
        time.sleep(WATCH_SECONDS)
    state.drain()


def _flask_app(callable_: Any) -> Any:
    """The Flask app inside of what gunicorn serves, which may be wrapped in middleware."""
    # Not at the top: the master must not load what its workers need patched.
    from flask import Flask

    for _ in range(MIDDLEWARE_DEPTH):
        if isinstance(callable_, Flask):
            return callable_
        callable_ = next(
            (getattr(callable_, name) for name in _INNER if hasattr(callable_, name)), None
        )
        # A bound `Flask.wsgi_app` is what `ProxyFix(app.wsgi_app)` wraps.
        callable_ = getattr(callable_, "__self__", callable_)
    return None
