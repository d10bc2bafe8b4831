"""README.md and docs/ say what is so: their blocks run, their tables agree with the code.

Every block is run as written, or, where it only names something, held against it. A host app is
made of the blocks that begin with a file's name, and of nothing else.
"""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import json
import os
import re
import runpy
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token
from flask_sqlalchemy import SQLAlchemy

import flask_e2emsg.gunicorn as gunicorn_settings
from benchmarks.workloads import WORKLOADS
from flask_e2emsg import E2EMessaging, errors
from flask_e2emsg.config import PREFIX, Settings
from flask_e2emsg.protocol import frames
from flask_e2emsg.store.models import Base
from flask_e2emsg.transport.framing import REASONS
from tests.acceptance.envelopes import sealed
from tests.acceptance.rest import RestClient
from tests.acceptance.tokens import sign
from tests.acceptance.wire import SERVER_FRAMES, check_frame, new_id
from tests.docs.hosts import SECRET, Host, connect, exchange, published, rest, run
from tests.docs.markdown import Block, Page, in_backticks
from tests.servers import (
    REPOSITORY,
    FlaskRunServer,
    GunicornServer,
    WebServer,
    run_once,
    wait_until,
)

README = Page.at("README.md")
INTEGRATION = Page.at("docs/integration.md")
CONFIGURATION = Page.at("docs/configuration.md")
PROTOCOL = Page.at("docs/protocol.md")
SECURITY = Page.at("docs/security.md")
DEPLOYMENT = Page.at("docs/deployment.md")
PERFORMANCE = Page.at("docs/performance.md")
SCALING = Page.at("docs/scaling.md")
CRYPTO = Page.at("docs/crypto.md")
CLIENTS = Page.at("docs/clients.md")
RELIABILITY = Page.at("docs/reliability.md")
PAGES = [
    *(README, INTEGRATION, CONFIGURATION, PROTOCOL),
    *(SECURITY, DEPLOYMENT, PERFORMANCE, SCALING, CRYPTO, CLIENTS, RELIABILITY),
]

# SQL is run in tests/store, what is for a browser in tests/browser.
LANGUAGES = {"ini", "json", "python", "sh", "sql", "text", "html", "javascript"}
COMMANDS = {"flask", "gunicorn", "make", "pip", "python"}
LOG_SECONDS = 10.0


def commands(*pages: Page) -> list[str]:
    """Every line of the shell blocks."""
    return [line for page in pages for block in page.blocks("sh") for line in block.lines]


def arguments(command: str) -> list[str]:
    """The words of a shell line after its program."""
    return shlex.split(command, comments=True)[1:]


def migrating(page: Page) -> list[Block]:
    """The shell blocks that run `flask` commands to their end."""
    return [
        block
        for block in page.blocks("sh")
        if any(line.startswith("flask ") and line != "flask run" for line in block.lines)
    ]


# The pages themselves.


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_block_is_of_a_kind_that_is_checked(page: Page) -> None:
    assert {block.language for block in page.blocks()} <= LANGUAGES
    assert {line.split()[0] for line in commands(page)} <= COMMANDS


@pytest.mark.parametrize("command", commands(PERFORMANCE))
def test_the_page_on_performance_measures_what_can_be_measured(command: str) -> None:
    program, target, flags = shlex.split(command)
    assert (program, target) == ("make", "bench")
    words = shlex.split(flags.removeprefix("BENCH_FLAGS="))
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options.keys() == {"--servers", "--seconds", "--rounds", "--only"}
    assert float(options["--seconds"]) > 0
    assert int(options["--rounds"]) > 1
    servers = {server for workload in WORKLOADS for server in workload.servers}
    assert set(options["--servers"].split(",")) <= servers
    assert set(options["--only"].split(",")) <= {workload.name for workload in WORKLOADS}


def test_the_unit_for_systemd_starts_gunicorn_with_the_file_that_the_page_shows() -> None:
    (unit,) = DEPLOYMENT.blocks("ini")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(unit.text)
    words = shlex.split(settings["Service"]["ExecStart"])
    assert words[0].endswith("/gunicorn")
    started = next(line for line in commands(DEPLOYMENT) if line.startswith("gunicorn"))
    assert words[1:] == arguments(started)
    assert words[words.index("-c") + 1] in DEPLOYMENT.files()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links():
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.path.parent / path if path else page.path
        assert target.is_file(), f"{page} links to {link}"
        assert not anchor or anchor in Page(target).anchors(), f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_key_that_is_named_exists(page: Page) -> None:
    keys = {PREFIX + field.name.upper() for field in fields(Settings)}
    assert set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", page.text)) <= keys


# Configuration and integration, held against the code.


def test_the_table_of_keys_has_every_key_with_its_default() -> None:
    documented = {
        in_backticks(key)[0]: ast.literal_eval(in_backticks(default)[0])
        for key, default, _ in CONFIGURATION.rows("Configuration")
    }
    assert documented == {PREFIX + field.name.upper(): field.default for field in fields(Settings)}


def test_the_settings_for_gunicorn_are_those_that_ship() -> None:
    documented = [in_backticks(row[0])[0].split(" = ") for row in INTEGRATION.rows("The server")]
    names = {name for name, *_ in documented} | {"prepare_worker"}
    assert names == set(gunicorn_settings.__all__)
    for name, *value in documented:
        assert not value or ast.literal_eval(value[0]) == getattr(gunicorn_settings, name)


def test_the_tables_are_named() -> None:
    named = {text for text in INTEGRATION.code() if re.fullmatch(r"e2emsg_[a-z_]+", text)}
    assert named == set(Base.metadata.tables)


@pytest.mark.parametrize("command", [c for c in commands(*PAGES) if c.startswith("make")])
def test_make_has_the_target(command: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for word in arguments(command):
        variable, is_variable, _ = word.partition("=")
        used = rf"\$\({variable}\)" if is_variable else rf"^{word}:"
        assert re.search(used, makefile, re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in commands(*PAGES) if c.startswith("pip")])
def test_the_extras_exist(command: str) -> None:
    for requirement in arguments(command)[1:]:
        name, _, listed = requirement.rstrip("]").partition("[")
        known = own_extras() if name == "." else extras_of(name)
        assert set(listed.split(",")) <= known


def own_extras() -> set[str]:
    """The extras in setup.py; what is installed need not have been built from it."""
    for node in ast.walk(ast.parse((REPOSITORY / "setup.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == "extras_require":
            assert isinstance(node.value, ast.Dict)
            return {ast.literal_eval(key) for key in node.value.keys if key is not None}
    raise AssertionError("setup.py has no extras")


def extras_of(distribution: str) -> set[str]:
    listed = importlib.metadata.metadata(distribution).get_all("Provides-Extra") or ()
    return {name.replace("-", "_") for name in listed}


# The protocol's tables, held against the code.


def refusals(kind: type[errors.Refusal] = errors.Refusal) -> Iterator[type[errors.Refusal]]:
    for refusal in kind.__subclasses__():
        yield from refusals(refusal)
        if hasattr(refusal, "code"):
            yield refusal


def test_the_error_codes_are_those_of_the_code() -> None:
    rows = PROTOCOL.rows("6. Error codes")
    documented = {(in_backticks(code)[0], int(status)) for code, status, _ in rows}
    assert documented == {(one.code, one.http_status) for one in refusals()}


def test_the_refusals_before_the_101_are_among_the_error_codes() -> None:
    rows = PROTOCOL.rows("2. Connecting: `GET /api/ws`")
    known = {(one.code, one.http_status) for one in refusals()}
    assert {(in_backticks(code)[0], int(status)) for status, code, _ in rows} <= known


def test_the_codes_with_a_retry_after_are_named() -> None:
    after = PROTOCOL.prose.split("carry `retry_after`")[0].rpartition("\n\n")[2]
    with_retry = {one.code for one in refusals() if one.retry_after is not None}
    assert set(in_backticks(after)) == with_retry - {"too_many_connections"}


def test_the_close_codes_are_those_of_the_code() -> None:
    rows = PROTOCOL.rows("5. Close codes")
    assert {int(in_backticks(row[0])[0]) for row in rows} == set(REASONS)


def test_the_servers_frames_have_the_members_that_are_listed() -> None:
    documented = {
        in_backticks(kind)[0]: {name.strip() for name in in_backticks(members)[0].split(",")}
        for kind, members, _ in PROTOCOL.rows("Server to client")
    }
    assert documented == {kind: set(members) for kind, members in SERVER_FRAMES.items()}


def test_the_clients_frames_are_those_that_the_server_knows() -> None:
    documented = {in_backticks(row[0])[0] for row in PROTOCOL.rows("Client to server")}
    names = [kind.__name__ for kind in get_args(frames.ClientFrame)]
    assert documented == {re.sub("(?<!^)(?=[A-Z])", "_", name).lower() for name in names}


@pytest.mark.parametrize("block", PROTOCOL.blocks("json"), ids=lambda block: block.place)
def test_the_examples_are_frames(block: Block) -> None:
    for line in block.lines:
        frame = json.loads(line)
        if frame["type"] in SERVER_FRAMES:
            check_frame(frame)
        else:
            frames.decode(line.encode())


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """A Flask app on an empty database, before messaging is added; its folder is the current."""
    monkeypatch.chdir(tmp_path)
    app = Flask("documents")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'documents.sqlite'}"
    app.config["JWT_SECRET_KEY"] = SECRET
    yield app
    app.extensions["e2emsg"].database.dispose()
    with app.app_context():
        app.extensions["sqlalchemy"].engine.dispose()


def add_messaging(app: Flask) -> None:
    db = SQLAlchemy()
    db.init_app(app)
    JWTManager(app)
    E2EMessaging(app, db)
    with app.app_context():
        db.create_all()


def test_the_routes_are_those_of_the_app(app: Flask) -> None:
    add_messaging(app)
    calls = [in_backticks(row[0])[0] for row in PROTOCOL.rows("7. REST")]
    routes = {
        f"{method} {re.sub('<[^:]*:', '<', rule.rule)}"
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {*calls, "GET /api/ws"} == routes


# Pieces of configuration.


def piece_with(text: str) -> Block:
    """The one Python block of a page that is no file and has this text in it."""
    pieces = [block for block in INTEGRATION.blocks("python") if block.file_name is None]
    (piece,) = [block for block in pieces if text in block.text]
    return piece


def execute(block: Block, app: Flask) -> None:
    exec(compile(block.text, block.place, "exec"), {"app": app})


def test_every_piece_is_run() -> None:
    pieces = [block for block in INTEGRATION.blocks("python") if block.file_name is None]
    assert pieces == [piece_with("cookies"), piece_with("RS256")]
    assert not [block for block in README.blocks("python") if block.file_name is None]


def test_tokens_in_cookies(app: Flask) -> None:
    execute(piece_with("cookies"), app)
    add_messaging(app)
    client = app.test_client()
    with app.app_context():
        client.set_cookie("access_token_cookie", create_access_token("7"))
    answer = client.get("/api/session")
    assert (answer.status_code, answer.get_json()["user_id"]) == (200, "7")
    # The cookie alone may not change anything.
    assert client.post("/api/keys", json={}).status_code == 401


def test_tokens_of_an_identity_provider(app: Flask, tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "issuer.pem").write_bytes(public)
    execute(piece_with("RS256"), app)
    add_messaging(app)

    def status_of(**changes: object) -> int:
        claims: dict[str, Any] = {
            "sub": "them|7",
            "exp": int(time.time()) + 60,
            "iss": app.config["JWT_DECODE_ISSUER"],
            "aud": app.config["JWT_DECODE_AUDIENCE"],
            **changes,
        }
        bearer = sign(claims, private.decode(), "RS256")
        headers = {"Authorization": f"Bearer {bearer}"}
        return app.test_client().get("/api/session", headers=headers).status_code

    assert status_of() == status_of(type="access") == 200
    assert status_of(type="refresh") == status_of(aud="others") == status_of(iss="others") == 401


# Host apps made of the pages' blocks.


def run_flask_commands(host: Host, block: Block) -> None:
    for line in block.lines:
        host.flask(*arguments(line))


@pytest.mark.parametrize(
    ("page", "block"),
    [(page, block) for page in (README, INTEGRATION) for block in migrating(page)],
    ids=lambda value: value.place if isinstance(value, Block) else "",
)
def test_flask_commands_run_and_make_all_tables(page: Page, block: Block, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", page.files())
    if "flask db init" not in block.text:
        run_flask_commands(host, migrating(page)[0])
    run_flask_commands(host, block)
    assert set(Base.metadata.tables) <= host.tables()
    # Nothing of messaging is left for the host's own next migration.
    before = host.revisions()
    host.flask("db", "migrate", "--message", "what is left")
    new = [text for text in host.revisions() if text not in before]
    assert not [text for text in new if "e2emsg" in text]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Page, Host]:
    """The app of each page, with its tables."""
    folder = tmp_path_factory.mktemp("documents")
    made = {page: Host(folder / page.path.stem, page.files()) for page in (README, INTEGRATION)}
    for page, host in made.items():
        run_flask_commands(host, migrating(page)[0])
    return made


def gunicorn_commands(page: Page) -> list[str]:
    lines = [*commands(page), *page.code()]
    return [line for line in lines if line.startswith("gunicorn -")]


def assert_sockets_are_closed_politely(server: GunicornServer) -> None:
    client = connect(server, new_id())
    os.kill(server.pid, signal.SIGTERM)
    client.expect_close(1012)


@pytest.mark.parametrize(
    ("page", "command"),
    [(page, line) for page in (README, INTEGRATION) for line in gunicorn_commands(page)],
    ids=str,
)
def test_gunicorn_serves_the_app(
    page: Page, command: str, hosts: Mapping[Page, Host], tmp_path: Path
) -> None:
    *options, app = arguments(command)
    env, log_path = hosts[page].env, tmp_path / "log"
    with GunicornServer(app, env=env, log_path=log_path, arguments=options) as server:
        exchange(server)
        if "flask_e2emsg.gunicorn" in command:
            assert_sockets_are_closed_politely(server)


@pytest.mark.parametrize(
    "block",
    [block for block in INTEGRATION.blocks("python") if block.file_name == "gunicorn.conf.py"],
    ids=lambda block: block.place,
)
def test_gunicorn_takes_the_configuration(
    block: Block, hosts: Mapping[Page, Host], tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(block.text)
    settings = runpy.run_path(str(config))
    server = GunicornServer(
        "app:create_app()",
        env=hosts[INTEGRATION].env,
        log_path=tmp_path / "log",
        config=config,
        worker_class=settings["worker_class"],
        threads=settings.get("threads", 1),
    )
    with server:
        exchange(server)
        assert_sockets_are_closed_politely(server)


def test_flask_run_serves_the_app(hosts: Mapping[Page, Host], tmp_path: Path) -> None:
    assert "flask run" in commands(INTEGRATION)
    env, log_path = hosts[INTEGRATION].env, tmp_path / "log"
    with FlaskRunServer("app:create_app", env=env, log_path=log_path) as server:
        exchange(server)


WSGI = """\
import admin, news, rules
from app import create_app

app = create_app()
app.register_blueprint(admin.bp)
"""


@pytest.fixture(scope="module")
def full_host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The app of integration.md with its rules, signals and views, and three users."""
    folder = tmp_path_factory.mktemp("documents") / "host"
    host = Host(folder, {**INTEGRATION.files(), "wsgi.py": WSGI})
    run_flask_commands(host, migrating(INTEGRATION)[1])
    host.query("INSERT INTO user VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 1)")
    return host


@pytest.fixture
def server(full_host: Host, tmp_path: Path) -> Iterator[GunicornServer]:
    with GunicornServer("wsgi:app", env=full_host.env, log_path=tmp_path / "log") as running:
        yield running


def assert_logged(server: WebServer, text: str) -> None:
    wait_until(lambda: text in server.log(), LOG_SECONDS, lambda: f"{text!r} in {server.log()}")


def test_rules_are_asked_and_signals_tell(full_host: Host, server: GunicornServer) -> None:
    ours = connect(server, "1")
    assert_logged(server, "1 came")
    stored, content = sealed(published(server, "1"), published(server, "2"))
    ours.store("2", content, message_id=stored)
    assert_logged(server, "push to 2: you have a message")
    assert_logged(server, "1 wrote to 2")
    theirs = connect(server, "2")
    theirs.message(stored)
    theirs.ack()
    ours.receipts("delivered", [stored])
    assert_logged(server, "2 got 1 of 1")
    theirs.close()
    assert_logged(server, "2 went")

    assert ours.answer(ours.send("99"))["code"] == "unknown_recipient"
    full_host.query("INSERT INTO block (user_id, blocked_id) VALUES ('2', '1')")
    assert ours.answer(ours.send("2"))["code"] == "unknown_recipient"
    assert rest(server, "3").get("/api/session").status == 401
    ours.close()


def test_the_calls_for_host_code_do_what_the_table_says(server: GunicornServer) -> None:
    client, admin = connect(server, "1"), RestClient(server.url)
    assert admin.get("/admin/online").json == {"users": ["1"], "sockets": 1}
    assert admin.get("/admin/online/1").json == {"online": True}
    assert admin.get("/admin/online/2").json == {"online": False}
    assert admin.post("/admin/users/1/badge", {}).json == {"reached": 1}
    assert client.expect("event", name="badge")["data"] == {"name": "early bird"}
    assert admin.post("/admin/users/1/disconnect", {}).json == {"closed": 1}
    client.expect_close(4401)
    client = connect(server, "1")
    assert admin.call("DELETE", "/admin/users/1/messages").json == {"existed": True}
    client.expect_close(4403)


# The client of README.md.


def test_the_client_prints_what_the_page_says(tmp_path: Path) -> None:
    env = {"DATABASE_URL": f"sqlite:///{tmp_path / 'example.sqlite'}", "JWT_SECRET_KEY": SECRET}
    run_once("flask", "--app", "example_app", "db", "upgrade", env=env)
    (printed,) = README.blocks("text")
    with GunicornServer("example_app:create_app()", env=env, log_path=tmp_path / "log") as server:
        address = server.url.removeprefix("http://")
        client = README.files()["client.py"].replace("127.0.0.1:8000", address)
        (tmp_path / "client.py").write_text(client)
        assert run([sys.executable, "client.py"], tmp_path, {}) == printed.text
