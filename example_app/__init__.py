"""A small host application: its own users, sign-up and login, and messaging from flask_e2emsg.

It shows what a host writes and what it gets. `flask --app example_app` finds `create_app`.
"""

from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_jwt_extended import JWTManager
from flask_migrate import Migrate

from flask_e2emsg import E2EMessaging

from . import pages, settings, users
from .models import db

jwt = JWTManager()
migrate = Migrate()
e2emsg = E2EMessaging()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application.

    Args:
        config: settings that win over those of the environment, for tests.
    """
    app = Flask(__name__)
    app.config.from_mapping(settings.from_environment(app.instance_path))
    app.config.from_mapping(config)

    db.init_app(app)
    migrate.init_app(app, db)
    jwt.init_app(app)
    e2emsg.init_app(app, db)

    app.register_blueprint(users.bp)
    app.register_blueprint(pages.bp)
    return app
