"""The host's own tables. Messaging keeps its tables beside them and changes none of these."""

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from flask_e2emsg import MessagingUserMixin

db = SQLAlchemy()


class User(MessagingUserMixin, db.Model):  # type: ignore[name-defined, misc]  # made at run time
    """Somebody who can log in. `User.public_key` comes with the mixin."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("username", name="uq_users_username"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(80))
    password_hash: Mapped[str] = mapped_column(String(255))
