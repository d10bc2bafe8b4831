"""docs/clients.md says what is so: its program and each of its pieces run against a server."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from flask_e2emsg.client import events, vault
from flask_e2emsg.client.__main__ import _options
from tests.acceptance.conftest import Hosting, hosting
from tests.client.live.devices import Devices
from tests.docs.hosts import SECRET, run
from tests.docs.markdown import Block, Page, in_backticks
from tests.docs.test_documents import arguments, commands
from tests.servers import GunicornServer, run_once

__all__ = ["hosting"]

CLIENTS = Page.at("docs/clients.md")
PIECES = [block for block in CLIENTS.blocks("python") if block.file_name is None]


@pytest.fixture
def devices(hosting: Hosting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    monkeypatch.setattr(vault, "SCRYPT_N", 1 << 10)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with (
        hosting.gunicorn("sqlite", E2EMSG_CHECK_ENVELOPES=True) as server,
        Devices(server, tmp_path) as made,
    ):
        yield made


def execute(block: Block, names: dict[str, Any]) -> None:
    exec(compile(block.text, block.place, "exec"), names)


def test_every_piece_runs_in_the_order_of_the_page(
    devices: Devices, capsys: pytest.CaptureFixture[str]
) -> None:
    alice, bob = devices.ready("alice"), devices.ready("bob")
    bob.write(alice, "what alice is told")
    names: dict[str, Any] = {"client": alice.client, "bob": bob.user_id}
    for block in PIECES:
        if "restore" in block.text:
            laptop = devices.new("alice", "laptop")
            laptop.until(events.OwnKeyChanged, known_here=False)
            names["client"] = laptop.client
        execute(block, names)
    printed = capsys.readouterr().out
    assert f"{bob.user_id} text what alice is told" in printed
    assert re.search(r"^\d{5}( \d{5}){11}$", printed, re.MULTILINE)
    assert printed.endswith("somebody is not here yet\n")
    assert alice.rest.get("/api/key-backup").status == 200
    bob.quiet()
    assert [one.type for one in bob.told(events.Message)] == [
        *("text", "edit", "reaction", "delete", "text")
    ]


def test_the_program_prints_what_the_page_says(tmp_path: Path) -> None:
    env = {"DATABASE_URL": f"sqlite:///{tmp_path / 'example.sqlite'}", "JWT_SECRET_KEY": SECRET}
    run_once("flask", "--app", "example_app", "db", "upgrade", env=env)
    (printed,) = CLIENTS.blocks("text")
    with GunicornServer("example_app:create_app()", env=env, log_path=tmp_path / "log") as server:
        program = CLIENTS.files()["hello.py"].replace("http://127.0.0.1:8000", server.url)
        (tmp_path / "hello.py").write_text(program)
        assert run([sys.executable, "hello.py"], tmp_path, {}) == printed.text


def test_the_table_has_every_event() -> None:
    documented = {in_backticks(row[0])[0] for row in CLIENTS.rows("Events")}
    assert documented == {kind.__name__ for kind in get_args(events.Event)}


def test_the_command_for_the_terminal_is_one() -> None:
    (command,) = [line for line in commands(CLIENTS) if line.startswith("python")]
    module, *given = arguments(command)[1:]
    assert module == "flask_e2emsg.client"
    assert _options(given).user == "alice"
