"""`User.public_key` for a host's user model, kept in the user's account: one truth, no new column.

    class User(MessagingUserMixin, db.Model): ...

    user.public_key = key                              # written when the session is flushed
    select(User).where(User.public_key.is_(None))      # who has not published a key yet

The attribute is an ordinary mapped one for reading: loaded on first access, expired and rolled back
with the session. Writing goes to the row of `e2emsg_accounts` in the session's own transaction; the
row is made if the user has none. The host's users table is neither changed nor written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Mapper, column_property, validates

from ..errors import ConfigurationError
from ..protocol.keys import check_public_key
from ..protocol.values import is_user_id
from .accounts import write_public_key
from .models import accounts

LARGEST_INTEGER = 2**63 - 1
UUID_PARTS = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))  # first character and length


class MessagingUserMixin:
    """Gives a host's user model `public_key`: 32 bytes, or None until the user has published one.

    Works on any declarative base. The user id is the JWT identity: the text of the primary key, or
    of the column that `__e2emsg_user_id__` names; it holds text, integers or UUIDs and should never
    change. Assigning checks the key and takes part in the session's transaction; None removes it.

    Every row of the model can be written to, also before the user has connected for the first time.

    Raises:
        ConfigurationError: while the class is made, when its user id cannot be found in it.
        UnusableKey: on assignment, for bytes that are no usable X25519 key.
    """

    __e2emsg_user_id__: ClassVar[str | None] = None

    if TYPE_CHECKING:
        # Declarative would make a column of an annotation that it can see.
        public_key: Mapped[bytes | None]

    @validates("public_key")
    def _check_public_key(self, _name: str, key: bytes | None) -> bytes | None:
        return None if key is None else check_public_key(bytes(key))


def known_to_host(metadata: sa.MetaData, connection: Connection, user_id: str) -> bool:
    """Whether a user id belongs to a row of a model with the mixin whose table is in `metadata`.

    Args:
        metadata: the host's, which tells the apps of one process apart.
        connection: of the database that the model's table is in.
        user_id: any text; one that is not exactly the text of a possible id is not known.
    """
    return is_user_id(user_id) and any(
        _has_row(connection, model, user_id)
        for model in _mapped_models(MessagingUserMixin)
        if sa.inspect(model).local_table.metadata is metadata
    )


def _mapped_models(parent: type) -> Iterator[type[Any]]:
    """The models with the mixin; a model that inherits from one of them is part of that one."""
    model: type[Any]
    for model in parent.__subclasses__():
        if sa.inspect(model, raiseerr=False) is None:
            yield from _mapped_models(model)
        else:
            yield model


def _has_row(connection: Connection, model: type[Any], user_id: str) -> bool:
    attribute = _user_id_attribute(sa.inspect(model))
    value = _value_of(attribute, user_id)
    if value is None:
        return False
    # Selecting the attribute instead of the column leaves out a table's other classes of rows.
    found = connection.scalars(sa.select(attribute).where(attribute == value))
    # A value may be written in several ways, and a database may think different texts equal.
    return any(str(other) == user_id for other in found)


def _value_of(attribute: InstrumentedAttribute[Any], user_id: str) -> Any:
    """What to look for in the column; None if no value of the column can have this text."""
    kind = attribute.type
    if isinstance(kind, sa.String):
        return user_id
    convert = int if isinstance(kind, sa.Integer) else UUID
    try:
        value = convert(user_id)
    except ValueError:
        return None
    if isinstance(value, int):
        # A smaller type would make the database refuse a number that does not fit.
        return sa.literal(value, sa.BigInteger) if abs(value) <= LARGEST_INTEGER else None
    return value if kind.python_type is UUID else str(value)


@event.listens_for(MessagingUserMixin, "after_mapper_constructed", propagate=True)
def _add_public_key(mapper: Mapper[Any], model: type[Any]) -> None:
    if mapper.inherits is not None and mapper.inherits.has_property("public_key"):
        return
    if mapper.has_property("public_key"):
        raise ConfigurationError(
            f"{model.__name__}.public_key comes from MessagingUserMixin: remove the model's own."
        )
    text = _as_text(_user_id_attribute(mapper))
    key = (
        sa.select(accounts.c.public_key)
        .where(accounts.c.user_id == text)
        .correlate_except(accounts)
        .scalar_subquery()
    )
    # Deferred, so that loading users costs nothing more and works before the tables are made.
    mapper.add_property("public_key", column_property(key, deferred=True))


def _user_id_attribute(mapper: Mapper[Any]) -> InstrumentedAttribute[Any]:
    model = mapper.class_
    name: str | None = model.__e2emsg_user_id__
    if name is None and len(mapper.primary_key) == 1:
        name = mapper.get_property_by_column(mapper.primary_key[0]).key
    if name is None or name not in mapper.column_attrs:
        raise ConfigurationError(
            f"Which column of {model.__name__} is the JWT identity? "
            f'Say so in the class: __e2emsg_user_id__ = "username".'
        )
    attribute: InstrumentedAttribute[Any] = getattr(model, name)
    kind = attribute.type
    if not isinstance(kind, sa.String | sa.Integer | sa.Uuid) or isinstance(kind, sa.Enum):
        raise ConfigurationError(
            f"{model.__name__}.{name} is {kind!r}. As the JWT identity it must hold text, integers "
            "or UUIDs; name another column in __e2emsg_user_id__."
        )
    return attribute


def _as_text(attribute: InstrumentedAttribute[Any]) -> sa.ColumnElement[str]:
    """What `str()` makes of the attribute's value, in SQL."""
    if isinstance(attribute.type, sa.String):
        return attribute.expression
    text = sa.cast(attribute.expression, sa.String(36))
    if isinstance(attribute.type, sa.Integer):
        return text
    # A database without a type for UUIDs stores 32 hexadecimal digits.
    first, *others = (sa.func.substr(text, start, length) for start, length in UUID_PARTS)
    dashed: sa.ColumnElement[str] = first
    for part in others:
        dashed = dashed.concat("-").concat(part)
    return sa.case((sa.func.length(text) == 32, dashed), else_=text)


@event.listens_for(MessagingUserMixin, "after_insert", propagate=True)
@event.listens_for(MessagingUserMixin, "after_update", propagate=True)
def _write_public_key(
    mapper: Mapper[Any], connection: Connection, user: MessagingUserMixin
) -> None:
    changes = sa.inspect(user).attrs["public_key"].history
    for key in changes.added or ():
        user_id = str(getattr(user, _user_id_attribute(mapper).key))
        write_public_key(connection, user_id, key)
