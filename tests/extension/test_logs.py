"""What a host finds in its log when something fails: where, and of what kind, but no secrets."""

from __future__ import annotations

import logging
import secrets

import pytest
import sqlalchemy as sa
from flask import Flask, request
from sqlalchemy.exc import SQLAlchemyError

from flask_e2emsg import E2EMessaging
from tests.acceptance.canaries import Canaries
from tests.acceptance.wire import to_base64url
from tests.extension.apps import User, prepared_app, with_messaging

CONTENT = secrets.token_bytes(48)


class QuotesTheRequest(Exception):
    """An error whose text has in it whatever came in."""

    def __init__(self) -> None:
        super().__init__(request.get_data(as_text=True), repr(CONTENT), CONTENT.hex())


def failing_rule(sender: str, recipient: str, conversation_id: str | None) -> bool:
    raise QuotesTheRequest


def failing_statement(user_id: str) -> bool:
    with sa.create_engine("sqlite://").connect() as connection:
        connection.execute(sa.text("SELECT :content FROM nowhere"), {"content": CONTENT})
    return True


@pytest.fixture
def e2emsg() -> E2EMessaging:
    return E2EMessaging()


@pytest.fixture
def app(e2emsg: E2EMessaging) -> Flask:
    return with_messaging(*prepared_app(), e2emsg)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def secrets_in(text: str, token: str) -> list[str]:
    canaries = Canaries()
    canaries.add(to_base64url(CONTENT))
    canaries.add(token)
    return canaries.found_in(text)


def test_a_failing_rule_is_named_and_what_it_quotes_is_not(
    app: Flask, e2emsg: E2EMessaging, log: pytest.LogCaptureFixture
) -> None:
    alice, bob = User(app, "alice"), User(app, "bob")
    bob.publish_key()
    e2emsg.authorize_send = failing_rule
    assert alice.send("bob", CONTENT).status_code == 500
    assert "a request failed: QuotesTheRequest" in log.text
    assert "in failing_rule" in log.text
    assert not secrets_in(log.text, alice.token)
    assert all(record.exc_info is None for record in log.records)


def test_a_failing_statement_of_the_host_is_told_without_its_values(
    app: Flask, e2emsg: E2EMessaging, log: pytest.LogCaptureFixture
) -> None:
    alice = User(app, "alice")
    e2emsg.user_is_active = failing_statement
    assert alice.get("/session").status_code == 503
    assert "the database failed: OperationalError" in log.text
    assert not secrets_in(log.text, alice.token)
    with pytest.raises(SQLAlchemyError) as raised:
        failing_statement("alice")
    assert secrets_in(str(raised.value), alice.token)  # So it would have been in the log.


def test_the_hosts_own_report_of_an_error_has_no_token_in_it(
    app: Flask, log: pytest.LogCaptureFixture
) -> None:
    def view() -> str:
        raise RuntimeError(f"odd request: {request.url} {request.headers['Authorization']}")

    app.add_url_rule("/fails", view_func=view)
    alice = User(app, "alice")
    answer = alice.client.get(f"/fails?token={alice.token}&x=1", headers=alice.headers)
    assert answer.status_code == 500
    assert "Exception on /fails [GET]" in log.text
    assert "RuntimeError: odd request: http://localhost/fails?token=***&x=1 Bearer ***" in log.text
    assert not secrets_in(log.text, alice.token)


def test_what_a_crash_would_lose_is_said_once(app: Flask, log: pytest.LogCaptureFixture) -> None:
    alice = User(app, "alice")
    alice.publish_key()
    assert [alice.send("alice").status_code for _ in range(2)] == [201, 201]
    assert log.text.count("The database is in memory") == 1


def test_a_strict_host_refuses_what_a_crash_would_lose(log: pytest.LogCaptureFixture) -> None:
    alice = User(with_messaging(*prepared_app(E2EMSG_REQUIRE_DURABILITY=True)), "alice")
    alice.publish_key()
    assert alice.send("alice").status_code == 503
    assert "NO MESSAGE IS ACCEPTED" in log.text
