"""However loud a host's engine is: the values of our statements and rows are not in its log."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from flask_e2emsg import MessagingUserMixin
from flask_e2emsg.store.database import Conflict
from flask_e2emsg.store.history import Span
from flask_e2emsg.store.models import Base, accounts, messages
from tests.acceptance.canaries import Canaries
from tests.acceptance.wire import to_base64url
from tests.store.process import Process

KEY = bytes(range(7, 39))


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def loud_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The engine of a host that logs every statement and every row."""
    options = {"poolclass": StaticPool} if request.param == "memory" else {}
    memory = request.param == "memory"
    url = "sqlite://" if memory else str(request.getfixturevalue(f"{request.param}_url"))
    engine = create_engine(url, echo="debug", **options)
    if memory:
        Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    return caplog


@pytest.fixture
def process(loud_engine: Engine) -> Iterator[Process]:
    made = Process(loud_engine)
    yield made
    made.database.dispose()


def canaries_of(*values: bytes) -> Canaries:
    canaries = Canaries()
    for value in values:
        canaries.add(to_base64url(value))
    return canaries


def test_statements_and_rows_of_messages_are_logged_without_values(
    process: Process, loud: pytest.LogCaptureFixture
) -> None:
    text = secrets.token_urlsafe(48)
    alice, bob = process.user("alice"), process.user("bob")
    process.accounts.set_public_key("alice", KEY)
    process.send(alice, bob, text)
    process.send(alice, bob, text)
    process.ack(bob)
    assert len(process.entries(bob)) == 2
    assert process.history.with_contact(bob, alice, Span(10)).messages
    assert process.history.conversations(bob, None, 10)
    assert process.accounts.public_key("alice")
    assert "e2emsg_messages" in loud.text
    assert not canaries_of(text.encode(), KEY).found_in(loud.text)
    assert text not in loud.text


def test_an_error_of_a_statement_does_not_quote_its_values(process: Process) -> None:
    content = secrets.token_bytes(48)
    alice, bob = process.user("alice"), process.user("bob")
    message_id = process.send(alice, bob)
    with process.database.read() as connection:
        row = dict(connection.execute(sa.select(messages)).mappings().one())
    again = {**row, "id": message_id, "encrypted_content": content}
    with pytest.raises(Conflict) as raised, process.database.write() as connection:
        connection.execute(sa.insert(messages), again)
    told = "".join(traceback.format_exception(raised.value))
    assert "IntegrityError" in told
    assert not canaries_of(content).found_in(told)
    assert repr(content)[2:20] not in told


class HostBase(DeclarativeBase):
    """A host's own models."""


class HostUser(MessagingUserMixin, HostBase):
    __tablename__ = "loud_users"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def session(loud_engine: Engine) -> Iterator[Session]:
    HostBase.metadata.create_all(loud_engine)
    with Session(loud_engine) as made:
        yield made
    HostBase.metadata.drop_all(loud_engine)


def test_a_key_that_a_host_assigns_is_not_in_its_log(
    session: Session, loud: pytest.LogCaptureFixture
) -> None:
    session.add(HostUser(id=7, public_key=KEY))
    session.commit()
    assert session.scalar(sa.select(accounts.c.key_version)) == 1
    assert "INSERT INTO e2emsg_accounts" in loud.text
    assert not canaries_of(KEY).found_in(loud.text)


def test_the_search_would_see_a_value_in_a_hosts_log(
    session: Session, loud: pytest.LogCaptureFixture
) -> None:
    # A host that reads the key at `echo="debug"` has asked SQLAlchemy for every row.
    session.add(HostUser(id=7, public_key=KEY))
    session.commit()
    assert session.scalar(sa.select(HostUser.public_key)) == KEY
    assert canaries_of(KEY).found_in(loud.text)
