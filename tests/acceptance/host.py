"""A host application that is not the example: its own users, its own tables, its own settings.

`DATABASE_URL` and `JWT_SECRET_KEY` come from the environment, and so does every setting whose name
begins with `E2EMSG_` or `SQLALCHEMY_`, as JSON (`E2EMSG_MAX_IN_FLIGHT=4`).
`python -m tests.acceptance.host create` makes the tables, once, before a server starts. `LOG_LEVEL`
and `SQL_LOG_LEVEL` make it as loud as the tests want it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from logging.config import dictConfig

from flask import Flask, Response, abort, jsonify, request
from flask_jwt_extended import JWTManager, create_access_token, get_jwt, verify_jwt_in_request
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_e2emsg import E2EMessaging


class Base(DeclarativeBase):
    """The host's own declarative base."""


db = SQLAlchemy(model_class=Base)
jwt = JWTManager()
migrate = Migrate()
e2emsg = E2EMessaging()


class User(Base):
    """The host's users. Their key is a text; the extension must not touch this table."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    email: Mapped[str | None] = mapped_column(String(255), unique=True)


class RevokedToken(Base):
    """Tokens that were logged out before they expired."""

    __tablename__ = "revoked_tokens"

    jti: Mapped[str] = mapped_column(String(36), primary_key=True)


def create_app() -> Flask:
    """The application, configured from the environment."""
    _log_as_told()
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
        JWT_SECRET_KEY=os.environ["JWT_SECRET_KEY"],
        E2EMSG_CHECK_ENVELOPES=False,
        E2EMSG_RATE_LIMIT=None,
    )
    app.config.update(_settings_from_environment())
    db.init_app(app)
    jwt.init_app(app)
    migrate.init_app(app, db)
    e2emsg.init_app(app, db)
    app.add_url_rule("/", view_func=index)
    app.add_url_rule("/slow", view_func=slow)
    app.add_url_rule("/token", view_func=token, methods=["POST"])
    app.add_url_rule("/revoke", view_func=revoke, methods=["POST"])
    return app


def _log_as_told() -> None:
    """Log everything at `LOG_LEVEL`, and SQL, which is much, at `SQL_LOG_LEVEL`.

    As hosts do it, after the extension's modules were imported: it brings loggers back to life.
    """
    dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(levelname)s:%(name)s:%(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": os.environ.get("LOG_LEVEL", "WARNING"), "handlers": ["stderr"]},
            "loggers": {"sqlalchemy": {"level": os.environ.get("SQL_LOG_LEVEL", "WARNING")}},
        }
    )


def index() -> str:
    """Something to poll while the server starts."""
    return "ready"


def slow() -> str:
    """An ordinary request that takes a while."""
    time.sleep(2)
    return "done"


def token() -> Response:
    """`{"user_id", "expires_in"?}` gives `{"access_token"}`, for anybody: there are no logins."""
    body = request.get_json()
    if not isinstance(body, dict) or not isinstance(body.get("user_id"), str):
        abort(400)
    seconds = body.get("expires_in")
    lifetime = None if seconds is None else timedelta(seconds=seconds)
    return jsonify(access_token=create_access_token(body["user_id"], expires_delta=lifetime))


def revoke() -> Response:
    """Log the caller's token out."""
    verify_jwt_in_request()
    db.session.add(RevokedToken(jti=get_jwt()["jti"]))
    db.session.commit()
    return jsonify(revoked=True)


@jwt.token_in_blocklist_loader
def is_revoked(_header: dict[str, object], payload: dict[str, object]) -> bool:
    """Flask-JWT-Extended asks this for every token that it verifies."""
    return db.session.get(RevokedToken, payload.get("jti")) is not None


def create_tables() -> None:
    """All tables, the host's own and the extension's, in an empty database."""
    with create_app().app_context():
        db.create_all()


def _settings_from_environment() -> dict[str, object]:
    given = {
        name: text
        for name, text in os.environ.items()
        if name.startswith(("E2EMSG_", "SQLALCHEMY_"))
    }
    return {name: json.loads(text) for name, text in given.items()}


if __name__ == "__main__":
    if sys.argv[1:] != ["create"]:
        sys.exit("usage: python -m tests.acceptance.host create")
    create_tables()
