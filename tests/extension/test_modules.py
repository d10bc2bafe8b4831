"""The browser client's files: who gets them, and what a template says about them."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha384

import pytest
from flask import Flask, render_template_string
from werkzeug.test import TestResponse

from flask_e2emsg import E2EMessaging
from flask_e2emsg.transport.modules import FOLDER
from tests.extension.apps import prepared_app

LINK = re.compile(r'<link rel="modulepreload" href="([^"]+)" integrity="([^"]+)">')


@pytest.fixture
def app(closing: Callable[[Flask], Flask]) -> Flask:
    app, db = prepared_app(E2EMSG_URL_PREFIX="/talk")
    E2EMessaging().init_app(closing(app), db)
    return app


def fetch(app: Flask, address: str, **headers: str) -> TestResponse:
    response = app.test_client().get(address, headers=headers)
    response.get_data()
    response.close()
    return response


def test_a_page_preloads_every_module_with_the_hash_of_what_is_served(app: Flask) -> None:
    with app.test_request_context():
        links = LINK.findall(render_template_string("{{ e2emsg_modules() }}"))
    assert {address for address, _ in links} == {
        f"/talk/static/{file.name}" for file in FOLDER.glob("*.js")
    }
    for address, integrity in links:
        served = fetch(app, address)
        assert served.mimetype in ("text/javascript", "application/javascript")
        assert integrity == "sha384-" + b64encode(sha384(served.data).digest()).decode()


def test_the_files_need_no_token_and_may_be_kept_as_long_as_they_are_asked_about(
    app: Flask,
) -> None:
    served = fetch(app, "/talk/static/e2emsg.js")
    assert served.status_code == 200
    assert served.headers["Cache-Control"] == "no-cache"
    known = {"If-None-Match": served.headers["ETag"]}
    assert fetch(app, "/talk/static/e2emsg.js", **known).status_code == 304


@pytest.mark.parametrize("name", ["nothing.js", "../config.py", "..%2fconfig.py", ""])
def test_there_is_nothing_else_in_the_folder(app: Flask, name: str) -> None:
    assert fetch(app, f"/talk/static/{name}").status_code == 404
