"""What an app tells its other workers, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask_jwt_extended import jwt_required

from flask_e2emsg import E2EMessaging
from flask_e2emsg.process import Process
from flask_e2emsg.store.leases import Leases
from tests.extension.apps import User, prepared_app
from tests.store.process import outgoing


class FakeBus:
    """Somebody listens, and notes it."""

    is_on, is_alone = True, False

    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []

    def grown(self, heads: dict[str, int]) -> None:
        self.said.append(("grown", heads))

    def told(self, user_id: str, frame: bytes) -> None:
        self.said.append(("told", (user_id, frame)))

    def doubted(self, user_id: str | None) -> None:
        self.said.append(("doubted", user_id))

    def ended(self) -> None:
        self.said.append(("ended", None))

    def ensure_listening(self) -> None:
        pass


Host = tuple[Flask, E2EMessaging, FakeBus]


@pytest.fixture
def host(closing: Callable[[Flask], Flask]) -> Host:
    return make_host(closing)


def make_host(closing: Callable[[Flask], Flask], **config: object) -> Host:
    app, db = prepared_app(**config)
    e2emsg = E2EMessaging()
    e2emsg.init_app(closing(app), db)

    app.add_url_rule(
        "/own", view_func=jwt_required(optional=True)(lambda: "done"), methods=["GET", "POST"]
    )
    with app.app_context():
        db.create_all()
    bus = FakeBus()
    process: Any = app.extensions["e2emsg"].process
    process.bus = bus
    return app, e2emsg, bus


def test_a_request_that_may_have_changed_something_raises_doubts_about_its_user(host: Host) -> None:
    app, _, bus = host
    alice = User(app, "alice")
    alice.client.post("/own", headers=alice.headers)
    alice.client.post("/own")
    assert bus.said == [("doubted", "alice"), ("doubted", None)]


def test_a_request_that_changes_nothing_raises_none(host: Host) -> None:
    app, _, bus = host
    alice = User(app, "alice")
    alice.client.get("/own", headers=alice.headers)
    alice.publish_key()
    alice.client.post("/nowhere", headers=alice.headers)
    assert bus.said == []


def test_a_published_key_raises_doubts_where_envelopes_are_compared_with_it(
    closing: Callable[[Flask], Flask],
) -> None:
    app, _, bus = make_host(closing, E2EMSG_CHECK_ENVELOPES=True)
    User(app, "alice").publish_key()
    assert bus.said == [("doubted", "alice")]


def test_what_is_stored_is_told_by_the_newest_position_of_each_mailbox(host: Host) -> None:
    app, _, bus = host
    alice, bob = User(app, "alice"), User(app, "bob")
    alice.publish_key()
    bob.publish_key()
    for _ in range(2):
        assert alice.send("bob").status_code == 201
    assert bus.said == [("grown", {"alice": n, "bob": n}) for n in (1, 2)]


def test_of_several_messages_in_one_commit_the_last_position_is_told(host: Host) -> None:
    app, _, bus = host
    alice, bob = User(app, "alice"), User(app, "bob")
    alice.publish_key()
    bob.publish_key()
    process: Process = app.extensions["e2emsg"].process
    sender = process.accounts.ensure("alice").owner
    messages = [outgoing(process.accounts.ensure("bob").owner) for _ in range(3)]
    process.router.commit(process.router.prepare(sender, messages, keeps_sent=False))
    assert bus.said == [("grown", {"bob": 3})]


def test_who_is_disconnected_is_looked_for_by_all(host: Host) -> None:
    app, e2emsg, bus = host
    User(app, "alice").publish_key()
    with app.app_context():
        assert e2emsg.disconnect("alice") == 0
        assert e2emsg.disconnect("nobody") == 0
    assert bus.said == [("ended", None)]


def test_an_event_is_told_whether_or_not_somebody_is_here(host: Host) -> None:
    app, e2emsg, bus = host
    with app.app_context():
        assert e2emsg.send_event("alice", "news", 1) == 0
    assert bus.said == [("told", ("alice", b'{"type":"event","name":"news","data":1}'))]


def test_that_workers_do_not_hear_each_other_is_said_once(
    closing: Callable[[Flask], Flask], caplog: pytest.LogCaptureFixture
) -> None:
    app, db = prepared_app(E2EMSG_BUS_URL="local")
    E2EMessaging().init_app(closing(app), db)
    process: Process = app.extensions["e2emsg"].process
    with app.app_context():
        db.create_all()
    process._renew()
    assert caplog.messages == []
    Leases(process.database, cap=1).renew()
    for _ in range(3):
        process._renew()
    [advice] = caplog.messages
    assert "Set E2EMSG_BUS_URL to the address of a Redis" in advice
