"""The host app under measurement: the smallest that there is, with everything switched on.

Rate limit, quotas, rules, the check of envelopes and receipts do their work for every message. The
limits are such that the load of a benchmark, that of thousands of users sent by a few, does not
reach them.
"""

from __future__ import annotations

import os

from flask import Flask
from flask_jwt_extended import JWTManager
from flask_sqlalchemy import SQLAlchemy

from flask_e2emsg import E2EMessaging


def create_app() -> Flask:
    """Build it from DATABASE_URL and JWT_SECRET_KEY; makes the tables if they are missing.

    BENCH_BUS_URL, where it is given, is its E2EMSG_BUS_URL.
    """
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
        JWT_SECRET_KEY=os.environ["JWT_SECRET_KEY"],
        E2EMSG_BUS_URL=os.environ.get("BENCH_BUS_URL"),
        E2EMSG_CHECK_ENVELOPES=True,
        E2EMSG_RATE_LIMIT="100000000/minute",
        E2EMSG_MAX_UNDELIVERED=10_000_000,
        E2EMSG_MAX_UNDELIVERED_PER_SENDER=10_000_000,
    )
    db = SQLAlchemy(app)
    JWTManager(app)
    E2EMessaging(app, db)
    with app.app_context():
        db.create_all()
    return app
