"""The acceptance tests' host, with a page that has the browser client in it."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, render_template_string

from tests.acceptance import host

PAGE = Path(__file__).with_name("page.html")


def create_app() -> Flask:
    """The host, and `/page`."""
    app = host.create_app()
    app.add_url_rule("/page", view_func=page)
    return app


def page() -> str:
    """A page without a look; the tests call what its script defines."""
    return render_template_string(PAGE.read_text())
