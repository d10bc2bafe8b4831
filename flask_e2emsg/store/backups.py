"""Backups of identity keys: one opaque blob for each user, which only its recovery code opens.

Every change has to name the version that it replaces, so of two devices that write at once one
learns of the other. Versions only grow, also over a deletion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from ..errors import NoBackup, VersionConflict
from ..protocol.values import now
from .accounts import Party
from .database import Conflict, Database, asked_again
from .models import key_backups
from .times import aware


@dataclass(frozen=True, slots=True)
class Backup:
    """What a user has left here."""

    blob: bytes = field(repr=False)
    version: int  # 1 for the first one
    updated_at: datetime


class Backups:
    """The backups of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asked_again
    def get(self, owner: Party) -> Backup:
        """The user's backup.

        Raises:
            NoBackup: there is none.
        """
        with self._database.read() as connection:
            row = connection.execute(_OF, {"owner": owner.account_id}).one_or_none()
        if row is None or row.blob is None:
            raise NoBackup(0 if row is None else row.version)
        return Backup(bytes(row.blob), row.version, aware(row.updated_at))

    def put(self, owner: Party, blob: bytes, version: int) -> Backup:
        """Store a blob in place of the current version, which is 0 when there never was one.

        Raises:
            VersionConflict: another version is the current one.
        """
        moment = now()
        values = {"blob": blob, "version": version + 1, "updated_at": moment}
        try:
            with self._database.write() as connection:
                if version == 0:
                    insert = sa.insert(key_backups)
                    connection.execute(insert, {"account_id": owner.account_id, **values})
                    is_done = True
                else:
                    current = _is_of & (key_backups.c.version == version)
                    update = sa.update(key_backups).where(current).values(values)
                    parameters = {"owner": owner.account_id}
                    is_done = connection.execute(update, parameters).rowcount == 1
        except Conflict:
            is_done = False
        if not is_done:
            raise VersionConflict(self._version(owner))
        return Backup(blob, version + 1, moment)

    def delete(self, owner: Party) -> None:
        """Forget the user's blob, if there is one."""
        emptied = (
            sa.update(key_backups)
            .where(_is_of, key_backups.c.blob.is_not(None))
            .values(blob=None, version=key_backups.c.version + 1, updated_at=now())
        )
        with self._database.write() as connection:
            connection.execute(emptied, {"owner": owner.account_id})

    @asked_again
    def _version(self, owner: Party) -> int:
        with self._database.read() as connection:
            version = sa.select(key_backups.c.version).where(_is_of)
            return int(connection.scalar(version, {"owner": owner.account_id}) or 0)


_is_of = key_backups.c.account_id == sa.bindparam("owner", type_=sa.Integer())
_OF = sa.select(key_backups.c.blob, key_backups.c.version, key_backups.c.updated_at).where(_is_of)
