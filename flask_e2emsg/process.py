"""The machinery of one app in one process: the layers, joined.

    protocol  <  store  <  delivery  <  transport  <  the extension

It is made when the process first needs it, so servers may fork before or after.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import limits

from . import capacity, channels, cooperation
from .config import Settings
from .delivery.admissions import Admissions
from .delivery.background import Notifier, Soon, Ticker
from .delivery.bus import Bus
from .delivery.committer import Committer
from .delivery.envelopes import Envelopes
from .delivery.hub import Hub
from .delivery.limiter import RateLimiter
from .delivery.pump import Pump
from .delivery.quota import Quotas
from .delivery.recheck import Rechecker
from .delivery.router import Router
from .durability import Durability
from .errors import E2EMsgError
from .protocol.entries import Entry, MessageEntry, ReceiptEntry
from .signals import message_delivered, message_stored, user_connected, user_disconnected
from .store.accounts import Accounts, MailboxState, Party
from .store.backups import Backups
from .store.counters import DatabaseStorage
from .store.database import Database, asked_again
from .store.history import History
from .store.leases import RENEW_SECONDS, Leases
from .store.mailbox import Mailboxes
from .store.passing import passing
from .store.postgresql import PostgreSQLMailboxes
from .store.purge import purge
from .store.slots import Arrival
from .store.sqlite import SQLiteMailboxes
from .store.tickets import Tickets
from .store.user import known_to_host
from .transport.sockets import Sockets

if TYPE_CHECKING:
    from .extension import AppState

logger = logging.getLogger("flask_e2emsg.process")

PURGE_SECONDS = 300.0
FLUSH_SECONDS = 1.0
SETTLE_SECONDS = 0.05  # after a connection has ended until its slot is free


class Process:
    """The layers of one app in one process, joined."""

    def __init__(self, state: AppState) -> None:
        self.pid = os.getpid()
        self._has_warned = False
        self._state = state
        settings = state.settings
        with state.app.app_context():
            self.database = Database(state.db.engine, cooperation.descriptor, cooperation.disk())
            rows_that_pass = passing(self.database, state.db.engine)
            channel = channels.make_channel(state.app, settings, self.database, state.db.engine)
        self.durability = Durability(self.database, settings.require_durability)
        self.accounts = Accounts(self.database)
        kind = SQLiteMailboxes if self.database.is_sqlite else PostgreSQLMailboxes
        self.mailboxes: Mailboxes = kind(self.database, _ids_in_one_receipt(settings))
        self.history = History(self.database)
        self.tickets = Tickets(self.database)
        self.backups = Backups(self.database)
        self.envelopes = Envelopes(
            self.accounts.public_key, self.history.has, lambda: self.bus.hears
        )
        self.hub = Hub(
            settings.max_connections_per_user,
            settings.max_connections or capacity.connections(state.server_connections),
            capacity.long_polls(state.server_requests),
        )
        self.leases = Leases(rows_that_pass, settings.max_connections_per_user)
        self.admissions = Admissions("e2emsg-admissions", self.leases.admit, self.leases.give_back)
        self.rechecker = Rechecker(
            self.hub, state.still_accepts, state.request_context, state.has_questions
        )
        self.notifier = Notifier("e2emsg-notifier")
        self.sweeper = Ticker("e2emsg-sweep", settings.sweep_seconds, self._sweep)
        heard = _Heard(self.hub, self.rechecker, self.envelopes, self.sweeper)
        self.bus = Bus(channel, channels.make_seal(state.app), heard)
        sends = self._committer("e2emsg-sends")
        # A mark must not make a message wait; where there is one writer they share its commits.
        marks = sends if self.database.is_sqlite else self._committer("e2emsg-marks")
        self.router = Router(
            _HostRules(state, rows_that_pass, self.durability),
            self.accounts,
            self.hub,
            self.bus,
            sends,
            marks,
            Quotas(
                self.accounts.waiting,
                settings.max_undelivered_per_sender,
                settings.max_undelivered,
            ),
            self.envelopes if settings.check_envelopes else None,
            settings.max_frame_bytes,
            settings.hide_refusals,
        )
        self.sockets = Sockets(settings)
        self.renewer = Ticker("e2emsg-leases", RENEW_SECONDS, self._renew)
        self.settler = Soon("e2emsg-slots", SETTLE_SECONDS, self.leases.settle)
        self.purger = Ticker("e2emsg-purge", PURGE_SECONDS, self._purge)
        cooperation.try_in_background(self.database)
        if self.bus.is_on:
            # What a command or a task has told is published by a thread that would end with it.
            atexit.register(self.bus.flush, FLUSH_SECONDS)

    def new_pump(self, user_id: str) -> tuple[Pump, MailboxState]:
        """A connection's pump, registered before its mailbox was read, and what was read.

        Raises:
            Overloaded, TooManyConnections: this process, or the user, is at the cap.
        """
        # Whose account it is turns out only after this one is registered.
        pump = Pump(Party(0, user_id), self.mailboxes.entries_after, self.router.ack)
        self.hub.add(pump)
        try:
            self.keep_up()
            arrival = Arrival(user_id, UUID(pump.id))
            while (mailbox := self.admissions.enter(arrival)) is None:
                self.accounts.ensure(user_id)
            self.accounts.remember(mailbox.owner)
            pump.owner = mailbox.owner
        except BaseException:
            self.hub.remove(pump)
            raise
        return pump, mailbox

    def keep_up(self) -> None:
        """Make sure that what runs beside the main path does."""
        self.sweeper.ensure_running()
        self.renewer.ensure_running()
        self.rechecker.ensure_running()
        self.purger.ensure_running()
        self.bus.ensure_listening()

    def drain(self) -> None:
        """End all connections and the threads beside them; what is asked for is still stored."""
        self.hub.drain()
        for running in (self.sweeper, self.renewer, self.settler, self.rechecker, self.purger):
            running.stop()
        self.bus.stop()
        try:
            self.leases.resign()
        except E2EMsgError:
            logger.warning("the database is away; this worker's slots are free when its lease ends")

    def connected(self, pump: Pump) -> None:
        """Tell the host that a connection is live."""
        self._signal(user_connected, user_id=pump.owner.user_id, connection_id=pump.id)

    def removed(self, pump: Pump) -> None:
        """Forget a connection that has ended, and tell the host."""
        if self.hub.remove(pump):
            self.leases.give_back(UUID(pump.id))
            self.settler.ask()
            self._signal(user_disconnected, user_id=pump.owner.user_id, connection_id=pump.id)

    def end_all_of(self, user_id: str, close_code: int) -> int:
        """Close a user's connections on all workers; how many there are."""
        for pump in self.hub.of(user_id):
            pump.close(close_code)
        mailbox = self.accounts.state(user_id)
        if mailbox is None:
            return 0
        count = self.leases.end_all_of(mailbox.owner.account_id, close_code)
        self.bus.ended()
        return count

    def tell(self, user_id: str, frame: bytes) -> int:
        """A frame that may be lost, for a user's connections; how many there are."""
        here = self.hub.tell(user_id, frame)
        if self.bus.is_alone:
            return here
        self.bus.told(user_id, frame)
        return here + self.leases.held_elsewhere(user_id)

    def doubt(self, user_id: str | None) -> None:
        """The host may have turned away this user, or somebody: ask it again, on all workers."""
        if user_id is not None:
            self.rechecker.look_at(user_id)
        self.rechecker.look_around()
        self.bus.doubted(user_id)

    def rekeyed(self, user_id: str) -> None:
        """A user has published a key: compare envelopes with it from now on, on all workers."""
        self.envelopes.forget(user_id)
        if self._state.settings.check_envelopes:
            self.bus.doubted(user_id)

    def _committer(self, name: str) -> Committer:
        boxes = self.mailboxes
        return Committer(
            name, boxes.append, boxes.ack, boxes.read, self.database.together, self._publish
        )

    def _publish(self, entries: Mapping[str, list[Entry]]) -> None:
        self.hub.publish(entries)
        self.bus.grown({user_id: new[-1].seq for user_id, new in entries.items()})
        _, _, on_undelivered = self._state.extension._rules()
        if not (on_undelivered or message_stored.receivers or message_delivered.receivers):
            return
        for user_id, new in entries.items():
            offline = on_undelivered is not None and not self.hub.of(user_id)
            for entry in _once(new):
                self._tell_host(user_id, entry)
            if offline and any(_is_received(entry, user_id) for entry in new):
                self.notifier.tell(self._in_context(self._tell_if_offline, on_undelivered, user_id))

    def _tell_if_offline(self, on_undelivered: Callable[[str], object], user_id: str) -> None:
        try:
            is_elsewhere = self.leases.held_elsewhere(user_id) > 0
        except E2EMsgError:
            is_elsewhere = False  # Told twice is better than not at all.
        if not is_elsewhere:
            on_undelivered(user_id)

    def _tell_host(self, user_id: str, entry: Entry) -> None:
        if isinstance(entry, ReceiptEntry):
            if entry.kind == "delivered":
                self._signal(
                    message_delivered,
                    message_ids=[str(message_id) for message_id in entry.ids],
                    sender_id=user_id,
                    recipient_id=entry.by,
                )
        elif _is_received(entry, user_id):
            message = entry.message
            self._signal(
                message_stored,
                message_id=str(message.id),
                sender_id=message.sender,
                recipient_id=message.recipient,
                conversation_id=message.conversation_id,
            )

    def _signal(self, signal: Any, **news: Any) -> None:
        if signal.receivers:
            self.notifier.tell(self._in_context(lambda: signal.send(self._state.app, **news)))

    def _in_context(self, callback: Any, *arguments: Any) -> Callable[[], object]:
        def run() -> None:
            with self._state.app.app_context():
                callback(*arguments)

        return run

    def _sweep(self) -> None:
        self.hub.sweep(self.accounts.heads)
        if ends := self.leases.wanted_ends():
            for pump in self.hub.all():
                if (close_code := ends.get(UUID(pump.id))) is not None:
                    pump.close(close_code)

    def _renew(self) -> None:
        self.leases.renew()
        if not self.bus.is_on and not self._has_warned and self.leases.workers_elsewhere():
            self._has_warned = True
            logger.warning(
                "several workers, which do not hear each other: what one stores the others find by "
                "the sweep, within E2EMSG_SWEEP_SECONDS. Set E2EMSG_BUS_URL to the address of a "
                "Redis, or use PostgreSQL, or run one gevent worker."
            )

    def _purge(self) -> None:
        purge(self.database, self._state.settings.retention_days)


@dataclass(frozen=True, slots=True)
class _Heard:
    """Acts on what other processes say."""

    hub: Hub
    rechecker: Rechecker
    envelopes: Envelopes
    sweeper: Ticker

    def grown(self, user_id: str, seq: int) -> None:
        self.hub.reach(user_id, seq)

    def told(self, user_id: str, frame: bytes) -> None:
        self.hub.tell(user_id, frame)

    def doubted(self, user_id: str | None) -> None:
        if user_id is not None:
            self.envelopes.forget(user_id)
            self.rechecker.look_at(user_id)
        self.rechecker.look_around()

    def missed(self) -> None:
        self.envelopes.forget_all()
        self.sweeper.ask()


class _HostRules:
    """The host's callbacks and limits, as the router asks for them."""

    def __init__(self, state: AppState, counters: Database, durability: Durability) -> None:
        self._state = state
        self._durability = durability
        rate = state.settings.rate_limit
        self._limiter = RateLimiter(
            DatabaseStorage(counters), [] if rate is None else limits.parse_many(rate)
        )

    def may_send(self, sender: str, recipient: str, conversation_id: str | None) -> bool:
        authorize, _, _ = self._state.extension._rules()
        if authorize is None:
            return True
        with self._state.app.app_context():
            return bool(authorize(sender, recipient, conversation_id))

    def may_send_now(self, sender: str, count: int) -> float | None:
        self._durability.insist()
        return self._limiter.spend(sender, count)

    @asked_again
    def knows_user(self, user_id: str) -> bool:
        with self._state.process.database.read() as connection:
            return known_to_host(self._state.db.metadata, connection, user_id)


def _ids_in_one_receipt(settings: Settings) -> int:
    """As many as fit into a frame beside the longest user id."""
    return max(1, min(500, (settings.max_frame_bytes - 1700) // 39))


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """Without the second entry of a message to oneself."""
    seen: set[UUID] = set()
    kept = []
    for entry in entries:
        if isinstance(entry, MessageEntry):
            if entry.message.id in seen:
                continue
            seen.add(entry.message.id)
        kept.append(entry)
    return kept


def _is_received(entry: Entry, user_id: str) -> bool:
    return isinstance(entry, MessageEntry) and entry.message.recipient == user_id
