"""gunicorn for a Flask app with sockets: `gunicorn -c example_app/gunicorn.conf.py`.

HOST and PORT say where it listens; gunicorn's own WEB_CONCURRENCY, how many workers it has: one is
right for SQLite.
"""

import os
import resource

from gunicorn.arbiter import Arbiter

from flask_e2emsg.gunicorn import *

wsgi_app = "example_app:create_app()"
bind = f"{os.environ.get('HOST') or '127.0.0.1'}:{os.environ.get('PORT') or '8000'}"

accesslog = "-"


def when_ready(server: Arbiter) -> None:
    """Say where to look, and let the workers have as many sockets as they may."""
    _raise_file_limit()
    for listener in server.LISTENERS:
        print(f"\n    flask_e2emsg example: {listener}\n    Ctrl+C stops it.\n", flush=True)


def _raise_file_limit() -> None:
    """The usual soft limit of 1024 files would be the real limit of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = worker_connections + 1000
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
