"""Settings for gunicorn with live sockets: `from flask_e2emsg.gunicorn import *`.

Put that line first in a `gunicorn.conf.py`; what follows it overrides. A host with a
`post_worker_init` of its own calls `prepare_worker(worker)` from it.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from .collector import set_aside_what_lives

__all__ = [
    "access_log_format",
    "control_socket_disable",
    "graceful_timeout",
    "keepalive",
    "post_worker_init",
    "preload_app",
    "prepare_worker",
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
GOODBYE_SECONDS = 5.0
MIDDLEWARE_DEPTH = 10
_INNER = ("app", "wsgi_app", "application")


def post_worker_init(worker: Any) -> None:
    """Prepare a worker that has loaded its app, and leave Ctrl+C to the master."""
    # A terminal sends it to everybody: told to quit twice, a worker ends with a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_worker(worker)


def prepare_worker(worker: Any) -> None:
    """Fit messaging to the worker: its room, its end, and what is wrong with its settings.

    Every socket is closed with 1012 when the worker is told to stop. gunicorn does that by clearing
    `alive`, on SIGTERM, on SIGHUP and at `max_requests`, and would then wait for sockets that know
    nothing of it.
    """
    app = _flask_app(worker.wsgi)
    if app is None or "e2emsg" not in app.extensions:
        worker.log.warning("flask_e2emsg: no app with messaging was found in what is served.")
        return
    state = app.extensions["e2emsg"]
    _warn(worker, state)
    _make_room(worker, state)
    _outlast_sockets(worker, state)
    set_aside_what_lives()
    threading.Thread(target=_watch, args=(worker, state), name="e2emsg-drain").start()


def _warn(worker: Any, state: Any) -> None:
    # Not at the top: the master must not load what its workers need patched.
    from .server_checks import check_gunicorn

    for finding in check_gunicorn(worker.cfg, state.settings):
        if finding.is_problem:
            worker.log.warning("flask_e2emsg: %s", finding.advice)


def _make_room(worker: Any, state: Any) -> None:
    from .capacity import allow_files
    from .server_checks import answered_at_once, served_at_once

    served = served_at_once(worker.cfg)
    allow_files(served)
    state.prepare(served, answered_at_once(worker.cfg))


def _watch(worker: Any, state: Any) -> None:
    while worker.alive:
        time.sleep(WATCH_SECONDS)
    state.drain()


def _outlast_sockets(worker: Any, state: Any) -> None:
    """Let the worker end after its sockets: gunicorn knows only of those that a request holds."""
    run = worker.run

    def run_until_closed() -> None:
        run()
        deadline = time.monotonic() + GOODBYE_SECONDS
        while state.has_sockets() and time.monotonic() < deadline:
            time.sleep(WATCH_SECONDS / 10)

    worker.run = run_until_closed


def _flask_app(callable_: Any) -> Any:
    """The Flask app inside of what gunicorn serves, which may be wrapped in middleware."""
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
