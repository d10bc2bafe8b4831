"""The acceptance host with a window into its worker, and with faults that a test may order.

`tests.acceptance.inside:create_app()` is served only by tests that need it. `GET /inside` counts
what is alive in there; a message whose conversation is named like an exception raises it in the
middle of a connection; `POST /inside/gap` has a message stored at one exact moment.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch
from uuid import uuid4

import gevent
import greenlet
import psutil
from flask import Flask, Response, current_app, jsonify, request

from flask_e2emsg.delivery.hub import Hub
from flask_e2emsg.delivery.pump import Pump
from flask_e2emsg.extension import AppState
from flask_e2emsg.protocol.entries import Entry
from flask_e2emsg.protocol.frames import Outgoing
from flask_e2emsg.protocol.values import encode_binary
from flask_e2emsg.store.accounts import MailboxState, Party
from flask_e2emsg.store.mailbox import Page
from flask_e2emsg.transport.websocket import Handover, WebSocket
from flask_e2emsg.transport.ws import Connection
from tests.acceptance import host

OURS = (Connection, Pump, WebSocket, Handover)  # what belongs to one connection
FAULTS: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (RuntimeError, RecursionError, MemoryError, SystemExit, greenlet.GreenletExit)
}
GAPS = (
    "before it is registered",
    "before its first look",
    "before it reads",
    "after it has read",
    "when it wakes up",
)


def create_app() -> Flask:
    """The acceptance host with the routes below."""
    app = host.create_app()
    host.e2emsg.authorize_send = _raise_what_was_ordered
    app.add_url_rule("/inside", view_func=counts)
    app.add_url_rule("/inside/drain", view_func=drain, methods=["POST"])
    app.add_url_rule("/inside/publishing", view_func=publishing)
    app.add_url_rule("/inside/wake", view_func=wake, methods=["POST"])
    app.add_url_rule("/inside/gap", view_func=store_in_gap, methods=["POST"])
    return app


def counts() -> Response:
    """What is alive in this worker: our objects by class, greenlets, timers, descriptors."""
    gc.collect()
    objects = gc.get_objects()
    # By type(), not isinstance(): a proxy of Flask's or Werkzeug's would look for its context.
    kinds = Counter(type(one) for one in objects)
    greenlets = [one for one in objects if issubclass(type(one), greenlet.greenlet)]
    process = psutil.Process()
    return jsonify(
        registry=len(_hub().all()),
        objects={kind.__name__: kinds[kind] for kind in OURS},
        greenlets=sum(1 for one in greenlets if not one.dead),
        threads=sorted(one.name for one in threading.enumerate()),
        watchers=gevent.get_hub().loop.activecnt,
        descriptors=process.num_fds(),
        memory=process.memory_info().rss,
    )


def drain() -> Response:
    """What a worker that is told to stop does."""
    _state().drain()
    return jsonify(drained=True)


def publishing() -> Response:
    """How many seconds each fan-out has taken since the last time that this was asked."""
    hub, taken = _hub(), current_app.extensions.setdefault("fan-outs", [])
    if not isinstance(vars(hub).get("publish"), _Timed):
        patch.object(hub, "publish", _Timed(hub.publish, taken)).start()
    seconds = list(taken)
    taken.clear()
    return jsonify(seconds=seconds)


class _Timed:
    """A fan-out that notes how long it took."""

    def __init__(
        self, publish: Callable[[Mapping[str, Sequence[Entry]]], None], taken: list[float]
    ) -> None:
        self._publish = publish
        self._taken = taken

    def __call__(self, entries: Mapping[str, Sequence[Entry]]) -> None:
        began = time.perf_counter()
        self._publish(entries)
        self._taken.append(time.perf_counter() - began)


def store_in_gap() -> Response:
    """`{"gap", "sender", "recipient"}`: the next time that the recipient's way comes there."""
    body = request.get_json()
    gaps = current_app.extensions.get("gaps")
    if gaps is None:
        gaps = current_app.extensions["gaps"] = Gaps(_state())
    gaps.arm(body["gap"], body["sender"], body["recipient"])
    return jsonify(armed=True)


def wake() -> Response:
    """Wake everybody who waits without a connection, for nothing; how many mailboxes that were."""
    woken: list[int] = []

    def nothing_new(account_ids: list[int]) -> dict[int, int]:
        woken.extend(account_ids)
        return {}

    _hub().sweep(nothing_new)
    return jsonify(woken=len(woken))


class Gaps:
    """Doubles of the hub and the store that let a message be stored at one exact moment.

    The waits of a connection and of a long poll are the same few steps, so both are caught here.
    """

    def __init__(self, state: AppState) -> None:
        self._process = process = state.process
        self._armed: tuple[str, str, str] | None = None
        hub, accounts, mailboxes = process.hub, process.accounts, process.mailboxes
        add, waiting, ensure, read = (
            hub.add,
            hub.waiting,
            accounts.ensure,
            mailboxes.entries_after,
        )

        def add_with_gaps(pump: Pump) -> None:
            self._pass("before it is registered", pump.owner.user_id)
            self._watch(pump.stirred, pump.owner.user_id)
            add(pump)

        @contextmanager
        def waiting_with_gaps(user_id: str, account_id: int) -> Iterator[threading.Event]:
            self._pass("before it is registered", user_id)
            with waiting(user_id, account_id) as event:
                self._watch(event, user_id)
                yield event

        def ensure_with_gap(user_id: str) -> MailboxState:
            self._pass("before its first look", user_id)
            return ensure(user_id)

        def read_with_gaps(owner: Party, seq: int, limit: int) -> Page:
            self._pass("before it reads", owner.user_id)
            page = read(owner, seq, limit)
            self._pass("after it has read", owner.user_id)
            return page

        patch.object(hub, "add", add_with_gaps).start()
        patch.object(hub, "waiting", waiting_with_gaps).start()
        patch.object(accounts, "ensure", ensure_with_gap).start()
        patch.object(mailboxes, "entries_after", read_with_gaps).start()

    def arm(self, gap: str, sender: str, recipient: str) -> None:
        """Store a message when the recipient's way comes to the gap."""
        assert gap in GAPS, gap
        self._armed = gap, sender, recipient

    def _watch(self, event: threading.Event, user_id: str) -> None:
        clear = event.clear

        def clear_with_gap() -> None:
            self._pass("when it wakes up", user_id)
            clear()

        patch.object(event, "clear", clear_with_gap).start()

    def _pass(self, gap: str, user_id: str) -> None:
        if self._armed is None or (gap, user_id) != (self._armed[0], self._armed[2]):
            return
        (_, sender, recipient), self._armed = self._armed, None
        router, content = self._process.router, uuid4().bytes
        message = Outgoing(uuid4(), recipient, content, encode_binary(content))
        owner = self._process.accounts.find(sender)
        assert owner is not None
        router.commit(router.prepare(owner, [message], keeps_sent=False))


def _raise_what_was_ordered(_sender: str, _recipient: str, conversation_id: str | None) -> bool:
    fault = FAULTS.get(conversation_id or "")
    if fault is not None:
        raise fault
    return True


def _state() -> AppState:
    state = current_app.extensions["e2emsg"]
    assert isinstance(state, AppState)
    return state


def _hub() -> Hub:
    return _state().process.hub
