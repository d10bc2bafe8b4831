"""A host with a table and a naming convention of its own, for tests of migrations.

`DATABASE_URL` is its database and `MIGRATIONS` its Flask-Migrate folder.
"""

from __future__ import annotations

import os

from flask import Flask
from flask_jwt_extended import JWTManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_e2emsg import E2EMessaging

NAMING_CONVENTION = {
    "ix": "host_index_%(column_0_label)s",
    "uq": "host_unique_%(table_name)s_%(column_0_name)s",
    "ck": "host_check_%(table_name)s_%(constraint_name)s",
    "fk": "host_foreign_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "host_primary_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


db = SQLAlchemy(model_class=Base)


class Shelf(Base):
    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(unique=True)


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id"), index=True)


def create_app() -> Flask:
    """The host as it is before it adds messaging."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    app.config["JWT_SECRET_KEY"] = "a secret of the tests, long enough"
    db.init_app(app)
    Migrate(app, db, directory=os.environ["MIGRATIONS"])
    return app


def create_app_with_messaging() -> Flask:
    """The same host with the extension."""
    app = create_app()
    JWTManager(app)
    E2EMessaging().init_app(app, db)
    return app
