"""The acceptance tests' host, with a page that has the browser client in it."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, send_file, send_from_directory

import flask_e2emsg
from tests.acceptance import host

MODULES = Path(flask_e2emsg.__file__).parent / "static"
PAGE = Path(__file__).with_name("page.html")


def create_app() -> Flask:
    """The host, and `/page`."""
    app = host.create_app()
    app.add_url_rule("/page", view_func=page)
    app.add_url_rule("/client/<path:name>", view_func=module)
    return app


def page() -> Response:
    """A page without a look; the tests call what its script defines."""
    return send_file(PAGE)


def module(name: str) -> Response:
    """One of the client's modules."""
    return send_from_directory(MODULES, name)
