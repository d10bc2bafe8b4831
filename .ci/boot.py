"""Boots an app under gunicorn with the settings that ship, and opens a socket.

It needs nothing but what `pip install 'flask-e2emsg[gunicorn]'` brings, and shows that it suffices.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from websockets.sync.client import connect

APP = """
import os
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token
from flask_sqlalchemy import SQLAlchemy
from flask_e2emsg import E2EMessaging

app, db = Flask(__name__), SQLAlchemy()
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///" + os.path.abspath("boot.sqlite")
app.config["JWT_SECRET_KEY"] = os.environ["JWT_SECRET_KEY"]
db.init_app(app)
JWTManager(app)
E2EMessaging().init_app(app, db)

if __name__ == "__main__":
    with app.app_context():
        db.create_all()
        print(create_access_token("alice"))
"""
SECONDS = 30


def main() -> None:
    """Fail unless the first frame of a socket is hello, and the server ends when it is told to."""
    environment = {**os.environ, "JWT_SECRET_KEY": secrets.token_hex(32)}
    with tempfile.TemporaryDirectory() as folder, listener() as port:
        Path(folder, "boot.py").write_text(APP)
        token = subprocess.run(
            [sys.executable, "boot.py"],
            cwd=folder,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()
        settings = ["-c", "python:flask_e2emsg.gunicorn", "-b", f"fd://{port.fileno()}"]
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *settings, "boot:app"],
            cwd=folder,
            env=environment,
            pass_fds=[port.fileno()],
        )
        try:
            hello = first_frame(port.getsockname()[1], token)
        finally:
            server.terminate()
            status = server.wait(SECONDS)
    assert (hello["type"], hello["user_id"], status) == ("hello", "alice", 0), (hello, status)


def listener() -> socket.socket:
    """A port on which connections wait until the server is there."""
    return socket.create_server(("127.0.0.1", 0))


def first_frame(port: int, token: str) -> dict[str, object]:
    """What a new socket hears first."""
    address = f"ws://127.0.0.1:{port}/api/ws?token={token}"
    with connect(address, open_timeout=SECONDS, proxy=None) as client:
        frame: dict[str, object] = json.loads(client.recv(timeout=SECONDS))
        return frame


main()
