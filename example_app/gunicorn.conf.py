"""gunicorn for a Flask app with sockets: `gunicorn -c example_app/gunicorn.conf.py`.

HOST and PORT say where it listens; gunicorn's own WEB_CONCURRENCY, how many workers it has: one is
right for SQLite.
"""

import os
import resource
import signal

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

wsgi_app = "example_app:create_app()"
bind = f"{os.environ.get('HOST') or '127.0.0.1'}:{os.environ.get('PORT') or '8000'}"

worker_class = "gevent"
# Counts every open connection: a full worker would not even answer its health check.
worker_connections = 10_000
# Workers load the app after gevent has patched them; psycopg loaded earlier would block them all.
preload_app = False

timeout = 30  # seconds without a sign of life from a worker's event loop
graceful_timeout = 10  # seconds for requests and sockets to end, before they are cut
keepalive = 5  # seconds; also ends a client that is slow to send its headers, 0 would not

# A socket's query string can carry a token: the method, the path and the protocol, no more.
access_log_format = '%(t)s %(h)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms'
accesslog = "-"

control_socket_disable = True  # nobody asked for a second way in


def when_ready(server: Arbiter) -> None:
    """Say where to look, and let the workers have as many sockets as they may."""
    _raise_file_limit()
    for listener in server.LISTENERS:
        print(f"\n    flask_e2emsg example: {listener}\n    Ctrl+C stops it.\n", flush=True)


def post_worker_init(worker: Worker) -> None:
    """Leave Ctrl+C to the master."""
    # A terminal sends it to everybody: told to quit twice, a worker ends with a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _raise_file_limit() -> None:
    """The usual soft limit of 1024 files would be the real limit of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = worker_connections + 1000
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
