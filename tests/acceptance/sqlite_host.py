"""The host of the acceptance tests with settings of SQLite's connections in the hands of a test.

`SQLITE_PRAGMAS` in the environment, and later `POST /pragmas`, say as JSON what every connection is
set to whenever it is taken from its pool: `{"max_page_count": 1}` is a full disk.
"""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, Response, jsonify, request
from sqlalchemy import event
from sqlalchemy.pool import Pool

from tests.acceptance import host

SQLITE_HOST = "tests.acceptance.sqlite_host:create_app()"

_pragmas: dict[str, object] = {}


def create_app() -> Flask:
    """The application, configured from the environment."""
    _pragmas.update(json.loads(os.environ.get("SQLITE_PRAGMAS", "{}")))
    event.listen(Pool, "checkout", _set_pragmas)
    app = host.create_app()
    app.add_url_rule("/pragmas", view_func=change, methods=["POST"])
    return app


def change() -> Response:
    _pragmas.update(request.get_json())
    return jsonify(_pragmas)


def _set_pragmas(connection: Any, _record: object, _proxy: object) -> None:
    cursor = connection.cursor()
    for name, value in _pragmas.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()
