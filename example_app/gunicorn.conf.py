"""gunicorn for a Flask app with sockets: `gunicorn -c example_app/gunicorn.conf.py`.

HOST and PORT say where it listens; gunicorn's own WEB_CONCURRENCY, how many workers it has: one is
right for SQLite.
"""

import os

from gunicorn.arbiter import Arbiter

from flask_e2emsg.gunicorn import *

wsgi_app = "example_app:create_app()"
bind = f"{os.environ.get('HOST') or '127.0.0.1'}:{os.environ.get('PORT') or '8000'}"

accesslog = "-"


def when_ready(server: Arbiter) -> None:
    """Say where to look."""
    for listener in server.LISTENERS:
        print(f"\n    flask_e2emsg example: {listener}\n    Ctrl+C stops it.\n", flush=True)
