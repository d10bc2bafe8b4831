"""The load client: compiled once, run as a process of its own, spoken to by lines."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt

from flask_e2emsg.protocol.envelope import kid_of

from .results import Failed

SOURCES = Path(__file__).parent / "load"
BINARY = Path(__file__).parent.parent / ".venv" / "bench" / "load"
CALM_SECONDS = 0.3
TOKEN_LIFE = timedelta(hours=12)


class CannotCompile(Exception):
    """There is no load client on this machine; the text says what is missing."""


def compile_client() -> None:
    """Make the binary anew if a source is newer than it.

    Raises: CannotCompile: there is no compiler, or it does not do it.
    """
    sources = sorted(SOURCES.glob("*.[ch]"))
    if BINARY.exists() and BINARY.stat().st_mtime > max(s.stat().st_mtime for s in sources):
        return
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        raise CannotCompile("The load client is written in C for Linux and needs a compiler (cc).")
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]
    files = [str(source) for source in sources if source.suffix == ".c"]
    made = BINARY.with_name(f"load-{os.getpid()}")  # Somebody may be running the other one.
    try:
        subprocess.run([compiler, *flags, "-o", str(made), *files], check=True)
    except subprocess.CalledProcessError as error:
        raise CannotCompile(f"{compiler} could not compile the load client.") from error
    made.replace(BINARY)


class Users(AbstractContextManager["Users"]):
    """User ids, tokens and kids, in the files that the load client reads; and the users' keys.

    The files are gone after the `with` block.
    """

    def __init__(self) -> None:
        self.secret = secrets.token_urlsafe(32)
        self._folder = tempfile.TemporaryDirectory(prefix="e2emsg-users-")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def file(self, count: int, *, first: int = 0) -> Path:
        """A file with so many users: `user-<first>`, and on."""
        path = Path(self._folder.name) / f"{first}-{count}"
        if not path.exists():
            users = self.keys(count, first=first).items()
            lines = (f"{user} {self._token(user)} {kid_of(key).hex()}\n" for user, key in users)
            path.write_text("".join(lines))
        return path

    def keys(self, count: int, *, first: int = 0) -> dict[str, bytes]:
        """The public keys of the users in such a file. Nobody has the private ones."""
        ids = (f"user-{number}" for number in range(first, first + count))
        return {user: sha256(f"{self.secret} {user}".encode()).digest() for user in ids}

    def _token(self, user_id: str) -> str:
        moment = datetime.now(UTC)
        claims = {"sub": user_id, "type": "access", "jti": secrets.token_hex(8), "fresh": False}
        times = {"iat": moment, "exp": moment + TOKEN_LIFE}
        return jwt.encode({**claims, **times}, self.secret, "HS256")


class LoadClient(AbstractContextManager["LoadClient"]):
    """One run of the load client. Its connections stay until the `with` block ends."""

    def __init__(self, mode: str, port: int, users: Path, *options: object) -> None:
        command = [str(BINARY), mode, "--port", str(port), "--users", str(users)]
        self._process = subprocess.Popen(
            [*command, *map(str, options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def wait_for(self, word: str) -> None:
        """Return when the client says the word."""
        line = self._line()
        if line.strip() != word:
            raise Failed(f"the load client said {line[:200]!r} instead of {word!r}")

    def begin(self) -> None:
        """Let it begin, once its connections are open."""
        self.wait_for("ready")
        # Some servers look for a backlog after their hello: what comes meanwhile, they send twice.
        time.sleep(CALM_SECONDS)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # What it says next tells why.
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """What the run saw."""
        result: dict[str, Any] = json.loads(self._line())
        return result

    def end(self) -> dict[str, Any]:
        """Let idle connections end; what they saw."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.result()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise Failed(self._process.stderr.read().strip() or "the load client ended")
        return line
