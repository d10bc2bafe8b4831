"""The search for secrets in logs finds them, and a host that logs all of SQL finds none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha512
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.acceptance.authorisation import FRAMES, ROLES, ROUTES, STRANGER, World
from tests.acceptance.canaries import Canaries, LogWatch
from tests.acceptance.conftest import DATABASES, Hosting
from tests.acceptance.people import People
from tests.acceptance.rest import RestClient
from tests.acceptance.tokens import sign
from tests.acceptance.wire import new_content, new_id, to_base64url
from tests.servers import GunicornServer, WebServer

TOKEN = sign({"sub": "alice", "jti": "0191e7a4", "exp": 1_900_000_000}, "k" * 32)
OCTETS = sha512(b"content").digest()[:60]
CONTENT = to_base64url(OCTETS)
NOTED = {
    "a frame": (f'{{"type":"send","encrypted_content":"{CONTENT}"}}', CONTENT),
    "a frame with spaces": (f'{{"encrypted_content": "{CONTENT}"}}', CONTENT),
    "a key": (f'{{"public_key":"{CONTENT}"}}', CONTENT),
    "a ticket": (f'{{"ticket":"{CONTENT}","expires_in":30}}', CONTENT),
    "an answer with a token": (f'{{"access_token":"{TOKEN}"}}', TOKEN),
    "a header": (f"{{'Authorization': 'Bearer {TOKEN}'}}", f"Authorization: Bearer {TOKEN}"),
    "a subprotocol": (f"['e2emsg.v1', 'bearer.{TOKEN}']", TOKEN),
    "an address": (f"/api/ws?cursor=1&token={TOKEN} {{}}", TOKEN),
    "a ticket in an address": (f"/api/ws?ticket={CONTENT}&x=1", CONTENT),
}
WRITTEN = {
    "as it stands": f"got {CONTENT}!",
    "inside of something": f"got=<{CONTENT}>",
    "the middle of it": CONTENT[20:60],
    "the beginning, shortened": f"{CONTENT[:30]} ... (80 characters)",
    "the end": f"...{CONTENT[-30:]}",
    "its bytes": repr(OCTETS),
    "its bytes, shortened": repr(OCTETS)[:35],
    "in hexadecimal, as PostgreSQL does": f"(7, \\x{OCTETS.hex()})",
}


@pytest.mark.parametrize("name", NOTED)
def test_a_secret_that_was_noted_is_found(name: str) -> None:
    canaries, (text, leak) = Canaries(), NOTED[name]
    canaries.note(text)
    assert canaries.found_in(f"a line\n{leak}\nanother")
    assert not canaries.found_in(f"a line\n{'x' * 80} {new_content(60)}\nanother")


@pytest.mark.parametrize("name", WRITTEN)
def test_a_secret_is_found_however_it_is_written(name: str) -> None:
    canaries = Canaries()
    canaries.add(CONTENT)
    assert canaries.found_in(f"a line\nDEBUG {WRITTEN[name]}\n")


def test_of_a_token_the_signature_alone_is_found_and_the_header_is_not() -> None:
    canaries = Canaries()
    canaries.add(TOKEN)
    header, _, signature = TOKEN.split(".")
    assert canaries.found_in(f"signed {signature}")
    assert not canaries.found_in(f"{header}.*** {header}")


def test_a_percent_encoded_secret_is_found() -> None:
    canaries, secret = Canaries(), "no JWT, but / & + a long text; " * 2
    canaries.note(f"/api/ws?token={quote(secret, safe='')}")
    assert canaries.found_in(f"refused {quote(secret, safe='')}")


def test_each_part_of_a_log_is_read_once(tmp_path: Path) -> None:
    path, canaries = tmp_path / "log", Canaries()
    watch = LogWatch(path, canaries)
    watch.check()
    path.write_bytes(b"a line\nand \xff a half")
    watch.check()
    canaries.add(CONTENT)
    with path.open("ab") as log:
        log.write(f" {CONTENT}\n".encode())
    with pytest.raises(AssertionError, match="1 secrets in"):
        watch.check()
    watch.check()
    assert canaries.searched_bytes == path.stat().st_size


# A host that logs everything, rows and statements of the database as well.


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, hosting: Hosting) -> Iterator[WebServer]:
    env = {**hosting.environment(request.param), "SQL_LOG_LEVEL": "DEBUG"}
    with GunicornServer(env=env, log_path=hosting.log_path()) as running:
        yield running


def test_a_host_that_logs_all_of_sql_logs_no_secret(server: WebServer, people: People) -> None:
    world = World.of(*(people.new(role).enrol() for role in ROLES[:0:-1]))
    use_every_route(world)
    use_every_frame(world)
    provoke_errors(world)
    world.recipient.connect_with(query={"ticket": ticket_of(world)}).round_trip()
    revoked = world.stranger.token()
    assert RestClient(server.url, revoked).post("/revoke", {}).status == 200
    assert RestClient(server.url, revoked).get("/api/session").status == 401
    log = server.log()
    for statement in ("e2emsg_accounts", "e2emsg_tickets", "revoked_tokens"):
        assert statement in log  # The fixtures search it for secrets.


def use_every_route(world: World) -> None:
    for (method, _), row in ROUTES.items():
        for role in ROLES:
            person = world.person(role)
            rest = RestClient(world.sender.server.url) if person is None else person.rest
            body = None if row.body is None else json.dumps(row.body(world, role)).encode()
            for target in row.targets(world, role):
                rest.call(method, target, body)


def use_every_frame(world: World) -> None:
    for person, role in ((world.sender, "sender"), (world.recipient, "recipient")):
        client = person.connect(world.recipients_cursor)
        for kind, row in FRAMES.items():
            client.send_frame({**row.frame(world, role), "type": kind})
        client.store(person.id)


def provoke_errors(world: World) -> None:
    """Errors whose texts might quote what was wrong."""
    client = world.stranger.connect()
    taken = {"id": world.message_id, "to": world.recipient.id, "encrypted_content": new_content()}
    for members in (
        taken,
        {**taken, "id": "no uuid"},
        {**taken, "id": new_id(), "to": "somebody-unknown"},
        {**taken, "id": new_id(), "encrypted_content": new_content() + "="},
        {**taken, "id": new_id(), "expires_in": new_content()},
    ):
        client.send_frame({"type": "send", **members})
        client.expect("error", ref=members["id"])
        assert world.person(STRANGER) is world.stranger
        assert world.stranger.rest.post("/api/messages", members).status >= 400
    client.send_frame({"type": "refresh", "token": TOKEN + "x"})
    client.error("unauthorized")
    client.send_text(f'{{"type": "send", "encrypted_content": "{new_content()}", ')
    client.error("bad_request")


def ticket_of(world: World) -> str:
    return str(world.recipient.rest.post("/api/ws-ticket", {}).json["ticket"])
