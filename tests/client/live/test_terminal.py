"""`python -m flask_e2emsg.client` against the example app, typed into as a person would."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Hosting
from tests.acceptance.rest import RestClient
from tests.servers import REPOSITORY, GunicornServer, run_once, wait_until

SECONDS = 30.0
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def server(hosting: Hosting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GunicornServer]:
    path = tmp_path_factory.mktemp("example") / "example.sqlite"
    env = {"DATABASE_URL": f"sqlite:///{path}", "JWT_SECRET_KEY": "terminal-" + "0123456789" * 4}
    run_once("flask", "--app", "example_app", "db", "upgrade", env=env)
    log_path = hosting.log_path()
    with GunicornServer("example_app:create_app()", env=env, log_path=log_path) as running:
        yield running


class Person:
    """Somebody at a terminal."""

    def __init__(self, server: GunicornServer, folder: Path, name: str) -> None:
        body = json.dumps({"username": name, "password": PASSWORD}).encode()
        self.id = RestClient(server.url).call("POST", "/api/register", body).json["user_id"]
        self.shown = folder / f"{name}.txt"
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        files = [f"--password-file={secret}", f"--passphrase-file={secret}"]
        store = f"--store={folder / name}.sqlite"
        with self.shown.open("wb") as shown:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "flask_e2emsg.client"),
                    *(server.url, "--user", name, *files, store),
                ],
                cwd=REPOSITORY,
                env={"no_proxy": "127.0.0.1", "PATH": "/usr/bin:/bin"},
                stdin=subprocess.PIPE,
                stdout=shown,
                stderr=subprocess.STDOUT,
            )

    def type(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.process.stdin.flush()

    def sees(self, text: str) -> None:
        wait_until(lambda: text in self.screen(), SECONDS, self.screen)

    def screen(self) -> str:
        return self.shown.read_text()

    def leave(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(SECONDS)


@pytest.fixture
def people(server: GunicornServer, tmp_path: Path) -> Iterator[tuple[Person, Person]]:
    both = Person(server, tmp_path, "ann"), Person(server, tmp_path, "ben")
    yield both
    for one in both:
        one.process.kill()
        one.process.wait(SECONDS)


def test_two_people_talk(people: tuple[Person, Person]) -> None:
    ann, ben = people
    for one in people:
        one.sees(f"* You are {one.id}.")
    ann.type("nobody chosen", f"/to {ben.id}", "Hello \x1b[2J Ben")
    ann.sees("! Choose somebody first")
    ben.sees(f"{ann.id}: Hello \N{REPLACEMENT CHARACTER}[2J Ben")
    ben.type(f"/to {ann.id}", "Hello Ann", "/history", "/number", "/contacts", "/accept")
    ann.sees(f"{ben.id}: Hello Ann")
    ben.sees("Compare over another channel:")
    ben.sees("Accepted.")
    ben.type("/help", "/all")
    ben.sees("/restore CODE")
    assert [ann.leave(), ben.leave()] == [0, 0]
