"""Host apps made of nothing but the blocks of a page."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.acceptance.client import SocketClient
from tests.acceptance.envelopes import Keys, sealed
from tests.acceptance.rest import RestClient
from tests.acceptance.tokens import sign
from tests.acceptance.wire import new_id
from tests.servers import REPOSITORY, WebServer

SECRET = "documents-only-" + "0123456789abcdef" * 4
COMMAND_SECONDS = 60.0
TOKEN_SECONDS = 600


class Host:
    """A folder with an app in it, a SQLite database, and the environment to run it in."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        folder.mkdir()
        self.folder = folder
        self.database = folder / "host.sqlite"
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        self.env = {
            "DATABASE_URL": f"sqlite:///{self.database}",
            "JWT_SECRET_KEY": SECRET,
            "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)]),
        }

    def flask(self, *arguments: str) -> None:
        """Run a `flask` command in the folder, which finds the app by itself."""
        run([sys.executable, "-m", "flask", *arguments], self.folder, self.env)

    def tables(self) -> set[str]:
        """The tables in the database."""
        rows = self.query("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {str(name) for (name,) in rows}

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement and commit."""
        connection = sqlite3.connect(self.database)
        try:
            with connection:
                return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def revisions(self) -> list[str]:
        """The texts of the migrations."""
        return [path.read_text() for path in (self.folder / "migrations/versions").glob("*.py")]


def run(command: list[str], folder: Path, env: Mapping[str, str]) -> str:
    """What a command prints; it has to end well."""
    leaking = ("E2EMSG_", "FLASK_", "JWT_", "DATABASE_URL")
    clean = {name: text for name, text in os.environ.items() if not name.startswith(leaking)}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**clean, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **env},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def token(user_id: str) -> str:
    """An access token as a host's own login would make it."""
    claims = {"sub": user_id, "exp": int(time.time()) + TOKEN_SECONDS, "type": "access"}
    return sign({**claims, "jti": str(uuid.uuid4())}, SECRET)


def rest(server: WebServer, user_id: str) -> RestClient:
    """REST calls as a user."""
    return RestClient(server.url, token(user_id))


def connect(server: WebServer, user_id: str) -> SocketClient:
    """A socket of a user."""
    headers = {"Authorization": f"Bearer {token(user_id)}"}
    return SocketClient(server.ws_url, user_id, headers=headers)


def published(server: WebServer, user_id: str) -> Keys:
    """A fresh key of a user."""
    keys = Keys(user_id, rest(server, user_id))
    keys.renew()
    return keys


def exchange(server: WebServer) -> None:
    """One message between two new users, live, up to its receipt."""
    sender, recipient = new_id(), new_id()
    theirs, ours = connect(server, recipient), connect(server, sender)
    message_id, content = sealed(published(server, sender), published(server, recipient))
    ours.store(recipient, content, message_id=message_id)
    assert theirs.message(message_id)["encrypted_content"] == content
    theirs.ack()
    ours.receipts("delivered", [message_id])
    ours.close()
    theirs.close()
