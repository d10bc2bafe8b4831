"""The host app under measurement: the smallest that there is, with the rate limit off."""

from __future__ import annotations

import os

from flask import Flask
from flask_jwt_extended import JWTManager
from flask_sqlalchemy import SQLAlchemy

from flask_e2emsg import E2EMessaging


def create_app() -> Flask:
    """Build it from DATABASE_URL and JWT_SECRET_KEY; makes the tables if they are missing."""
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
        JWT_SECRET_KEY=os.environ["JWT_SECRET_KEY"],
        E2EMSG_RATE_LIMIT=None,
        E2EMSG_CHECK_ENVELOPES=False,
    )
    db = SQLAlchemy(app)
    JWTManager(app)
    E2EMessaging(app, db)
    with app.app_context():
        db.create_all()
    return app
