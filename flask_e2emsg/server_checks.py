"""What is wrong with a gunicorn configuration for sockets, and the cure for each.

Two use it: `flask e2emsg doctor --gunicorn …` before a start, and every worker at its start.
Settings that this version of gunicorn does not have are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .config import Settings

GUNICORN_CONNECTIONS = 1000  # its own default
MIN_THREADS = 10
RARELY = 100_000  # requests after which a new worker is no nuisance

# Everything in an access log that can hold a query or a credential.
_SECRET_ATOMS = re.compile(
    r"%\((?:[rqf]"
    r"|\{(?:authorization|cookie|referer|sec-websocket-protocol|proxy-authorization)\}i"
    r"|\{(?:query_string|raw_uri|request_uri|http_authorization|http_cookie|http_referer"
    r"|http_sec_websocket_protocol)\}e"
    r"|\{set-cookie\}o)\)s",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that somebody should know: a problem, or only a note."""

    advice: str  # what is wrong, and what to do
    is_problem: bool = True


def kind_of_worker(cfg: Any) -> str | None:
    """`gevent` or `gthread`, or None for one that cannot serve sockets.

    Raises:
        RuntimeError: gunicorn cannot load the class.
    """
    names = {one.__name__ for one in cfg.worker_class.__mro__}
    if "GeventPyWSGIWorker" in names:
        return None  # It hides the socket from the app.
    return "gevent" if "GeventWorker" in names else "gthread" if "ThreadWorker" in names else None


def served_at_once(cfg: Any) -> int:
    """How many connections one worker can have at the same time, sockets and requests together."""
    return answered_at_once(cfg) if _holds_threads(cfg) else int(cfg.worker_connections)


def answered_at_once(cfg: Any) -> int:
    """How many requests one worker can work at, at the same time."""
    if kind_of_worker(cfg) == "gthread":
        return min(int(cfg.threads), int(cfg.worker_connections))
    return int(cfg.worker_connections)


def _holds_threads(cfg: Any) -> bool:
    """Whether each open socket keeps one of gunicorn's threads: it cannot be taken out of TLS."""
    return kind_of_worker(cfg) == "gthread" and bool(cfg.is_ssl)


def check_gunicorn(cfg: Any, settings: Settings) -> Iterator[Finding]:
    """The findings for gunicorn's configuration, `gunicorn.config.Config`."""
    try:
        kind = kind_of_worker(cfg)
    except RuntimeError:
        yield Finding(
            f"worker_class {cfg.worker_class_str!r} cannot be loaded: install `gunicorn[gevent]`."
        )
        return
    if kind is None:
        yield Finding(
            f"worker_class {cfg.worker_class_str!r} cannot serve sockets: use gevent, or gthread."
        )
    yield from _check_room(cfg, settings, kind)
    yield from _check_life(cfg, kind)
    yield from _check_exposure(cfg)
    yield from _check_drain(cfg)
    if cfg.workers > 1:
        yield per_process(int(cfg.workers))


def per_process(workers: int) -> Finding:
    """What several workers mean for what counts in each of them."""
    return Finding(
        f"{workers} workers: E2EMSG_MAX_CONNECTIONS is the room of each of them. How they wake "
        "each other is in docs/integration.md, `Several workers`.",
        is_problem=False,
    )


def _check_room(cfg: Any, settings: Settings, kind: str | None) -> Iterator[Finding]:
    holds_threads = kind is not None and _holds_threads(cfg)
    if holds_threads:
        yield Finding(
            f"TLS ends in gunicorn, and threads = {cfg.threads}: every open socket holds one. Let "
            "a proxy end TLS, or use gevent, or set threads to more than the sockets that one "
            "worker shall have.",
            is_problem=cfg.threads < MIN_THREADS,
        )
    elif kind == "gthread" and cfg.threads < MIN_THREADS:
        yield Finding(
            f"threads = {cfg.threads}: every request and every long poll holds a thread. "
            "Set threads to 32."
        )
    if kind is not None and not holds_threads and cfg.worker_connections <= GUNICORN_CONNECTIONS:
        yield Finding(
            f"worker_connections = {cfg.worker_connections}: sockets and requests together cannot "
            "be more, and beyond it nobody is answered. Set it to 10000."
        )
    most = settings.max_connections
    if kind is not None and most is not None and served_at_once(cfg) <= most:
        limit = "threads" if holds_threads else "worker_connections"
        yield Finding(
            f"E2EMSG_MAX_CONNECTIONS = {most}, but a worker serves {served_at_once(cfg)} "
            f"connections: full of sockets, it answers no request. Set {limit} well above it."
        )


def _check_life(cfg: Any, kind: str | None) -> Iterator[Finding]:
    if cfg.keepalive == 0:
        yield Finding("keepalive = 0: a slow header may stay for ever. Set it to 5.")
    if cfg.preload_app and kind == "gevent":
        yield Finding(
            "preload_app: the app is loaded before gevent patches the worker, and then its "
            "database driver blocks everybody. Leave it off."
        )
    if cfg.max_requests > 0:
        yield Finding(
            f"max_requests = {cfg.max_requests}: after so many requests a worker ends, and all of "
            f"its sockets are closed with 1012. Set it to 0, or to {RARELY} or more.",
            is_problem=cfg.max_requests < RARELY,
        )
    if cfg.timeout == 0:
        yield Finding("timeout = 0: a worker that hangs is never replaced. Set it to 30.")
    if cfg.graceful_timeout == 0:
        yield Finding(
            "graceful_timeout = 0: sockets and requests are cut off when a worker stops. "
            "Set it to 10."
        )


def _check_exposure(cfg: Any) -> Iterator[Finding]:
    if "control_socket_disable" in cfg.settings and not cfg.control_socket_disable:
        yield Finding(
            "The control socket is open, a second way to steer the server. "
            "Set control_socket_disable = True."
        )
    is_written = cfg.accesslog or cfg.syslog or cfg.logconfig or cfg.logconfig_dict
    found = sorted({match[0] for match in _SECRET_ATOMS.finditer(cfg.access_log_format)})
    if is_written and found:
        yield Finding(
            f"access_log_format has {' '.join(found)}, which can write a token into the log. "
            'Use %(m)s %(U)s %(H)s in place of "%(r)s", and leave the others out.'
        )


def _check_drain(cfg: Any) -> Iterator[Finding]:
    hook = cfg.post_worker_init
    if hook.__module__ == "gunicorn.config":
        yield Finding(
            "There is no post_worker_init: sockets are cut off when a worker stops, and nothing "
            "limits them to what it can serve. Begin the configuration file with "
            "`from flask_e2emsg.gunicorn import *`."
        )
    elif hook.__module__ != "flask_e2emsg.gunicorn" and not _calls_us(hook):
        yield Finding(
            "post_worker_init is your own, and does not call `prepare_worker(worker)` of "
            "flask_e2emsg.gunicorn itself. Without it sockets are cut off when a worker stops."
        )


def _calls_us(hook: Any) -> bool:
    code = getattr(hook, "__code__", None)
    return code is not None and "prepare_worker" in code.co_names
