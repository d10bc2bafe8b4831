"""What is past its time is nowhere in the database, and addresses of clients never are."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, create_engine, make_url

from tests.acceptance.authorisation import World
from tests.acceptance.canaries import Canaries
from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.people import People, Person
from tests.acceptance.wire import new_content, new_id
from tests.servers import GunicornServer, WebServer, run_once, wait_until

A_MOMENT_IN_DAYS = "0.0000001"  # 9 ms: over before the command that purges has started


@pytest.fixture(scope="module", params=DATABASES)
def env(request: pytest.FixtureRequest, hosting: Hosting) -> dict[str, str]:
    return hosting.environment(request.param)


@pytest.fixture(scope="module")
def server(env: dict[str, str], hosting: Hosting) -> Iterator[WebServer]:
    with GunicornServer(env=env, log_path=hosting.log_path()) as running:
        yield running


@pytest.fixture
def engine(env: dict[str, str]) -> Iterator[Engine]:
    made = create_engine(env["DATABASE_URL"])
    yield made
    made.dispose()


def dump(engine: Engine, *, without: type | tuple[()] = ()) -> str:
    """Every value in every table, of the host's tables too, but for those of one type."""
    tables = sa.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        return "\n".join(
            f"{table.name} {[value for value in row if not isinstance(value, without)]}"
            for table in tables.sorted_tables
            for row in connection.execute(sa.select(table))
        )


def rows_of(engine: Engine) -> list[str]:
    """The tables that a message, its receipts and a ticket have rows in."""
    tables = ("e2emsg_messages", "e2emsg_events", "e2emsg_tickets")
    return [line for line in dump(engine).splitlines() if line.startswith(tables)]


def purge(env: dict[str, str], **settings: str) -> None:
    command = ("--app", "tests.acceptance.host:create_app", "e2emsg", "purge")
    run_once("flask", *command, env={**env, **settings})


def exchange(world: World, **members: object) -> str:
    """A message that is delivered, read and receipted, and the receipts acknowledged; its id."""
    sender, recipient = world.sender.connect(), world.recipient.connect()
    message_id = new_id()
    sender.store(
        world.recipient.id,
        world.content,
        message_id=message_id,
        conversation_id=world.conversation_id,
        **members,
    )
    recipient.message(message_id)
    recipient.ack()
    sender.receipts("delivered", [message_id])
    recipient.send_frame({"type": "read", "ids": [message_id]})
    sender.receipts("read", [message_id])
    sender.ack()
    assert world.sender.rest.post("/api/sync/ack", {"seq": 0}).status == 200
    for client in (sender, recipient):
        client.close()
    return message_id


@pytest.fixture
def world(people: People) -> World:
    sender, recipient = people.new("alice").enrol(), people.new("bob").enrol()
    return World(sender, recipient, sender, "", new_content(3000), f"room-{new_id()}", "", "")


def canaries_of(world: World, message_id: str) -> Canaries:
    """What must not be found, also with an id without its hyphens."""
    canaries = Canaries()
    for secret in (world.content, message_id, message_id.replace("-", ""), world.conversation_id):
        canaries.add(secret)
    return canaries


def expire_tickets(engine: Engine) -> None:
    """Let half a minute pass for the tickets."""
    tickets = sa.table("e2emsg_tickets", sa.column("expires_at", sa.DateTime(timezone=True)))
    with engine.begin() as connection:
        connection.execute(sa.update(tickets).values(expires_at=sa.func.current_timestamp()))


def wait_for_the_end(person: Person, message_id: str) -> None:
    """Return when a message that expires is no longer in the history."""

    def is_gone() -> bool:
        page = person.rest.get("/api/sync", cursor=f"{epoch}:0").json
        return message_id not in [entry.get("id") for entry in page["entries"]]

    epoch = person.rest.get("/api/sync").json["epoch"]
    wait_until(is_gone, 10, lambda: f"{message_id} does not expire")


def by_expiry(world: World, env: dict[str, str]) -> str:
    message_id = exchange(world, expires_in=2)
    wait_for_the_end(world.recipient, message_id)
    return message_id


def by_retention(world: World, env: dict[str, str]) -> str:
    message_id = exchange(world)
    env["E2EMSG_RETENTION_DAYS"] = A_MOMENT_IN_DAYS
    return message_id


@pytest.mark.parametrize("let_pass", [by_expiry, by_retention])
def test_of_a_message_past_its_time_nothing_is_left(
    world: World,
    engine: Engine,
    env: dict[str, str],
    let_pass: Callable[[World, dict[str, str]], str],
) -> None:
    assert world.sender.rest.post("/api/ws-ticket", {}).status == 200
    settings = dict(env)
    message_id = let_pass(world, settings)
    canaries = canaries_of(world, message_id)
    assert len(lines_with(canaries, dump(engine))) == 3  # the message and two receipts
    expire_tickets(engine)
    purge(settings)
    assert not canaries.found_in(dump(engine))
    assert rows_of(engine) == []
    assert not content_in_files(engine, world.content)


def lines_with(canaries: Canaries, text: str) -> list[str]:
    return [line for line in text.splitlines() if canaries.found_in(line)]


def content_in_files(engine: Engine, content: str) -> list[Path]:
    """The files of a SQLite database that have a piece of the content in them."""
    if make_url(engine.url).get_backend_name() != "sqlite":
        return []
    path = str(engine.url.database)
    octets = base64.urlsafe_b64decode(content)
    pieces = [octets[start : start + 24] for start in range(0, len(octets) - 24, 500)]
    files = [Path(path), Path(f"{path}-wal")]
    return [
        file
        for file in files
        if file.exists() and any(piece in file.read_bytes() for piece in pieces)
    ]


def test_before_that_the_content_is_in_the_files(world: World, engine: Engine) -> None:
    message_id = exchange(world)
    is_sqlite = engine.dialect.name == "sqlite"
    assert bool(content_in_files(engine, world.content)) == is_sqlite
    assert canaries_of(world, message_id).found_in(dump(engine))


def test_no_address_of_a_client_is_stored(world: World, engine: Engine) -> None:
    exchange(world)
    assert world.sender.rest.post("/api/ws-ticket", {}).status == 200
    forwarded = {"X-Forwarded-For": "203.0.113.7", "User-Agent": "some browser"}
    assert world.sender.rest.call("GET", "/api/session", headers=forwarded).status == 200
    # Three bytes such as those of ::1 may stand in a ciphertext by chance.
    stored = dump(engine, without=bytes)
    assert world.sender.id in stored
    for address in ("127.0.0.1", "203.0.113.7", "some browser", "::1"):
        assert address not in stored
