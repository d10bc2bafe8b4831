"""Several Appends laid out as rows: where each message goes in the logs that it makes grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from ..protocol.frames import Outgoing
from ..protocol.values import now
from .accounts import Party

if TYPE_CHECKING:
    from .mailbox import Append


class Row(msgspec.Struct, gc=False):
    """A message on its way into the table. Offsets count from its account's base."""

    message: Outgoing
    sender: Party
    recipient: Party
    created_at: datetime
    expires_at: datetime | None
    origin: int | None
    sender_offset: int | None
    recipient_offset: int


class Growth(msgspec.Struct, gc=False):
    """By how much an account's log grows in a batch."""

    entries: int = 0
    leading_sent: int = 0  # own entries before the first received one


class Batch:
    """Rows and growths of several Appends, as if nothing stood in their way."""

    def __init__(self, appends: Iterable[Append]) -> None:
        self.rows: list[Row] = []
        self.growths: defaultdict[int, Growth] = defaultdict(Growth)
        created_at = now()
        for append in appends:
            for recipient, message in zip(append.recipients, append.messages, strict=True):
                self._add(append, recipient, message, created_at)

    def _add(
        self, append: Append, recipient: Party, message: Outgoing, created_at: datetime
    ) -> None:
        sender_offset = self._grow_sent(append.sender.account_id) if append.keeps_sent else None
        seconds = message.expires_in
        self.rows.append(
            Row(
                message,
                append.sender,
                recipient,
                created_at,
                None if seconds is None else created_at + timedelta(seconds=seconds),
                append.origin,
                sender_offset,
                self._grow_received(recipient.account_id),
            )
        )

    def _grow_sent(self, account_id: int) -> int:
        growth = self.growths[account_id]
        if growth.leading_sent == growth.entries:
            growth.leading_sent += 1
        growth.entries += 1
        return growth.entries

    def _grow_received(self, account_id: int) -> int:
        growth = self.growths[account_id]
        growth.entries += 1
        return growth.entries

    @property
    def account_ids(self) -> list[int]:
        """Everybody who takes part, in locking order."""
        ids = {row.sender.account_id for row in self.rows} | self.growths.keys()
        return sorted(ids)
