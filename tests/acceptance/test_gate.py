"""The gate: everything is checked before the 101, judged by raw sockets (docs/protocol.md 2)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from tests.acceptance.client import SocketClient
from tests.acceptance.conftest import JWT_SECRET_KEY
from tests.acceptance.people import People, Person
from tests.acceptance.rest import HANDSHAKE, Header, RawAnswer, RestClient, raw_get, segment
from tests.acceptance.tokens import Claims, claims_of, sign, without
from tests.servers import WebServer, wait_until

OTHER_SECRET = "somebody else's secret, long enough for every algorithm " * 2
FOREIGN_ORIGINS = [
    "https://evil.example",
    "null",
    "",
    "http://localhost",
    "{origin}.evil.example",
    "http://evil.example@{host}",
    "{origin}0",
    "{origin}/",
    "http://x{host}",
    "{host}",
    "{origin} http://evil.example",
]


def altered(token: str) -> str:
    """The token with another user in it, under the old signature."""
    header, _, signature = token.split(".")
    other = sign({**claims_of(token), "sub": "mallory"}, OTHER_SECRET).split(".")[1]
    return f"{header}.{other}.{signature}"


def changed(**members: Any) -> Callable[[str], str]:
    """A kind of token: the good one's claims with these changed, under the right key."""
    return lambda token: sign({**claims_of(token), **members}, JWT_SECRET_KEY)


def lacking(*names: str) -> Callable[[str], str]:
    """A kind of token: the good one's claims without these, under the right key."""
    return lambda token: sign(without(claims_of(token), *names), JWT_SECRET_KEY)


def foreign(token: str) -> str:
    """What another program with the same key would mint: no type, no jti, no end."""
    claims: Claims = {"sub": claims_of(token)["sub"]}
    return sign(claims, JWT_SECRET_KEY)


BAD_TOKENS: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "no JWT": lambda _: "garbage",
    "only dots": lambda _: "..",
    "not ASCII": lambda _: "\xe9\xff",
    "two segments": lambda token: token.rsplit(".", 1)[0],
    "four segments": lambda token: token + ".x",
    "cut signature": lambda token: token[:-4],
    "altered claims": altered,
    "forged with another key": lambda token: sign(claims_of(token), OTHER_SECRET),
    "algorithm none": lambda token: sign(claims_of(token), "", "none"),
    "another algorithm": lambda token: sign(claims_of(token), JWT_SECRET_KEY, "HS512"),
    "expired": changed(exp=int(time.time()) - 60),
    "not yet valid": changed(nbf=int(time.time()) + 3600),
    "refresh token": changed(type="refresh"),
    "no exp": lacking("exp"),
    "exp null": changed(exp=None),
    "exp a text": changed(exp="never"),
    "no type": lacking("type"),
    "no user": lacking("sub"),
    "empty user": changed(sub=""),
    "user of 256 characters": changed(sub="x" * 256),
    "user a list": changed(sub=["alice"]),
    "foreign program": foreign,
}


def knock(server: WebServer, *headers: Header, query: str = "") -> RawAnswer:
    """A well-formed WebSocket handshake with these additional headers."""
    return raw_get(server.url, f"/api/ws{query}", [*HANDSHAKE, *headers])


def bearer(token: str) -> Header:
    return ("Authorization", f"Bearer {token}")


def assert_refused(answer: RawAnswer, status: int, code: str) -> None:
    """An ordinary HTTP refusal, with not one byte of WebSocket."""
    assert (answer.status, answer.after) == (status, b""), answer
    assert answer.code == code
    assert answer.headers["content-type"].startswith("application/json")
    assert "sec-websocket-accept" not in answer.headers


@pytest.fixture
def refusal(server: WebServer) -> RawAnswer:
    """The one body of every 401: that of a handshake without any credential."""
    answer = knock(server)
    assert_refused(answer, 401, "unauthorized")
    return answer


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_a_bad_token_gets_the_one_401(alice: Person, refusal: RawAnswer, kind: str) -> None:
    token = BAD_TOKENS[kind](alice.token())
    server = alice.server
    for answer in [
        knock(server, bearer(token)),
        knock(server, query=f"?token={segment(token)}"),
        knock(server, ("Sec-WebSocket-Protocol", f"e2emsg.v1, bearer.{token}")),
    ]:
        assert_refused(answer, 401, "unauthorized")
        assert answer.body == refusal.body


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_a_bad_token_gets_the_same_401_from_rest(
    alice: Person, bob: Person, refusal: RawAnswer, kind: str
) -> None:
    token = BAD_TOKENS[kind](alice.token())
    answer = raw_get(alice.server.url, f"/api/keys/{segment(bob.id)}", [bearer(token)])
    assert_refused(answer, 401, "unauthorized")
    assert answer.body == refusal.body


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_a_bad_token_gets_401_from_a_plain_get_too(alice: Person, kind: str) -> None:
    answer = raw_get(alice.server.url, "/api/ws", [bearer(BAD_TOKENS[kind](alice.token()))])
    assert_refused(answer, 401, "unauthorized")


@pytest.mark.parametrize(
    "value",
    ["Basic YWxpY2U6c2VjcmV0", "Bearer", "Bearer ", "{token}", "Token {token}", "Bearer a b"],
)
def test_an_authorization_header_that_is_no_bearer_gets_401(
    alice: Person, refusal: RawAnswer, value: str
) -> None:
    answer = knock(alice.server, ("Authorization", value.format(token=alice.token())))
    assert_refused(answer, 401, "unauthorized")
    assert answer.body == refusal.body


def test_a_revoked_token_gets_the_same_401(alice: Person, refusal: RawAnswer) -> None:
    token = alice.token()
    assert alice.rest.call("POST", "/revoke", b"", dict([bearer(token)])).status == 200
    for answer in [
        knock(alice.server, bearer(token)),
        knock(alice.server, query=f"?token={token}"),
    ]:
        assert_refused(answer, 401, "unauthorized")
        assert answer.body == refusal.body


def test_a_refused_user_gets_no_account(people: People, bob: Person) -> None:
    ghost = people.new("ghost")
    knock(ghost.server, bearer(BAD_TOKENS["expired"](ghost.token())))
    client = bob.connect()
    client.send(ghost.id)
    client.error("unknown_recipient")


def test_an_authorised_plain_get_gets_426(alice: Person) -> None:
    answer = raw_get(alice.server.url, "/api/ws", [bearer(alice.token())])
    assert_refused(answer, 426, "upgrade_required")


@pytest.mark.parametrize(
    "change",
    [
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "not base64 !!!!!!!!!!!!!"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": "thirteen"},
        {"Connection": "close"},
    ],
    ids=str,
)
def test_a_malformed_handshake_gets_400(alice: Person, change: dict[str, str | None]) -> None:
    headers = {**dict(HANDSHAKE), **change}
    kept = [(name, value) for name, value in headers.items() if value is not None]
    answer = raw_get(alice.server.url, "/api/ws", [*kept, bearer(alice.token())])
    assert_refused(answer, 400, "bad_request")


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_origin_gets_403(alice: Person, origin: str) -> None:
    own = alice.server.url
    value = origin.format(origin=own, host=own.removeprefix("http://"))
    answer = knock(alice.server, bearer(alice.token()), ("Origin", value))
    assert_refused(answer, 403, "origin_denied")


def test_the_own_origin_and_no_origin_are_welcome(alice: Person) -> None:
    own = ("Origin", alice.server.url)
    assert knock(alice.server, bearer(alice.token()), own).status == 101
    assert knock(alice.server, bearer(alice.token())).status == 101


def test_a_handshake_in_odd_spelling_is_welcome(alice: Person) -> None:
    odd = [("connection", "keep-alive, UPGRADE"), ("UPGRADE", "WebSocket"), *HANDSHAKE[2:]]
    answer = raw_get(alice.server.url, "/api/ws", [*odd, bearer(alice.token())])
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "offer",
    ["permessage-deflate", "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"],
)
def test_compression_is_never_negotiated(alice: Person, offer: str) -> None:
    answer = knock(alice.server, bearer(alice.token()), ("Sec-WebSocket-Extensions", offer))
    assert answer.status == 101
    assert "sec-websocket-extensions" not in answer.headers


def test_no_subprotocol_is_echoed_when_none_was_offered(alice: Person) -> None:
    answer = knock(alice.server, bearer(alice.token()))
    assert "sec-websocket-protocol" not in answer.headers


def test_the_bearer_header_is_a_carrier(alice: Person) -> None:
    alice.connect_with(headers=dict([bearer(alice.token())])).round_trip()


def test_the_token_in_the_query_is_a_carrier(alice: Person) -> None:
    alice.connect_with(query={"token": alice.token()}).round_trip()


def test_the_subprotocol_list_is_a_carrier_and_only_the_name_is_echoed(alice: Person) -> None:
    client = alice.connect_with(subprotocols=["e2emsg.v1", f"bearer.{alice.token()}"])
    assert client.socket.subprotocol == "e2emsg.v1"
    client.round_trip()


def test_the_subprotocol_name_can_be_offered_with_another_carrier(alice: Person) -> None:
    query = {"token": alice.token()}
    client = alice.connect_with(query=query, subprotocols=["e2emsg.v1"])
    assert client.socket.subprotocol == "e2emsg.v1"


def handshakes(**tokens: str) -> dict[str, Any]:
    """One handshake with several carriers: `header`, `protocol`, `query`."""
    carriers: dict[str, Any] = {}
    if "header" in tokens:
        carriers["headers"] = dict([bearer(tokens["header"])])
    if "protocol" in tokens:
        carriers["subprotocols"] = ["e2emsg.v1", f"bearer.{tokens['protocol']}"]
    if "query" in tokens:
        carriers["query"] = {"token": tokens["query"]}
    return carriers


@pytest.mark.parametrize(
    ("winner", "loser"), [("header", "protocol"), ("header", "query"), ("protocol", "query")]
)
def test_of_two_tokens_of_one_user_the_first_carrier_wins(
    alice: Person, winner: str, loser: str
) -> None:
    wins, loses = alice.token(expires_in=500), alice.token(expires_in=5000)
    client = alice.connect_with(**handshakes(**{winner: wins, loser: loses}))
    expected = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(claims_of(wins)["exp"]))
    assert client.hello["expires_at"] == expected


@pytest.mark.parametrize(
    ("one", "other"), [("header", "protocol"), ("header", "query"), ("protocol", "query")]
)
def test_two_carriers_of_different_users_get_401(
    alice: Person, bob: Person, one: str, other: str
) -> None:
    tokens = {one: alice.token(), other: bob.token()}
    with pytest.raises(InvalidStatus) as refused:
        SocketClient(alice.server.ws_url, alice.id, **handshakes(**tokens))
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(("bad", "good"), [("header", "protocol"), ("header", "query")])
def test_a_bad_token_in_the_first_carrier_is_not_saved_by_a_later_one(
    alice: Person, bad: str, good: str
) -> None:
    tokens = {bad: BAD_TOKENS["expired"](alice.token()), good: alice.token()}
    with pytest.raises(InvalidStatus) as refused:
        SocketClient(alice.server.ws_url, alice.id, **handshakes(**tokens))
    assert refused.value.response.status_code == 401


def test_a_token_in_the_query_opens_no_rest_route(alice: Person, refusal: RawAnswer) -> None:
    for path in ["/api/conversations", f"/api/keys/{segment(alice.id)}", "/api/sync"]:
        answer = raw_get(alice.server.url, f"{path}?token={alice.token()}", [])
        assert_refused(answer, 401, "unauthorized")
        assert answer.body == refusal.body


@pytest.fixture
def at_the_cap(people: People) -> Person:
    """Somebody with ten open connections, the default cap."""
    person = people.new("busy")
    for _ in range(10):
        person.connect()
    return person


def test_over_the_cap_gets_429(at_the_cap: Person, alice: Person) -> None:
    answer = knock(at_the_cap.server, bearer(at_the_cap.token()))
    assert_refused(answer, 429, "too_many_connections")
    assert int(answer.headers["retry-after"]) > 0
    alice.connect().round_trip()
    for client in at_the_cap.clients:
        client.round_trip()


@pytest.mark.parametrize("end", [SocketClient.close, SocketClient.abandon])
def test_a_connection_that_ends_makes_room_under_the_cap(
    at_the_cap: Person, end: Callable[[SocketClient], None]
) -> None:
    end(at_the_cap.clients[3])
    token = at_the_cap.token()

    def is_let_in() -> bool:
        return knock(at_the_cap.server, bearer(token)).status == 101

    wait_until(is_let_in, 5, lambda: "still 429")


def test_refused_handshakes_do_not_count_against_the_cap(people: People) -> None:
    person = people.new()
    for _ in range(15):
        assert raw_get(person.server.url, "/api/ws", [bearer(person.token())]).status == 426
    person.connect().round_trip()


def test_many_open_sockets_leave_the_database_to_others(people: People, alice: Person) -> None:
    # The host's own token check uses its scoped session in the request that becomes a socket:
    # if that request kept its connection, the pool of 15 would be empty long before forty.
    clients = [people.new("idle").connect() for _ in range(40)]
    started = time.monotonic()
    for _ in range(5):
        assert alice.rest.get("/api/conversations").status == 200
    assert time.monotonic() - started < 5
    for client in clients:
        client.round_trip()


def test_a_preflight_needs_no_credentials(alice: Person) -> None:
    answer = RestClient(alice.server.url).call("OPTIONS", "/api/keys")
    assert (answer.status, answer.body) == (200, b"")
    assert "POST" in answer.headers["allow"]


def test_a_client_that_resets_in_its_handshake_leaves_no_trace(alice: Person, bob: Person) -> None:
    address = urlsplit(alice.server.url)
    lines = [f"GET /api/ws?token={alice.token()} HTTP/1.1", f"Host: {address.netloc}"]
    request = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in HANDSHAKE), "", ""])
    for _ in range(50):
        with socket.create_connection((str(address.hostname), address.port or 80)) as client:
            client.sendall(request.encode())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    bob.connect().expect("caught_up")
    assert " 500 " not in alice.server.log()
