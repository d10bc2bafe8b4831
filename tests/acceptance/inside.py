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
from collections.abc import Callable, Mapping, Sequence
from unittest.mock import patch

import gevent
import greenlet
import psutil
from flask import Flask, Response, current_app, jsonify, request
from gevent.monkey import is_module_patched
from websockets.protocol import Protocol

from flask_e2emsg.delivery.hub import Hub
from flask_e2emsg.delivery.pump import Pump
from flask_e2emsg.errors import Unavailable
from flask_e2emsg.extension import AppState
from flask_e2emsg.protocol.entries import Entry
from flask_e2emsg.store.accounts import MailboxState
from flask_e2emsg.store.slots import Arrival
from flask_e2emsg.transport.evented import Evented
from flask_e2emsg.transport.handshake import Handover
from flask_e2emsg.transport.ws import Session
from tests.acceptance import host
from tests.acceptance.gaps import Gaps

OURS = (Session, Pump, Evented, Handover, Protocol)  # what belongs to one connection
FAULTS: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (RuntimeError, RecursionError, MemoryError, SystemExit, greenlet.GreenletExit)
}


def create_app() -> Flask:
    """The acceptance host with the routes below."""
    app = host.create_app()
    host.e2emsg.authorize_send = _raise_what_was_ordered
    app.add_url_rule("/inside", view_func=counts)
    app.add_url_rule("/inside/collector", view_func=collector, methods=["POST"])
    app.add_url_rule("/inside/collections", view_func=collections, methods=["POST"])
    app.add_url_rule("/inside/fail", view_func=fail, methods=["POST"])
    app.add_url_rule("/inside/drain", view_func=drain, methods=["POST"])
    app.add_url_rule("/inside/publishing", view_func=publishing)
    app.add_url_rule("/inside/wake", view_func=wake, methods=["POST"])
    app.add_url_rule("/inside/gap", view_func=store_in_gap, methods=["POST"])
    return app


def counts() -> Response:
    """What is alive in this worker: our objects by class, long polls, greenlets, timers, files."""
    if gc.isenabled():
        gc.collect()
    gc.unfreeze()  # What was set aside is not among the objects that there are.
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
        waiting=sum(len(events) for events in _hub()._waiters.values()),
        watchers=gevent.get_hub().loop.activecnt if is_module_patched("socket") else 0,
        # Without the database's, whose pools fill up as chance will have it.
        descriptors=process.num_fds() - len(process.open_files()),
        memory=process.memory_info().rss,
    )


def collector() -> Response:
    """`{"is_on"}`: whether garbage is collected from now on, also before it is counted."""
    if request.get_json()["is_on"]:
        gc.enable()
    else:
        gc.disable()
    return jsonify(is_on=gc.isenabled())


def collections() -> Response:
    """`{"count"}`: collect the oldest generation so often; how many objects outlived each."""
    outlived: list[int] = []

    def note(phase: str, _info: Mapping[str, int]) -> None:
        if phase == "stop":
            outlived.append(len(gc.get_objects(generation=2)))

    gc.callbacks.insert(0, note)  # Before somebody sets them aside.
    for _ in range(request.get_json()["count"]):
        gc.collect()
    gc.callbacks.remove(note)
    return jsonify(outlived=outlived)


def fail() -> Response:
    """`{"user_id"}`: from now on the database refuses when this user's mailbox is looked at."""
    failing = request.get_json()["user_id"]
    admissions = _state().process.admissions
    enter = admissions.enter

    def refuse(arrival: Arrival) -> MailboxState | None:
        if arrival.user_id == failing:
            raise Unavailable
        return enter(arrival)

    patch.object(admissions, "enter", refuse).start()
    return jsonify(failing=True)


def drain() -> Response:
    """What a worker that is told to stop does."""
    _state().drain()
    return jsonify(drained=True)


def publishing() -> Response:
    """Of the fan-outs since the first call: the seconds of each, and how often one let go."""
    hub = _hub()
    timed = vars(hub).get("publish")
    if not isinstance(timed, _Timed):
        timed = _Timed(hub.publish)
        patch.object(hub, "publish", timed).start()
    return jsonify(seconds=list(timed.seconds), switches=timed.switches)


class _Timed:
    """A fan-out that is watched.

    Its seconds are those of this thread, so that other processes of a busy machine do not count;
    whoever waits, for a socket or a lock, switches to another greenlet, and that does.
    """

    def __init__(self, publish: Callable[[Mapping[str, Sequence[Entry]]], None]) -> None:
        self.seconds: list[float] = []
        self.switches = 0
        self._publish = publish

    def __call__(self, entries: Mapping[str, Sequence[Entry]]) -> None:
        before = greenlet.settrace(self._count_switch)
        began = time.thread_time()
        try:
            self._publish(entries)
        finally:
            self.seconds.append(time.thread_time() - began)
            greenlet.settrace(before)

    def _count_switch(self, _event: str, _greenlets: object) -> None:
        self.switches += 1


def wake() -> Response:
    """Wake everybody who waits without a connection, for nothing; how many mailboxes that were."""
    waited_for = len(_hub()._waiters)
    _hub().sweep(lambda _account_ids: {})
    return jsonify(woken=waited_for)


def store_in_gap() -> Response:
    """`{"gap", "sender", "recipient"}`: the next time that the recipient's way comes there."""
    body = request.get_json()
    gaps = current_app.extensions.get("gaps")
    if gaps is None:
        gaps = current_app.extensions["gaps"] = Gaps(_state().process)
    gaps.arm(body["gap"], body["sender"], body["recipient"])
    return jsonify(armed=True)


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
