"""The example host: its users, its settings and its landing page, without a server."""

import re
import secrets
import stat
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_jwt_extended import decode_token
from sqlalchemy import make_url
from werkzeug.test import TestResponse

from example_app import create_app, passwords
from example_app.models import User, db
from example_app.settings import database_url, kept_secret
from tests.acceptance.envelopes import envelope
from tests.acceptance.wire import to_base64url

ALICE = {"username": "alice", "password": "correct horse"}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'example.db'}")
    monkeypatch.setenv("JWT_SECRET_KEY", "a secret of the tests, long enough")
    app = create_app({"TESTING": True})
    with app.app_context():
        db.create_all()
    yield app
    app.extensions["e2emsg"].database.dispose()
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def error_of(response: TestResponse) -> tuple[int, str]:
    body = response.get_json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["message"]
    return response.status_code, body["error"]["code"]


class TestRegister:
    def test_a_new_user_gets_a_token_of_their_own(self, app: Flask, client: FlaskClient) -> None:
        response = client.post("/api/register", json=ALICE)
        assert response.status_code == 201
        body = response.get_json()
        assert set(body) == {"access_token", "user_id"}
        with app.app_context():
            claims = decode_token(body["access_token"])
        assert claims["sub"] == body["user_id"]
        assert claims["type"] == "access"

    def test_the_user_id_is_text_and_the_answer_is_not_cached(self, client: FlaskClient) -> None:
        response = client.post("/api/register", json=ALICE)
        assert isinstance(response.get_json()["user_id"], str)
        assert response.headers["Cache-Control"] == "no-store"

    def test_only_a_hash_of_the_password_is_stored(self, app: Flask, client: FlaskClient) -> None:
        client.post("/api/register", json=ALICE)
        with app.app_context():
            stored = db.session.scalars(db.select(User.password_hash)).one()
        assert stored.startswith("$argon2id$")

    def test_a_taken_name_is_409(self, client: FlaskClient) -> None:
        client.post("/api/register", json=ALICE)
        again = client.post("/api/register", json=ALICE | {"password": "another one"})
        assert error_of(again) == (409, "username_taken")

    def test_another_spelling_of_a_name_is_the_same_name(self, client: FlaskClient) -> None:
        client.post("/api/register", json=ALICE | {"username": "zo\u00eb"})
        again = client.post("/api/register", json=ALICE | {"username": "zoe\u0308"})
        assert error_of(again) == (409, "username_taken")

    @pytest.mark.parametrize(
        "change",
        [
            {"username": ""},
            {"username": "a b"},
            {"username": "a\0"},
            {"username": "a" * 81},
            {"username": 1},
            {"password": "seven 7"},
            {"password": "p" * 129},
            {"password": None},
        ],
        ids=str,
    )
    def test_unusable_credentials_are_400(
        self, client: FlaskClient, change: dict[str, Any]
    ) -> None:
        assert error_of(client.post("/api/register", json=ALICE | change)) == (400, "bad_request")


class TestLogin:
    def test_the_right_password_gives_a_token_of_the_same_user(self, client: FlaskClient) -> None:
        registered = client.post("/api/register", json=ALICE)
        response = client.post("/api/login", json=ALICE)
        assert response.status_code == 200
        assert response.get_json()["user_id"] == registered.get_json()["user_id"]
        assert response.get_json()["access_token"]

    def test_an_unknown_user_and_a_wrong_password_look_the_same(self, client: FlaskClient) -> None:
        client.post("/api/register", json=ALICE)
        wrong = client.post("/api/login", json=ALICE | {"password": "wrong horse"})
        unknown = client.post("/api/login", json=ALICE | {"username": "bob"})
        assert error_of(wrong) == error_of(unknown) == (401, "unauthorized")
        assert wrong.data == unknown.data

    def test_an_unknown_user_costs_one_hash_too(
        self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[str] = []

        def always_matches(kept: str, given: str) -> bool:
            tried.append(kept)
            return True

        monkeypatch.setattr(passwords, "_matches", always_matches)
        response = client.post("/api/login", json={"username": "bob", "password": "anything"})
        assert error_of(response) == (401, "unauthorized")
        assert [kept.startswith("$argon2id$") for kept in tried] == [True]


@pytest.mark.parametrize("path", ["/api/register", "/api/login"])
class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"username=alice&password=x",
            b'{"username": "alice"}',
            b'{"username": "alice", "password": "\\ud800 lone surrogate"}',
            b'{"username": "\xff", "password": "not UTF-8"}',
            b'{"x": ' + b"[" * 4000,
        ],
        ids=lambda body: body[:20],
    )
    def test_anything_but_credentials_is_400(
        self, client: FlaskClient, path: str, body: bytes
    ) -> None:
        assert error_of(client.post(path, data=body)) == (400, "bad_request")

    def test_a_long_body_is_413(self, client: FlaskClient, path: str) -> None:
        response = client.post(path, json=ALICE | {"password": "p" * 5000})
        assert error_of(response) == (413, "too_large")


class TestMessaging:
    def test_nothing_can_be_sealed_for_somebody_who_only_signed_up(
        self, client: FlaskClient
    ) -> None:
        alice = client.post("/api/register", json=ALICE).get_json()
        bob = client.post("/api/register", json=ALICE | {"username": "bob"}).get_json()
        hers, his = secrets.token_bytes(32), secrets.token_bytes(32)
        keys = {"public_key": to_base64url(hers)}
        assert client.post("/api/keys", json=keys, headers=bearer(alice)).status_code == 200
        message_id = str(uuid4())
        content = to_base64url(envelope(message_id, hers, [his, hers]))
        message = {"id": message_id, "to": bob["user_id"], "encrypted_content": content}
        refused = client.post("/api/messages", json=message, headers=bearer(alice))
        error = refused.get_json()["error"]
        assert (refused.status_code, error["code"]) == (409, "stale_key")
        assert (error["key"]["user_id"], error["key"]["public_key"]) == (bob["user_id"], None)

    def test_a_published_key_is_the_users_public_key(self, app: Flask, client: FlaskClient) -> None:
        alice = client.post("/api/register", json=ALICE).get_json()
        key = bytes([9]) + bytes(31)  # the base point, RFC 7748 section 4.1
        text = urlsafe_b64encode(key).rstrip(b"=").decode()
        response = client.post("/api/keys", json={"public_key": text}, headers=bearer(alice))
        assert response.status_code == 200
        with app.app_context():
            assert db.session.scalars(db.select(User.public_key)).one() == key


def bearer(user: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {user['access_token']}"}


class TestDirectory:
    def test_somebody_is_found_by_name(self, client: FlaskClient) -> None:
        alice = client.post("/api/register", json=ALICE | {"username": "zo\u00eb"}).get_json()
        found = client.get("/api/users/zoe\u0308", headers=bearer(alice))
        assert found.get_json() == {"user_id": alice["user_id"], "username": "zo\u00eb"}

    def test_a_name_that_nobody_has_is_404(self, client: FlaskClient) -> None:
        alice = client.post("/api/register", json=ALICE).get_json()
        assert error_of(client.get("/api/users/bob", headers=bearer(alice))) == (404, "not_found")

    def test_ids_are_answered_with_names(self, client: FlaskClient) -> None:
        alice, bob = (
            client.post("/api/register", json=ALICE | {"username": name}).get_json()
            for name in ("alice", "bob")
        )
        ids = f"{alice['user_id']},{bob['user_id']},999,x,,-1"
        found = client.get(f"/api/users?ids={ids}", headers=bearer(alice)).get_json()
        assert {each["user_id"]: each["username"] for each in found} == {
            alice["user_id"]: "alice",
            bob["user_id"]: "bob",
        }

    def test_too_many_ids_are_400(self, client: FlaskClient) -> None:
        alice = client.post("/api/register", json=ALICE).get_json()
        ids = ",".join(map(str, range(101)))
        response = client.get(f"/api/users?ids={ids}", headers=bearer(alice))
        assert error_of(response) == (400, "bad_request")

    @pytest.mark.parametrize("path", ["/api/users/alice", "/api/users?ids=1"])
    @pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer nonsense"}], ids=len)
    def test_a_stranger_is_told_nothing(
        self, client: FlaskClient, path: str, header: dict[str, str]
    ) -> None:
        client.post("/api/register", json=ALICE)
        assert error_of(client.get(path, headers=header)) == (401, "unauthorized")


class TestRenewal:
    def test_a_token_gives_another_one_of_the_same_user(self, client: FlaskClient) -> None:
        alice = client.post("/api/register", json=ALICE).get_json()
        renewed = client.post("/api/token", headers=bearer(alice)).get_json()
        assert renewed["user_id"] == alice["user_id"]
        assert client.get("/api/users/alice", headers=bearer(renewed)).status_code == 200

    def test_without_a_valid_token_there_is_none(self, client: FlaskClient) -> None:
        assert error_of(client.post("/api/token")) == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/", "/about"])
def test_a_page_runs_only_scripts_of_its_own(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    page = response.get_data(as_text=True)
    assert "style=" not in page
    assert "<style" not in page
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_the_chat_says_what_the_clients_modules_must_be(client: FlaskClient) -> None:
    page = client.get("/").get_data(as_text=True)
    assert re.search(r'href="/api/static/e2emsg.js" integrity="sha384-', page)
    assert 'href="/about"' in page


def test_the_about_page_names_the_endpoints(client: FlaskClient) -> None:
    page = client.get("/about").get_data(as_text=True)
    for path in ("/api/register", "/api/login", "/api/ws"):
        assert f"<code>{path}</code>" in page


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgres://u:p@db/app", "postgresql+psycopg"),
        ("postgresql://u:p@db/app", "postgresql+psycopg"),
        ("postgresql+psycopg2://u:p@db/app", "postgresql+psycopg2"),
        ("sqlite:///example.db", "sqlite"),
    ],
)
def test_a_database_url_gets_the_driver_that_the_example_installs(given: str, driver: str) -> None:
    url = database_url(given)
    assert url.drivername == driver
    assert url.set(drivername=given.partition(":")[0]) == make_url(given)


def test_the_secret_is_made_once_and_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "instance"
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: kept_secret(folder), range(32)))
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 64
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


def test_the_environment_can_give_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: Flask
) -> None:
    assert app.config["JWT_SECRET_KEY"] == "a secret of the tests, long enough"
    assert not list(tmp_path.glob("**/jwt-secret"))


def test_under_gevent_a_hash_does_not_hold_up_the_event_loop() -> None:
    program = """
from gevent import monkey
monkey.patch_all()
from example_app import passwords
from gevent.monkey import get_original
ident = get_original("threading", "get_ident")
assert passwords._beside_the_event_loop(ident) != ident()
assert passwords.is_right("right", passwords.hashed("right"))
assert not passwords.is_right("wrong", passwords.hashed("right"))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
