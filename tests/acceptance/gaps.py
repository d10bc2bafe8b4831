"""Doubles inside a worker that let a message be stored at one exact moment of another's way.

Between a look at the mailbox and the wait for news there are gaps; what is stored in one of them
must arrive at once all the same. The waits of a connection and of a long poll are the same few
steps, so both are caught here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch
from uuid import uuid4

from flask_e2emsg.delivery.pump import Pump, Signal
from flask_e2emsg.process import Process
from flask_e2emsg.protocol.frames import Outgoing
from flask_e2emsg.protocol.values import encode_binary
from flask_e2emsg.store.accounts import MailboxState, Party
from flask_e2emsg.store.mailbox import Page
from flask_e2emsg.store.slots import Arrival
from flask_e2emsg.transport.greenlets import GreenletTask
from flask_e2emsg.transport.threads import ThreadTask

Attach = Callable[[Pump, Signal, Signal], None]

GAPS = (
    "before it is registered",
    "before its first look",
    "before it reads",
    "after it has read",
    "when it wakes up",
)


def nothing() -> None:
    pass


class _Watched:
    """An event that says when somebody who was woken is about to clear it."""

    def __init__(self, event: threading.Event) -> None:
        self.about_to_clear: Callable[[], None] = nothing
        self._clear = event.clear
        self.set = event.set
        self.is_set = event.is_set
        self.wait = event.wait

    def clear(self) -> None:
        self.about_to_clear()
        self._clear()


class Gaps:
    """The hub and the store of a process, with a message that waits for its moment."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._armed: tuple[str, str, str] | None = None
        hub, accounts, mailboxes = process.hub, process.accounts, process.mailboxes
        add, waiting, enter, ensure, read = (
            hub.add,
            hub.waiting,
            process.admissions.enter,
            accounts.ensure,
            mailboxes.entries_after,
        )

        def add_with_gaps(pump: Pump) -> None:
            self._pass("before it is registered", pump.owner.user_id)
            add(pump)

        @contextmanager
        def waiting_with_gaps(user_id: str, account_id: int) -> Iterator[_Watched]:
            self._pass("before it is registered", user_id)
            with waiting(user_id, account_id) as event:
                watched = _Watched(event)
                watched.about_to_clear = partial(self._pass, "when it wakes up", user_id)
                yield watched

        def enter_with_gap(arrival: Arrival) -> MailboxState | None:
            self._pass("before its first look", arrival.user_id)
            return enter(arrival)

        def ensure_with_gap(user_id: str) -> MailboxState:
            self._pass("before its first look", user_id)
            return ensure(user_id)

        def read_with_gaps(owner: Party, seq: int, limit: int) -> Page:
            self._pass("before it reads", owner.user_id)
            page = read(owner, seq, limit)
            self._pass("after it has read", owner.user_id)
            return page

        patch.object(Pump, "attach", self._attach_with_gap(Pump.attach)).start()
        patch.object(hub, "add", add_with_gaps).start()
        patch.object(hub, "waiting", waiting_with_gaps).start()
        patch.object(process.admissions, "enter", enter_with_gap).start()
        patch.object(accounts, "ensure", ensure_with_gap).start()
        patch.object(mailboxes, "entries_after", read_with_gaps).start()

    def arm(self, gap: str, sender: str, recipient: str) -> None:
        """Store a message when the recipient's way comes to the gap."""
        assert gap in GAPS, gap
        self._armed = gap, sender, recipient

    def _attach_with_gap(self, attach: Attach) -> Attach:
        def attach_with_gap(pump: Pump, stirred: Signal, answered: Signal) -> None:
            woken = partial(self._pass, "when it wakes up", pump.owner.user_id)
            assert isinstance(stirred, GreenletTask | ThreadTask)
            work = stirred.work

            def work_with_gap() -> None:
                woken()
                work()

            stirred.work = work_with_gap
            attach(pump, stirred, answered)

        return attach_with_gap

    def _pass(self, gap: str, user_id: str) -> None:
        if self._armed is None or (gap, user_id) != (self._armed[0], self._armed[2]):
            return
        (_, sender, recipient), self._armed = self._armed, None
        router, content = self._process.router, uuid4().bytes
        message = Outgoing(uuid4(), recipient, content, encode_binary(content))
        owner = self._process.accounts.find(sender)
        assert owner is not None
        router.commit(router.prepare(owner, [message], keeps_sent=False))
