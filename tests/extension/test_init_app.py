"""What a host must have, what it may have, and what the extension leaves alone."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Blueprint, Flask
from flask_jwt_extended import JWTManager, create_access_token, current_user, jwt_required
from flask_migrate import Migrate
from flask_sock import Sock
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from flask_e2emsg import ConfigurationError, E2EMessaging
from flask_e2emsg.config import Settings
from flask_e2emsg.store.models import Base
from tests.extension.apps import User, bare_app, json_of, prepared_app, with_messaging

Closing = Callable[[Flask], Flask]


def cure(app: Flask, db: SQLAlchemy | None = None) -> str:
    """What the extension says about an app that it cannot be added to."""
    with pytest.raises(ConfigurationError) as refused:
        E2EMessaging().init_app(app, db)
    assert "e2emsg" not in app.extensions
    assert "e2emsg" not in app.blueprints
    return str(refused.value)


# Prerequisites.


def test_without_flask_sqlalchemy_it_says_so() -> None:
    app = bare_app()
    JWTManager(app)
    assert "`db = SQLAlchemy()`" in cure(app)


def test_with_a_database_that_is_not_the_apps_it_says_so(closing: Closing) -> None:
    app = bare_app()
    JWTManager(app)
    assert "`db.init_app(app)`" in cure(app, SQLAlchemy())
    prepared, _ = prepared_app()
    assert "`db.init_app(app)`" in cure(closing(prepared), SQLAlchemy())


def test_without_flask_jwt_extended_it_says_so(closing: Closing) -> None:
    app, db = bare_app(), SQLAlchemy()
    db.init_app(closing(app))
    assert "`JWTManager(app)`" in cure(app, db)


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_it_says_so(closing: Closing, secret: str | None) -> None:
    app, db = prepared_app(JWT_SECRET_KEY=secret, SECRET_KEY=secret)
    assert "JWT_SECRET_KEY" in cure(closing(app), db)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "PS512"])
def test_without_a_public_key_for_its_algorithm_it_says_so(
    closing: Closing, algorithm: str
) -> None:
    app, db = prepared_app(JWT_ALGORITHM=algorithm)
    text = cure(closing(app), db)
    assert "JWT_PUBLIC_KEY" in text
    assert algorithm in text


def test_a_database_that_it_does_not_know_is_named(closing: Closing) -> None:
    driver = SimpleNamespace(paramstyle="format", version_info=(1, 4, 6), __version__="1.4.6")
    app, db = prepared_app(
        SQLALCHEMY_DATABASE_URI="mysql+mysqldb://host/database",
        SQLALCHEMY_ENGINE_OPTIONS={"module": driver},
    )
    text = cure(closing(app), db)
    assert "mysql" in text
    assert "PostgreSQL or SQLite" in text


def test_a_bus_that_the_database_does_not_have_is_refused(closing: Closing) -> None:
    app, db = prepared_app(E2EMSG_BUS_URL="postgresql")
    assert "the database is sqlite" in cure(closing(app), db)


def test_redis_without_its_client_is_refused(
    closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_e2emsg.channels.find_spec", lambda _name: None)
    app, db = prepared_app(E2EMSG_BUS_URL="redis://localhost")
    assert "pip install flask-e2emsg[redis]" in cure(closing(app), db)


def test_redis_without_a_secret_is_refused(closing: Closing) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    encoding = serialization.Encoding.PEM
    pem = key.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    settings = {"JWT_ALGORITHM": "RS256", "JWT_PUBLIC_KEY": pem.decode()}
    none = {"JWT_SECRET_KEY": None, "SECRET_KEY": None}
    app, db = prepared_app(E2EMSG_BUS_URL="redis://localhost", **settings, **none)
    assert "Set SECRET_KEY" in cure(closing(app), db)
    app, db = prepared_app(
        E2EMSG_BUS_URL="redis://localhost", **settings, **none | {"SECRET_KEY": "secret"}
    )
    E2EMessaging().init_app(closing(app), db)


def test_adding_it_twice_is_refused(closing: Closing) -> None:
    app, db = prepared_app()
    E2EMessaging().init_app(closing(app), db)
    with pytest.raises(ConfigurationError, match="already set up"):
        E2EMessaging().init_app(app, db)


def test_using_it_in_an_app_without_it_is_refused() -> None:
    with bare_app().app_context(), pytest.raises(ConfigurationError, match="init_app"):
        E2EMessaging().send_event("alice", "news")


# Configuration.

WRONG: dict[str, list[object]] = {
    "URL_PREFIX": ["api", "/api/", "/", None, 5],
    "BUS_URL": ["nonsense", "http://localhost", 5, "", "redis://", "redis:///0", "Local", True],
    "BUS_CHANNEL": ["", 5, True, b"name"],
    "ALLOWED_ORIGINS": [
        *("https://app.example.com", [1], 5, ""),
        *(["app.example.com"], ["https://app.example.com/"], ["HTTPS://app.example.com"], [""]),
    ],
    "MAX_CONNECTIONS_PER_USER": [0, -1, "10", 1.5, True, None],
    "MAX_CONNECTIONS": [0, -1, "10", 1.5, True, 1_000_001],
    "MAX_FRAME_BYTES": [0, 1023, 16 * 1024 * 1024 + 1, "131072", None],
    "MAX_IN_FLIGHT": [0, -1, "256", None],
    "HEARTBEAT_SECONDS": [0, -1, "25", None, float("nan"), float("inf"), True],
    "SWEEP_SECONDS": [0, -1, "2", None, float("nan")],
    "WRITE_TIMEOUT_SECONDS": [0, -1, "10", None],
    "RATE_LIMIT": ["nonsense", "1200", "", 1200, "many/minute"],
    "MAX_UNDELIVERED": [0, -1, "10", 1.5, True],
    "MAX_UNDELIVERED_PER_SENDER": [0, -1, "10", 1.5, True],
    "HIDE_REFUSALS": [None, "yes", 1],
    "CHECK_ENVELOPES": [None, "yes", 1],
    "REQUIRE_DURABILITY": [None, "yes", 1],
    "RETENTION_DAYS": [0, -1, "7", float("nan"), float("inf")],
    "REQUIRED_CLAIMS": [None, "exp", [], ["jti"], [1, "exp"]],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(
    closing: Closing, key: str, value: object
) -> None:
    app, db = prepared_app(**{f"E2EMSG_{key}": value})
    assert f"E2EMSG_{key}" in cure(closing(app), db)


def test_a_refused_address_is_not_repeated(closing: Closing) -> None:
    app, db = prepared_app(E2EMSG_BUS_URL="amqp://:hunter2@localhost")
    assert "hunter2" not in cure(closing(app), db)


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_every_key_has_values_that_are_refused(field: str) -> None:
    assert field.upper() in WRONG


def test_an_unknown_key_is_refused_by_its_name(closing: Closing) -> None:
    app, db = prepared_app(E2EMSG_MAX_INFLIGHT=5, E2EMSG_ZEBRA=1)
    text = cure(closing(app), db)
    assert "E2EMSG_MAX_INFLIGHT, E2EMSG_ZEBRA" in text


@pytest.mark.parametrize(
    "settings",
    [
        {"E2EMSG_URL_PREFIX": ""},
        {"E2EMSG_URL_PREFIX": "/deep/er"},
        {"E2EMSG_BUS_URL": "local"},
        {"E2EMSG_ALLOWED_ORIGINS": "*"},
        {"E2EMSG_ALLOWED_ORIGINS": []},
        {"E2EMSG_RATE_LIMIT": None},
        {"E2EMSG_RATE_LIMIT": "5/second"},
        {"E2EMSG_RETENTION_DAYS": 0.5},
        {"E2EMSG_SWEEP_SECONDS": 1},
    ],
    ids=str,
)
def test_right_values_are_taken(closing: Closing, settings: dict[str, object]) -> None:
    app = with_messaging(*prepared_app(**settings))
    prefix = settings.get("E2EMSG_URL_PREFIX", "/api")
    assert User(closing(app), "alice", prefix=str(prefix)).publish_key().status_code == 200


def test_the_hosts_configuration_is_read_and_not_written(closing: Closing) -> None:
    app, db = prepared_app(E2EMSG_ALLOWED_ORIGINS=["https://a.example"])
    before = copy.deepcopy(dict(app.config))
    with_messaging(closing(app), db)
    User(app, "alice").publish_key()
    User(app, "alice").get("/ws")
    assert dict(app.config) == before


def test_changing_a_key_afterwards_changes_nothing(closing: Closing) -> None:
    app = with_messaging(*prepared_app())
    closing(app).config["E2EMSG_MAX_FRAME_BYTES"] = 1
    app.config["E2EMSG_NONSENSE"] = 1
    assert User(app, "alice").publish_key().status_code == 200


# Ways to add it.


def two_who_write_to_each_other(app: Flask, prefix: str = "/api") -> None:
    """The shortest proof that messaging works in an app."""
    alice, bob = User(app, "alice", prefix), User(app, "bob", prefix)
    assert [user.publish_key().status_code for user in (alice, bob)] == [200, 200]
    assert alice.send("bob").status_code == 201
    assert bob.history_with("alice") == alice.history_with("bob") == ["aGVsbG8"]


def test_the_constructor_can_do_it(closing: Closing) -> None:
    app, db = prepared_app()
    E2EMessaging(closing(app), db)
    with app.app_context():
        db.create_all()
    two_who_write_to_each_other(app)


def test_the_apps_own_database_is_found_without_being_named(closing: Closing) -> None:
    app, db = prepared_app()
    E2EMessaging().init_app(closing(app))
    with app.app_context():
        db.create_all()
    two_who_write_to_each_other(app)


def test_an_app_factory_can_make_apps_with_shared_extensions(
    closing: Closing, tmp_path: Path
) -> None:
    db, jwt, e2emsg = SQLAlchemy(), JWTManager(), E2EMessaging()

    def create_app(name: str) -> Flask:
        app = bare_app(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / name}.sqlite")
        db.init_app(app)
        jwt.init_app(app)
        return closing(with_messaging(app, db, e2emsg))

    one, other = create_app("one"), create_app("other")
    for app in (one, other):
        two_who_write_to_each_other(app)
    User(one, "alice").send("bob", b"only here")
    assert len(User(one, "bob").history_with("alice")) == 2
    assert len(User(other, "bob").history_with("alice")) == 1


def test_two_apps_with_different_settings_do_not_mix(closing: Closing, tmp_path: Path) -> None:
    large, small = (
        closing(with_messaging(*prepared_app(**settings)))
        for settings in (
            {"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'large.sqlite'}"},
            {
                "E2EMSG_URL_PREFIX": "/talk",
                "E2EMSG_MAX_FRAME_BYTES": 2048,
                "JWT_SECRET_KEY": "s" * 40,
            },
        )
    )
    two_who_write_to_each_other(large)
    two_who_write_to_each_other(small, "/talk")
    content = b"x" * 3000
    assert User(large, "alice").send("bob", content).status_code == 201
    assert User(small, "alice", "/talk").send("bob", content).status_code == 413
    assert User(small, "alice", "/api").publish_key().status_code == 404
    foreign = User(large, "alice").headers
    assert small.test_client().get("/talk/conversations", headers=foreign).status_code == 401


def test_hooks_belong_to_their_own_extension_object(closing: Closing) -> None:
    strict, lax = E2EMessaging(), E2EMessaging()
    strict.authorize_send(lambda _sender, recipient, _conversation: recipient != "bob")
    lax.authorize_send = lambda *_: True
    closed = closing(with_messaging(*prepared_app(), strict))
    open_ = closing(with_messaging(*prepared_app(), lax))
    for app, status in ((closed, 404), (open_, 201)):
        User(app, "bob").publish_key()
        assert User(app, "alice").send("bob").status_code == status


def test_a_database_in_memory_is_enough(closing: Closing) -> None:
    app = closing(with_messaging(*prepared_app()))
    two_who_write_to_each_other(app)
    alice, bob = User(app, "alice"), User(app, "bob")
    page = json_of(bob.get("/sync"))
    assert [entry["type"] for entry in page["entries"]] == ["message"]
    assert bob.post("/sync/ack", {"seq": page["head"]}).status_code == 200
    assert json_of(bob.post("/messages/alice/read", {"up_to": page["head"]})) == {"read": 1}
    kinds = [entry.get("kind") for entry in json_of(alice.get("/sync", limit=100))["entries"]]
    assert sorted(filter(None, kinds)) == ["delivered", "read"]


# A host with a life of its own.

CONVENTIONS = {
    "usual": {
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    },
    "with everybody's own names in it": {
        kind: f"host_{kind}_%(table_name)s_%(constraint_name)s" for kind in ("uq", "ck", "fk")
    },
}


def names_in(metadata: MetaData) -> dict[str, set[str]]:
    """The names of all constraints and indexes, by table."""
    return {
        table.name: {str(one.name) for one in table.constraints}
        | {str(one.name) for one in table.indexes}
        for table in metadata.sorted_tables
    }


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
def test_a_hosts_naming_convention_renames_nothing_of_ours(
    closing: Closing, convention: dict[str, str]
) -> None:
    class HostBase(DeclarativeBase):
        metadata = MetaData(naming_convention=convention)

    app, db = bare_app(), SQLAlchemy(model_class=HostBase)
    db.init_app(closing(app))
    JWTManager(app)
    with_messaging(app, db)
    assert names_in(db.metadata) == names_in(Base.metadata)
    two_who_write_to_each_other(app)


def test_a_host_keeps_its_sockets_blueprints_routes_and_commands(closing: Closing) -> None:
    app, db = prepared_app()
    sock, api = Sock(app), Blueprint("api", "host", url_prefix="/api")
    sock.route("/echo", endpoint="echo")(lambda ws: ws.send(ws.receive()))
    api.add_url_rule("/things", "things", lambda: "things")
    api.add_url_rule("/messages/inbox/count", "count", lambda: "7")
    api.add_url_rule("/keys/<name>/colour", "colour", lambda name: f"{name} is green")
    app.register_blueprint(api)
    Migrate(app, db)
    with_messaging(closing(app), db)
    app.add_url_rule("/late", "late", lambda: "late")
    client = app.test_client()
    for path, expected in [
        ("/api/things", "things"),
        ("/api/messages/inbox/count", "7"),
        ("/api/keys/front-door/colour", "front-door is green"),
        ("/late", "late"),
    ]:
        assert client.get(path).text == expected
    sockets = {rule.rule for rule in app.url_map.iter_rules() if rule.websocket}
    assert sockets == {"/echo", "/api/ws"}
    assert {"db", "e2emsg"} <= app.cli.commands.keys()
    two_who_write_to_each_other(app)


def test_errors_and_headers_of_the_hosts_own_routes_stay_its_own(closing: Closing) -> None:
    app, db = prepared_app()
    app.register_error_handler(404, lambda _: ("the host's own page", 404))
    app.add_url_rule("/broken", view_func=broken)
    app.register_error_handler(ZeroDivisionError, lambda _: ("the host's own failure", 500))
    with_messaging(closing(app), db)
    client = app.test_client()
    assert client.get("/nowhere").text == "the host's own page"
    assert client.get("/broken").text == "the host's own failure"
    assert "Cache-Control" not in client.get("/nowhere").headers
    ours = client.get("/api/conversations")
    assert json_of(ours)["error"]["code"] == "unauthorized"
    assert ours.headers["Cache-Control"] == "no-store"


def broken() -> str:
    raise ZeroDivisionError


def test_the_hosts_own_jwt_errors_stay_its_own(closing: Closing) -> None:
    app, db = prepared_app()
    app.add_url_rule("/mine", view_func=jwt_required()(lambda: "mine"))
    with_messaging(closing(app), db)
    client, bad = app.test_client(), {"Authorization": "Bearer garbage"}
    assert client.get("/mine", headers=bad).status_code == 422
    assert client.get("/api/conversations", headers=bad).status_code == 401


# The host's own settings of Flask-JWT-Extended.


def rsa_pair() -> tuple[str, str]:
    """A private key and its public key, as text."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return secret.decode(), public.decode()


def test_tokens_may_be_signed_with_a_key_pair(closing: Closing) -> None:
    private, public = rsa_pair()
    app = with_messaging(
        *prepared_app(JWT_ALGORITHM="RS256", JWT_PRIVATE_KEY=private, JWT_PUBLIC_KEY=public)
    )
    two_who_write_to_each_other(closing(app))
    claims = {"sub": "alice", "type": "access", "jti": "1", "exp": 2**32}
    client = app.test_client()
    for forged in (
        pyjwt.encode(claims, private, algorithm="RS512"),
        pyjwt.encode(claims, rsa_pair()[0], algorithm="RS256"),
        pyjwt.encode(claims, "", algorithm="none"),
    ):
        headers = {"Authorization": f"Bearer {forged}"}
        assert client.get("/api/conversations", headers=headers).status_code == 401


def test_an_app_that_only_verifies_needs_no_private_key(closing: Closing) -> None:
    private, public = rsa_pair()
    app = with_messaging(*prepared_app(JWT_ALGORITHM="RS256", JWT_PUBLIC_KEY=public))
    claims = {"sub": "alice", "type": "access", "jti": "1", "exp": 2**32}
    headers = {"Authorization": f"Bearer {pyjwt.encode(claims, private, algorithm='RS256')}"}
    client = closing(app).test_client()
    assert client.get("/api/conversations", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"JWT_IDENTITY_CLAIM": "uid"},
        {"JWT_ENCODE_AUDIENCE": "talk", "JWT_DECODE_AUDIENCE": "talk"},
        {"JWT_ENCODE_ISSUER": "us", "JWT_DECODE_ISSUER": "us"},
        {"JWT_SECRET_KEY": None, "SECRET_KEY": "only Flask's own secret, long enough"},
        {"JWT_TOKEN_LOCATION": ["headers", "cookies", "json", "query_string"]},
        {"JWT_ALGORITHM": "HS512", "JWT_SECRET_KEY": "long enough for HS512 " * 4},
    ],
    ids=str,
)
def test_other_settings_of_the_host_are_kept(closing: Closing, settings: dict[str, object]) -> None:
    two_who_write_to_each_other(closing(with_messaging(*prepared_app(**settings))))


@pytest.mark.parametrize("kind", ["Token", ""])
def test_another_header_is_kept(closing: Closing, kind: str) -> None:
    app = with_messaging(*prepared_app(JWT_HEADER_NAME="X-Token", JWT_HEADER_TYPE=kind))
    alice = User(closing(app), "alice")
    assert alice.publish_key().status_code == 401
    alice.headers = {"X-Token": f"{kind} {alice.token}".strip()}
    assert alice.publish_key().status_code == 200
    assert alice.get("/ws").status_code == 426


def test_integers_may_be_identities(closing: Closing) -> None:
    app = closing(with_messaging(*prepared_app(JWT_VERIFY_SUB=False)))
    with app.app_context():
        headers = {"Authorization": f"Bearer {create_access_token(42)}"}
    session = app.test_client().get("/api/session", headers=headers)
    assert json_of(session)["user_id"] == "42"
    User(app, "7").publish_key()
    sent = app.test_client().post(
        "/api/messages",
        json={
            "id": "00000000-0000-4000-8000-000000000000",
            "to": "7",
            "encrypted_content": "aGVsbG8",
        },
        headers=headers,
    )
    assert sent.status_code == 201
    assert User(app, "7").history_with("42") == ["aGVsbG8"]


def test_cookies_with_csrf_protection_work_for_rest(closing: Closing) -> None:
    settings = {"JWT_TOKEN_LOCATION": ["cookies"], "JWT_COOKIE_CSRF_PROTECT": True}
    app = closing(with_messaging(*prepared_app(**settings)))
    alice = User(app, "alice")
    csrf = pyjwt.decode(alice.token, options={"verify_signature": False})["csrf"]
    alice.client.set_cookie("access_token_cookie", alice.token)
    alice.headers = {}
    assert alice.get("/conversations").status_code == 200
    assert alice.publish_key().status_code == 401
    alice.headers = {"X-CSRF-TOKEN": csrf}
    assert alice.publish_key().status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 403), ("https://evil.example", 403), ("http://localhost", 426)],
)
def test_a_cookie_alone_opens_no_socket_without_an_allowed_origin(
    closing: Closing, origin: str | None, status: int
) -> None:
    app = closing(with_messaging(*prepared_app(JWT_TOKEN_LOCATION=["cookies"])))
    alice = User(app, "alice")
    alice.client.set_cookie("access_token_cookie", alice.token)
    alice.headers = {} if origin is None else {"Origin": origin}
    assert alice.get("/ws").status_code == status


def test_a_token_in_the_body_leaves_the_body_to_us(closing: Closing) -> None:
    app = closing(with_messaging(*prepared_app(JWT_TOKEN_LOCATION=["json", "headers"])))
    alice = User(app, "alice")
    assert alice.publish_key().status_code == 200
    token, alice.headers = alice.token, {}
    body = {"id": "00000000-0000-4000-8000-000000000000", "to": "alice"}
    sent = alice.post("/messages", {**body, "encrypted_content": "aGk", "access_token": token})
    assert sent.status_code == 201


def test_the_hosts_user_lookup_decides(closing: Closing) -> None:
    app, db = bare_app(), SQLAlchemy()
    db.init_app(closing(app))
    jwt = JWTManager(app)

    @jwt.user_lookup_loader
    def find(_header: dict[str, Any], claims: dict[str, Any]) -> object:
        return None if claims["sub"] == "deleted" else SimpleNamespace(name=claims["sub"])

    app.add_url_rule("/me", view_func=jwt_required()(lambda: current_user.name))
    with_messaging(app, db)
    assert User(app, "alice").publish_key().status_code == 200
    assert User(app, "deleted").publish_key().status_code == 401
    assert User(app, "deleted").get("/ws").status_code == 401
    assert app.test_client().get("/me", headers=User(app, "alice").headers).text == "alice"


def test_the_hosts_blocklist_decides(closing: Closing) -> None:
    app, db = bare_app(), SQLAlchemy()
    db.init_app(closing(app))
    jwt, revoked = JWTManager(app), set[str]()

    @jwt.token_in_blocklist_loader
    def is_revoked(_header: dict[str, Any], claims: dict[str, Any]) -> bool:
        return claims["jti"] in revoked

    with_messaging(app, db)
    alice = User(app, "alice")
    assert alice.publish_key().status_code == 200
    claims = pyjwt.decode(alice.token, options={"verify_signature": False})
    revoked.add(claims["jti"])
    assert alice.publish_key().status_code == 401
    assert alice.get("/ws").status_code == 401
    assert User(app, "alice").publish_key().status_code == 200


def test_the_hosts_claims_verification_decides(closing: Closing) -> None:
    app, db = bare_app(), SQLAlchemy()
    db.init_app(closing(app))
    jwt = JWTManager(app)
    jwt.token_verification_loader(lambda _header, claims: claims.get("tenant") == "ours")
    with_messaging(app, db)
    assert User(app, "alice", tenant="theirs").publish_key().status_code == 401
    assert User(app, "alice", tenant="ours").publish_key().status_code == 200


# Without tables.


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/keys", {"public_key": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg"}),
        ("GET", "/keys/bob", None),
        ("GET", "/conversations", None),
        ("GET", "/sync", None),
        ("GET", "/messages/bob", None),
        (
            "POST",
            "/messages",
            {
                "id": "00000000-0000-4000-8000-000000000000",
                "to": "bob",
                "encrypted_content": "aGk",
            },
        ),
    ],
)
def test_missing_tables_are_named_with_their_cure_in_the_log_only(
    closing: Closing,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    body: dict[str, str] | None,
) -> None:
    app, db = prepared_app()
    E2EMessaging().init_app(closing(app), db)
    caplog.set_level(logging.INFO)
    alice = User(app, "alice")
    answer = alice.client.open(f"/api{path}", method=method, json=body, headers=alice.headers)
    assert answer.status_code in (500, 503)
    assert json_of(answer)["error"].keys() <= {"code", "message", "retry_after"}
    for leaked in ("e2emsg_", "Traceback", "sqlite", "SELECT", "INSERT"):
        assert leaked not in answer.text
    assert "flask db upgrade" in caplog.text
    assert "Traceback" not in caplog.text


def test_starting_and_serving_other_routes_needs_no_tables(closing: Closing) -> None:
    app, db = prepared_app()
    E2EMessaging().init_app(closing(app), db)
    app.add_url_rule("/", view_func=lambda: "hello")
    assert app.test_client().get("/").text == "hello"
    assert app.test_client().get("/api/conversations").status_code == 401
