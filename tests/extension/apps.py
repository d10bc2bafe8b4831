"""Small hosts in this process, and a user of one through Flask's test client."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import uuid4

from flask import Flask
from flask.testing import FlaskClient
from flask_jwt_extended import JWTManager, create_access_token
from flask_sqlalchemy import SQLAlchemy
from werkzeug.test import TestResponse

from flask_e2emsg import E2EMessaging
from flask_e2emsg.protocol.values import encode_binary

SECRET = "a secret of these tests, long enough for HS256"


def bare_app(**config: object) -> Flask:
    """An app with settings and nothing else."""
    app = Flask("host")
    app.config.update(
        {
            "SQLALCHEMY_DATABASE_URI": "sqlite:///:memory:",
            "JWT_SECRET_KEY": SECRET,
            "E2EMSG_CHECK_ENVELOPES": False,
            **config,
        }
    )
    return app


def prepared_app(**config: object) -> tuple[Flask, SQLAlchemy]:
    """An app that has all that the extension asks for, but not the extension."""
    app, db = bare_app(**config), SQLAlchemy()
    db.init_app(app)
    JWTManager(app)
    return app, db


class User:
    """Somebody who uses the REST routes of an app."""

    def __init__(self, app: Flask, user_id: str, prefix: str = "/api", **claims: object) -> None:
        self.id = user_id
        self.client: FlaskClient = app.test_client()
        self._prefix = prefix
        with app.app_context():
            self.token = str(create_access_token(user_id, additional_claims=claims))
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def get(self, path: str, **query: object) -> TestResponse:
        return self.client.get(self._prefix + path, query_string=query, headers=self.headers)

    def post(self, path: str, body: dict[str, Any]) -> TestResponse:
        return self.client.post(self._prefix + path, json=body, headers=self.headers)

    def publish_key(self) -> TestResponse:
        return self.post("/keys", {"public_key": encode_binary(secrets.token_bytes(32))})

    def send(self, to: str, content: bytes = b"hello", **members: object) -> TestResponse:
        text = encode_binary(content)
        return self.post(
            "/messages", {"id": str(uuid4()), "to": to, "encrypted_content": text, **members}
        )

    def history_with(self, other: str) -> list[str]:
        """The contents of the conversation, newest first."""
        answer = self.get(f"/messages/{other}")
        assert answer.status_code == 200, answer.data
        return [message["encrypted_content"] for message in json_of(answer)["messages"]]


def json_of(answer: TestResponse) -> Any:
    """The body of an answer, which must be JSON."""
    assert answer.is_json, answer.data
    return answer.get_json()


def with_messaging(app: Flask, db: SQLAlchemy, e2emsg: E2EMessaging | None = None) -> Flask:
    """Add the extension and make the tables."""
    (e2emsg or E2EMessaging()).init_app(app, db)
    with app.app_context():
        db.create_all()
    return app
