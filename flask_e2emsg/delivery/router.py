"""What a user asks for becomes operations on mailboxes: check, find the recipients, commit, answer.

The socket and the REST routes both come through here, so the rules are the same on both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Protocol, cast
from uuid import UUID

from ..errors import (
    Forbidden,
    Internal,
    QuotaExceeded,
    RateLimited,
    Refusal,
    TooLarge,
    Unavailable,
    UnknownRecipient,
)
from ..protocol import frames
from ..protocol.frames import Outgoing, Ref, Typing
from ..protocol.values import MAX_USER_ID_LENGTH
from ..store.accounts import Accounts, Party
from ..store.mailbox import Ack, Append, Appended, Read
from .bus import Bus
from .committer import Committer, Done, Operation, Outcome
from .envelopes import Envelopes
from .hub import Hub
from .pump import Pump
from .quota import Quotas

COMMIT_PATIENCE_SECONDS = 60.0

_TOO_LARGE = "The frame in which this message would be delivered is longer than a frame may be."
_FRAME_OVERHEAD = 330  # names of the members, id, times, the longest position
_LONGEST_NAME = 2 + 6 * MAX_USER_ID_LENGTH  # with quotes, if each character must be escaped
_MOST_BESIDE_CONTENT = _FRAME_OVERHEAD + 3 * _LONGEST_NAME + 4


class Rules(Protocol):
    """What the host decides about sending."""

    def may_send(self, sender: str, recipient: str, conversation_id: str | None) -> bool:
        """Whether this sender may write to this recipient."""

    def may_send_now(self, sender: str, count: int) -> float | None:
        """None if the sender may send `count` messages now, else the seconds to wait."""

    def knows_user(self, user_id: str) -> bool:
        """Whether the host has a user with this id who has no account yet."""


@dataclass(frozen=True, slots=True)
class Router:
    """The rules, the accounts and the committers of one process."""

    rules: Rules
    accounts: Accounts
    hub: Hub
    bus: Bus
    sends: Committer
    marks: Committer  # the same one where the database has one writer
    quotas: Quotas
    envelopes: Envelopes | None  # None: content is any opaque bytes
    max_frame_bytes: int
    hide_refusals: bool  # whether a refused recipient is answered for like an unknown one

    def send(self, pump: Pump, message: Outgoing) -> None:
        """Store a message from a connection, which gets the answer.

        Raises:
            Refusal: the message was refused before it came to storing it.
        """
        append = self.prepare(pump.owner, [message], keeps_sent=True, origin=pump.origin)

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Appended):
                answer = frames.encode_accepted(
                    message.id, outcome.sent_seq, outcome.created_at, outcome.is_new
                )
                pump.end_request(answer, outcome.sent_seq)
            else:
                self._refuse(pump, outcome, str(message.id), append)

        pump.begin_request()
        self.sends.submit(append, done)

    def send_many(self, pump: Pump, ref: Ref, messages: Sequence[Outgoing]) -> None:
        """Store messages from a connection, all or none; it gets one answer.

        Raises:
            Refusal: they were refused before it came to storing them.
        """
        append = self.prepare(pump.owner, messages, keeps_sent=False)

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Appended):
                ids = [message.id for message in messages]
                pump.end_request(
                    frames.encode_accepted_many(ref, ids, outcome.created_at, outcome.is_new)
                )
            else:
                self._refuse(pump, outcome, ref, append)

        pump.begin_request()
        self.sends.submit(append, done)

    def ack(self, pump: Pump, seq: int) -> None:
        """Commit a connection's ack."""

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Refusal):
                pump.ack_failed(outcome)
            else:
                pump.acked(seq)

        self.marks.submit(Ack(pump.owner, seq), done)

    def read(self, pump: Pump, ids: Sequence[UUID]) -> None:
        """Mark messages as read; only a failure is answered."""

        def done(outcome: Outcome) -> None:
            answer = frames.encode_error(outcome) if isinstance(outcome, Refusal) else None
            pump.end_request(answer)

        pump.begin_request()
        self.marks.submit(Read(pump.owner, ids), done)

    def typing(self, sender: str, typing: Typing) -> None:
        """Tell the recipient's live connections, if the sender may write to it."""
        if not self.rules.may_send(sender, typing.to, typing.conversation_id):
            return
        frame = frames.encode(
            "typing",
            sender=sender,
            conversation_id=typing.conversation_id,
            active=typing.active,
        )
        self.hub.tell(typing.to, frame)
        self.bus.told(typing.to, frame)

    def prepare(
        self,
        sender: Party,
        messages: Sequence[Outgoing],
        *,
        keeps_sent: bool,
        origin: int | None = None,
    ) -> Append:
        """The operation that stores messages, if the host's rules allow it.

        Raises:
            RateLimited, TooLarge, UnknownRecipient, Forbidden, BadRequest, StaleKey, QuotaExceeded:
                what stands against it; a host that hides its refusals never says Forbidden.
        """
        wait = self.rules.may_send_now(sender.user_id, len(messages))
        if wait is not None:
            refusal = RateLimited()
            refusal.retry_after = wait
            raise refusal
        for message in messages:
            if not self._fits(sender, message):
                raise TooLarge(_TOO_LARGE, message_id=None if keeps_sent else str(message.id))
        recipients = self._recipients(sender, messages, names_culprit=not keeps_sent)
        if self.envelopes is not None:
            for message in messages:
                self.envelopes.check(sender, message, names_message=not keeps_sent)
        full = self.quotas.check(sender, recipients)
        if full is not None:
            raise QuotaExceeded(message_id=None if keeps_sent else str(messages[full].id))
        return Append(sender, recipients, messages, keeps_sent, origin)

    def commit(self, append: Append) -> Appended:
        """Store messages and wait for the answer.

        Raises:
            Refusal: they were not stored.
        """
        outcome = _wait(self.sends.submit, append)
        if isinstance(outcome, UnknownRecipient):
            self._forget(append)
        if not isinstance(outcome, Appended):
            raise outcome if isinstance(outcome, Refusal) else Internal
        return outcome

    def mark(self, operation: Ack | Read) -> int:
        """Commit an ack or a read and wait; how many messages were marked as read.

        Raises:
            Refusal: nothing was marked.
        """
        outcome = _wait(self.marks.submit, operation)
        if not isinstance(outcome, int):
            raise outcome if isinstance(outcome, Refusal) else Internal
        return outcome

    def _recipients(
        self, sender: Party, messages: Sequence[Outgoing], *, names_culprit: bool
    ) -> list[Party]:
        refused, known = set(), []
        for message in messages:
            recipient = message.recipient
            if not self.rules.may_send(sender.user_id, recipient, message.conversation_id):
                refused.add(message.id)
            # Asked about who refuses the sender as well, so that it takes the same time.
            known.append(self.accounts.known(recipient))
        if not refused and None not in known:
            return cast("list[Party]", known)
        shut = {message.recipient for message in messages if message.id in refused}
        parties = self._settle({message.recipient for message in messages}, shut)
        for message in messages:
            culprit = str(message.id) if names_culprit else None
            if message.id in refused and not self.hide_refusals:
                raise Forbidden(message_id=culprit)
            if message.id in refused or message.recipient not in parties.keys() | shut:
                raise UnknownRecipient(message_id=culprit)
        return [parties[message.recipient] for message in messages]

    def _fits(self, sender: Party, message: Outgoing) -> bool:
        """Whether the frame in which it is delivered is no longer than a frame may be."""
        if len(message.content_text) + _MOST_BESIDE_CONTENT <= self.max_frame_bytes:
            return True
        return largest_frame(sender.user_id, message) <= self.max_frame_bytes

    def _settle(self, user_ids: set[str], shut: set[str]) -> dict[str, Party]:
        """The accounts of recipients; for new ones whom the host knows they are made.

        Those who refuse the sender (`shut`) are looked up under names that nobody has, and then
        asked about like those whom nobody knows, so that the time it takes tells as little as the
        answer.
        """
        parties = self.accounts.remembered(user_ids - shut)
        if unsettled := user_ids - parties.keys():
            found = self.accounts.look_up((unsettled - shut) | {token_hex() for _ in shut})
            parties.update(found)
            for user_id in sorted(unsettled - found.keys()):
                if self.rules.knows_user(user_id) and user_id not in shut:
                    parties[user_id] = self.accounts.ensure(user_id).owner
        return parties

    def _refuse(self, pump: Pump, outcome: Outcome, ref: Ref, append: Append) -> None:
        refusal = outcome if isinstance(outcome, Refusal) else Internal()
        if isinstance(refusal, UnknownRecipient):
            self._forget(append)
        # A refusal may be shared by a whole batch, so it does not carry this frame's ref.
        pump.end_request(frames.encode_error(refusal, ref))

    def _forget(self, append: Append) -> None:
        for party in (append.sender, *append.recipients):
            self.accounts.forget(party.user_id)


def largest_frame(sender: str, message: Outgoing) -> int:
    """The most bytes that the frame of a delivered message can have.

    It has members that the sent one lacks; a recipient that takes no longer frames must be able to
    take it, or its mailbox would stand still there for ever.
    """
    names = (sender, message.recipient, message.conversation_id)
    return _FRAME_OVERHEAD + len(message.content_text) + len(frames.encode_value(names))


def _wait(submit: Callable[[Operation, Done], None], operation: Operation) -> Outcome:
    answered = threading.Event()
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        answered.set()

    submit(operation, done)
    if not answered.wait(COMMIT_PATIENCE_SECONDS):
        raise Unavailable
    return outcomes[0]
