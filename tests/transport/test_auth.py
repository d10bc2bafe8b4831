"""The gate's judgements, one by one: who is asking, from where, and is it a handshake."""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import urlencode

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token

from flask_e2emsg.config import Settings
from flask_e2emsg.errors import BadRequest, OriginDenied, Unauthorized, UpgradeRequired
from flask_e2emsg.protocol.values import encode_binary
from flask_e2emsg.store.tickets import Ticket, Tickets
from flask_e2emsg.transport import auth

SECRET = "a secret of these tests, long enough for HS256"
SETTINGS = Settings()
LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)


class FakeTickets:
    """One ticket of alice's, good once."""

    def __init__(self, text: str = "her-ticket", expires_at: datetime = LATER) -> None:
        self.held = {text: Ticket("alice", expires_at, '[{}, {"sub": "alice"}]')}

    def look_at(self, text: str) -> Ticket | None:
        return self.held.get(text)

    def redeem(self, text: str) -> bool:
        return self.held.pop(text, None) is not None


def new_app(**config: object) -> Flask:
    app = Flask(__name__)
    app.config.update({"JWT_SECRET_KEY": SECRET, **config})
    JWTManager(app)
    return app


@pytest.fixture
def app() -> Flask:
    return new_app()


def token(app: Flask, user_id: object = "alice", minutes: int = 60, **claims: object) -> str:
    with app.app_context():
        lifetime = timedelta(minutes=minutes)
        text = create_access_token(user_id, expires_delta=lifetime, additional_claims=claims)
    return str(text)


def at_the_socket(
    app: Flask,
    query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    tickets: FakeTickets | None = None,
) -> auth.Identity:
    """Who a handshake with these carriers is from."""
    held = cast(Tickets, tickets or FakeTickets())
    with app.test_request_context(f"/api/ws?{urlencode(query)}", headers=headers):
        return auth.identify_socket(SETTINGS, held)


def by_itself(app: Flask, text: str) -> auth.Identity:
    """What a socket makes of a token that comes in a frame."""
    with app.test_request_context():
        return auth.identify_token(text, SETTINGS)


def at_a_route(
    app: Flask, target: str = "/", settings: Settings = SETTINGS, **request: Any
) -> auth.Identity:
    """Who a REST request is from."""
    with app.test_request_context(target, **request):
        return auth.identify_request(settings)


def carriers(**given: str) -> dict[str, Any]:
    """A handshake with a token in several places: `header`, `protocol`, `ticket`, `query`."""
    headers = {}
    if "header" in given:
        headers["Authorization"] = f"Bearer {given['header']}"
    if "protocol" in given:
        headers["Sec-WebSocket-Protocol"] = f"e2emsg.v1, bearer.{given['protocol']}"
    if "cookie" in given:
        headers["Cookie"] = f"access_token_cookie={given['cookie']}"
    names = {"ticket": "ticket", "query": "token"}
    query = {name: given[carrier] for carrier, name in names.items() if carrier in given}
    return {"query": query, "headers": headers}


# Carriers on the socket.


@pytest.mark.parametrize("carrier", ["header", "protocol", "query"])
def test_each_carrier_tells_who_it_is_and_until_when(app: Flask, carrier: str) -> None:
    text = token(app)
    expires_at = pyjwt.decode(text, options={"verify_signature": False})["exp"]
    identity = at_the_socket(app, **carriers(**{carrier: text}))
    assert identity.user_id == "alice"
    assert identity.expires_at == datetime.fromtimestamp(expires_at, UTC)


def test_a_ticket_stands_for_the_token_that_asked_for_it_once(app: Flask) -> None:
    tickets = FakeTickets()
    identity = at_the_socket(app, {"ticket": "her-ticket"}, tickets=tickets)
    assert (identity.user_id, identity.expires_at) == ("alice", LATER)
    auth.use_ticket(identity, cast(Tickets, tickets))
    with pytest.raises(Unauthorized):
        auth.use_ticket(identity, cast(Tickets, tickets))


def test_an_identity_survives_its_ticket(app: Flask) -> None:
    text = token(app, role="nurse")
    identity = at_the_socket(app, **carriers(header=text))
    again = auth.Identity.of_ticket(identity.to_ticket(), "her-ticket")
    assert (again.user_id, again.expires_at) == (identity.user_id, identity.expires_at)
    assert (again.header, again.claims) == (identity.header, identity.claims)
    assert again.claims["role"] == "nurse"


def test_a_ticket_of_a_token_that_was_revoked_since_is_refused() -> None:
    app, revoked = new_app(), set[str]()
    app.extensions["flask-jwt-extended"].token_in_blocklist_loader(
        lambda _header, claims: claims["jti"] in revoked
    )
    identity = at_the_socket(app, **carriers(header=token(app)))
    tickets = FakeTickets()
    tickets.held["her-ticket"] = identity.to_ticket()
    assert at_the_socket(app, {"ticket": "her-ticket"}, tickets=tickets).user_id == "alice"
    revoked.add(identity.claims["jti"])
    with pytest.raises(Unauthorized):
        at_the_socket(app, {"ticket": "her-ticket"}, tickets=tickets)


def test_a_host_with_leeway_ends_a_token_that_much_later() -> None:
    app = new_app(JWT_DECODE_LEEWAY=30)
    just_expired = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=20)
    text = signed(exp=int(just_expired.timestamp()))
    identity = at_the_socket(app, **carriers(header=text))
    assert identity.expires_at == just_expired + timedelta(seconds=30)
    with pytest.raises(Unauthorized):
        at_the_socket(app, **carriers(header=signed(exp=int(just_expired.timestamp()) - 15)))


def test_a_ticket_is_worth_nothing_after_its_token_has_expired(app: Flask) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(Unauthorized):
        at_the_socket(app, {"ticket": "t"}, tickets=FakeTickets("t", past))


def test_a_cookie_counts_only_where_the_host_keeps_its_tokens_in_cookies() -> None:
    cookies, headers = new_app(JWT_TOKEN_LOCATION=["cookies"]), new_app()
    assert at_the_socket(cookies, **carriers(cookie=token(cookies))).user_id == "alice"
    with pytest.raises(Unauthorized):
        at_the_socket(headers, **carriers(cookie=token(headers)))


def test_a_cookie_needs_no_csrf_token_on_the_socket() -> None:
    # The Origin takes that part: browsers cannot set headers on a WebSocket.
    app = new_app(JWT_TOKEN_LOCATION=["cookies"], JWT_COOKIE_CSRF_PROTECT=True)
    text = token(app, csrf="something")
    assert at_the_socket(app, **carriers(cookie=text)).user_id == "alice"


ORDER = ["header", "protocol", "ticket", "query", "cookie"]


@pytest.mark.parametrize("first", range(len(ORDER) - 1))
def test_of_several_carriers_of_one_user_the_first_in_order_wins(first: int) -> None:
    app = new_app(JWT_TOKEN_LOCATION=["headers", "cookies"])
    given = {carrier: token(app, minutes=number) for number, carrier in enumerate(ORDER, start=5)}
    given["ticket"] = "her-ticket"
    expected = LATER
    if ORDER[first] != "ticket":
        claims = pyjwt.decode(given[ORDER[first]], options={"verify_signature": False})
        expected = datetime.fromtimestamp(claims["exp"], UTC)
    chosen = carriers(**{carrier: given[carrier] for carrier in ORDER[first:]})
    assert at_the_socket(app, **chosen).expires_at == expected


@pytest.mark.parametrize("one", ORDER)
@pytest.mark.parametrize("other", ORDER)
def test_two_carriers_of_different_users_are_nobody(one: str, other: str) -> None:
    if one == other:
        return
    app = new_app(JWT_TOKEN_LOCATION=["headers", "cookies"])
    given = {one: token(app, "alice"), other: token(app, "bob")}
    if "ticket" in given:  # alice's
        given[one if other == "ticket" else other] = token(app, "bob")
        given["ticket"] = "her-ticket"
    with pytest.raises(Unauthorized):
        at_the_socket(app, **carriers(**given))


def test_two_tokens_of_different_users_in_one_query_are_nobody(app: Flask) -> None:
    query = [("token", token(app, "alice")), ("token", token(app, "bob"))]
    with pytest.raises(Unauthorized):
        at_the_socket(app, query)


BAD = ["", "garbage", "a b", "a,b", "\x00", "é", "{forged}", "{refresh}"]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise(ORDER[1:])))
def test_a_bad_first_carrier_is_not_saved_by_a_good_later_one(
    bad: str, first: str, second: str
) -> None:
    app = new_app(JWT_TOKEN_LOCATION=["headers", "cookies"])
    with app.app_context():
        forged = pyjwt.encode({"sub": "alice"}, "another secret, long enough for HS256")
        text = bad.format(forged=forged, refresh=create_refresh_token("alice"))
    good = "her-ticket" if second == "ticket" else token(app)
    at_the_socket(app, **carriers(**{second: good}))
    with pytest.raises(Unauthorized):
        at_the_socket(app, **carriers(**{first: text, second: good}))


def test_a_header_of_another_scheme_is_no_carrier(app: Flask) -> None:
    given = carriers(query=token(app))
    given["headers"] = {"Authorization": "Basic YWxpY2U6eA=="}
    assert at_the_socket(app, **given).user_id == "alice"
    with pytest.raises(Unauthorized):
        at_the_socket(app, headers=given["headers"])


@pytest.mark.parametrize("kind", ["JWT", ""])
def test_the_hosts_header_name_and_type_are_kept(kind: str) -> None:
    app = new_app(JWT_HEADER_NAME="X-Our-Token", JWT_HEADER_TYPE=kind)
    headers = {"X-Our-Token": f"{kind} {token(app)}".strip()}
    assert at_the_socket(app, headers=headers).user_id == "alice"
    assert at_a_route(app, headers=headers).user_id == "alice"
    with pytest.raises(Unauthorized):
        at_a_route(app, headers={"Authorization": f"Bearer {token(app)}"})
    assert at_the_socket(app, {"token": token(app)}).user_id == "alice"


def test_the_hosts_identity_claim_is_kept() -> None:
    app = new_app(JWT_IDENTITY_CLAIM="uid")
    assert at_the_socket(app, {"token": token(app)}).user_id == "alice"
    foreign = pyjwt.encode({"sub": "alice", "type": "access", "jti": "1", "exp": 2**32}, SECRET)
    with pytest.raises(Unauthorized):
        at_the_socket(app, {"token": foreign})


def test_identities_may_be_integers_where_the_host_says_so() -> None:
    app = new_app(JWT_VERIFY_SUB=False)
    assert at_the_socket(app, {"token": token(app, 42)}).user_id == "42"
    assert at_a_route(app, headers={"Authorization": f"Bearer {token(app, 42)}"}).user_id == "42"


# Tokens.


def signed(**claims: object) -> str:
    """A token of the right key with these claims; None leaves one out."""
    usual = {"sub": "alice", "type": "access", "jti": "1", "exp": LATER}
    merged = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return pyjwt.encode(merged, SECRET)


LACKING = [
    {"exp": None},
    {"jti": None},
    {"type": None},
    {"type": "refresh"},
    {"type": "other"},
    {"sub": ""},
    {"sub": None},
    {"sub": "x" * 256},
    {"sub": "a\x00b"},
    {"exp": 1},
    {"nbf": 2**32},
]


@pytest.mark.parametrize("claims", LACKING, ids=str)
def test_a_signed_token_that_lacks_something_is_nobodys(
    app: Flask, claims: dict[str, object]
) -> None:
    text = signed(**claims)
    with pytest.raises(Unauthorized):
        at_the_socket(app, {"token": text})
    with pytest.raises(Unauthorized):
        at_a_route(app, headers={"Authorization": f"Bearer {text}"})
    with pytest.raises(Unauthorized):
        by_itself(app, text)


@pytest.mark.parametrize("claims", [{"jti": None}, {"type": None}, {"exp": None}], ids=str)
def test_the_claims_that_count_are_those_of_the_token_that_was_verified(
    app: Flask, claims: dict[str, object]
) -> None:
    # Flask-JWT-Extended takes the part of the header that begins with the scheme.
    decoy = signed()
    header = f"X Bearer {decoy}, Bearer {signed(**claims)}"
    with pytest.raises(Unauthorized):
        at_a_route(app, headers={"Authorization": header})


def test_a_host_may_ask_for_fewer_claims(app: Flask) -> None:
    settings = Settings(required_claims=["exp"])
    headers = {"Authorization": f"Bearer {signed(jti=None, type=None)}"}
    assert at_a_route(app, settings=settings, headers=headers).user_id == "alice"


def test_the_public_key_of_a_host_is_no_secret_to_sign_with() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    app = new_app(JWT_ALGORITHM="RS256", JWT_PRIVATE_KEY=private, JWT_PUBLIC_KEY=pem.decode())
    good = token(app)
    assert at_the_socket(app, {"token": good}).user_id == "alice"
    header = encode_binary(b'{"alg":"HS256","typ":"JWT"}')
    text = f"{header}.{good.split('.')[1]}"
    forged = hmac.digest(pem, text.encode(), "sha256")
    with pytest.raises(Unauthorized):
        at_the_socket(app, {"token": f"{text}.{encode_binary(forged)}"})


def test_a_bare_token_is_judged_by_the_hosts_rules() -> None:
    app = new_app(JWT_HEADER_NAME="X-Our-Token", JWT_HEADER_TYPE="", JWT_IDENTITY_CLAIM="uid")
    assert by_itself(app, token(app)).user_id == "alice"
    for bad in ("", "a b", "Bearer x", "x" * 10_000, "\r\nX: y"):
        with pytest.raises(Unauthorized):
            by_itself(app, bad)


# REST.


def test_a_token_in_the_query_is_no_credential_whatever_the_host_configured() -> None:
    app = new_app(JWT_TOKEN_LOCATION=["query_string"], JWT_QUERY_STRING_NAME="token")
    with pytest.raises(Unauthorized):
        at_a_route(app, f"/?token={token(app)}")
    assert at_a_route(app, headers={"Authorization": f"Bearer {token(app)}"}).user_id == "alice"


def test_with_cookies_only_a_header_opens_no_route() -> None:
    app = new_app(JWT_TOKEN_LOCATION=["cookies"], JWT_COOKIE_CSRF_PROTECT=False)
    cookie = {"Cookie": f"access_token_cookie={token(app)}"}
    assert at_a_route(app, headers=cookie).user_id == "alice"
    with pytest.raises(Unauthorized):
        at_a_route(app, headers={"Authorization": f"Bearer {token(app)}"})


def test_a_cookie_needs_its_csrf_token_where_the_host_protects_it() -> None:
    app = new_app(JWT_TOKEN_LOCATION=["cookies"], JWT_COOKIE_CSRF_PROTECT=True)
    text = token(app)
    csrf = pyjwt.decode(text, options={"verify_signature": False})["csrf"]
    cookie = {"Cookie": f"access_token_cookie={text}"}
    with pytest.raises(Unauthorized):
        at_a_route(app, method="POST", headers=cookie)
    with pytest.raises(Unauthorized):
        at_a_route(app, method="POST", headers={**cookie, "X-CSRF-TOKEN": "guessed"})
    headers = {**cookie, "X-CSRF-TOKEN": csrf}
    assert at_a_route(app, method="POST", headers=headers).user_id == "alice"


# Origins. The request goes to `https://app.example.com`.

HOST = "app.example.com"
OWN = [
    "https://app.example.com",
    "https://app.example.com:443",
    "HTTPS://APP.EXAMPLE.COM",
    # Behind a proxy that ends TLS, the scheme that reaches us says nothing.
    "http://app.example.com",
]
FOREIGN = [
    "https://evil.example",
    "null",
    "",
    "https://app.example.com.evil.example",  # the own origin as a prefix
    "https://evil-app.example.com",  # and as a suffix
    "https://xapp.example.com",
    "https://example.com",
    "https://sub.app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com:80",
    "http://app.example.com:443",
    "https://app.example.com:0",
    "https://app.example.com:x",
    "https://app.example.com:99999",
    "https://app.example.com@evil.example",
    "https://evil.example@app.example.com",
    "https://user:password@app.example.com",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com?query",
    "https://app.example.com#fragment",
    "https://app.example.com https://evil.example",
    "https://app.example.com,https://evil.example",
    "https://evil.example/https://app.example.com",
    "https://[app.example.com]",
    "https://app.example.com.",
    "app.example.com",
    "//app.example.com",
    "ws://app.example.com",
    "wss://app.example.com",
    "ftp://app.example.com",
    "file://app.example.com",
    "chrome-extension://app.example.com",
]


def from_origin(
    app: Flask, origin: str | None, settings: Settings = SETTINGS, *, required: bool = False
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    base = f"https://{HOST}"
    with app.test_request_context("/api/ws", base_url=base, headers=headers):
        auth.check_origin(settings, required=required)


@pytest.mark.parametrize("origin", OWN)
def test_the_own_origin_is_welcome(app: Flask, origin: str) -> None:
    from_origin(app, origin)
    from_origin(app, origin, required=True)


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_foreign_origin_is_denied(app: Flask, origin: str) -> None:
    with pytest.raises(OriginDenied):
        from_origin(app, origin)


def test_who_sends_no_origin_is_no_browser_unless_only_a_cookie_speaks_for_it(app: Flask) -> None:
    from_origin(app, None)
    with pytest.raises(OriginDenied):
        from_origin(app, None, required=True)


@pytest.mark.parametrize(
    ("host", "origin", "is_own"),
    [
        ("localhost:5000", "http://localhost:5000", True),
        ("localhost:5000", "http://localhost", False),
        ("localhost:5000", "http://127.0.0.1:5000", False),
        ("localhost:80", "http://localhost", True),
        ("[::1]:5000", "http://[::1]:5000", True),
        ("[::1]:5000", "http://[::2]:5000", False),
    ],
)
def test_the_port_belongs_to_the_own_origin(
    app: Flask, host: str, origin: str, is_own: bool
) -> None:
    headers = {"Origin": origin, "Host": host}
    with app.test_request_context("/api/ws", headers=headers):
        if is_own:
            auth.check_origin(SETTINGS, required=True)
        else:
            with pytest.raises(OriginDenied):
                auth.check_origin(SETTINGS, required=True)


LISTED = Settings(allowed_origins=["https://one.example", "https://two.example:8443", "null"])


@pytest.mark.parametrize("origin", ["https://one.example", "https://two.example:8443", "null"])
def test_a_listed_origin_is_welcome(app: Flask, origin: str) -> None:
    from_origin(app, origin, LISTED, required=True)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",  # a list replaces the default
        "https://two.example",
        "http://one.example",
        "https://one.example:443",
        "https://one.example.evil.example",
        "https://ONE.example",
        "https://one.example/",
        "*",
        "",
    ],
)
def test_what_is_not_listed_word_for_word_is_denied(app: Flask, origin: str) -> None:
    with pytest.raises(OriginDenied):
        from_origin(app, origin, LISTED)


def test_a_star_lets_every_origin_in(app: Flask) -> None:
    for origin in (*OWN, *FOREIGN):
        from_origin(app, origin, Settings(allowed_origins="*"))


def test_a_star_does_not_let_a_cookie_come_along_from_anywhere(app: Flask) -> None:
    settings = Settings(allowed_origins="*")
    from_origin(app, OWN[0], settings, required=True)
    for origin in FOREIGN:
        with pytest.raises(OriginDenied):
            from_origin(app, origin, settings, required=True)


def test_an_empty_list_lets_no_browser_in(app: Flask) -> None:
    with pytest.raises(OriginDenied):
        from_origin(app, OWN[0], Settings(allowed_origins=[]))
    from_origin(app, None, Settings(allowed_origins=[]))


# The handshake.

GOOD = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def check(app: Flask, headers: Mapping[str, str], protocol: str = "HTTP/1.1") -> None:
    environ = {"SERVER_PROTOCOL": protocol}
    with app.test_request_context("/api/ws", headers=dict(headers), environ_overrides=environ):
        auth.check_handshake("Upgrade" in headers)


def test_a_good_handshake_passes(app: Flask) -> None:
    check(app, GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Version": ""},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": "13, 8"},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "c2hvcnQ="},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==\tx"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZSBpcyB0b28gbG9uZw=="},
        {"Sec-WebSocket-Key": "!" * 24},
        {"Sec-WebSocket-Key": "é" * 24},
        {"Upgrade": None},
    ],
    ids=str,
)
def test_a_handshake_with_something_wrong_in_it_is_a_bad_request(
    app: Flask, change: dict[str, str | None]
) -> None:
    changed = {**GOOD, **change}
    headers = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(BadRequest):
        check(app, headers)


def test_a_handshake_needs_the_protocol_that_knows_upgrades(app: Flask) -> None:
    with pytest.raises(BadRequest):
        check(app, GOOD, "HTTP/1.0")


def test_an_ordinary_get_is_told_to_upgrade(app: Flask) -> None:
    with pytest.raises(UpgradeRequired):
        check(app, {"Accept": "*/*"})


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        (None, None),
        ("chat", None),
        ("e2emsg.v1", "e2emsg.v1"),
        ("chat,e2emsg.v1 , bearer.x", "e2emsg.v1"),
        ("e2emsg.v10", None),
        ("E2EMSG.V1", None),
    ],
)
def test_only_our_subprotocol_is_ever_chosen(
    app: Flask, offer: str | None, expected: str | None
) -> None:
    headers = {} if offer is None else {"Sec-WebSocket-Protocol": offer}
    with app.test_request_context("/api/ws", headers=headers):
        assert auth.offered_subprotocol() == expected


@pytest.mark.parametrize(
    "text", ["", "x", "0123456789abcdef", "0123456789abcdef:", "0123456789ABCDEF:1", "0:0", ":1"]
)
def test_a_malformed_cursor_is_a_bad_request(app: Flask, text: str) -> None:
    target = f"/api/ws?{urlencode({'cursor': text})}"
    with app.test_request_context(target), pytest.raises(BadRequest):
        auth.requested_cursor()


def test_a_cursor_is_an_epoch_and_a_position(app: Flask) -> None:
    with app.test_request_context("/api/ws"):
        assert auth.requested_cursor() is None
    with app.test_request_context("/api/ws?cursor=0123456789abcdef:7"):
        cursor = auth.requested_cursor()
        assert cursor is not None
        assert (cursor.epoch, cursor.seq) == ("0123456789abcdef", 7)
