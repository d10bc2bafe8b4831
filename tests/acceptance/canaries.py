"""Secrets that tests used, and the search for them in the logs of the servers that they talked to.

Whoever talks to a server notes the texts that it sends and gets; the secrets in them are tokens,
tickets, keys and content. Of each, short pieces in the forms that a log may write are remembered. A
search slides along the long words of a log once, however many secrets there are.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote_plus

SHORTEST = 24  # characters of a secret; what is shorter may stand in a log by chance
PIECE = 16  # characters that give a secret away; a library may write of a long text no more
DISTINCT = 8  # characters in a piece; fewer is no secret, but a test's "AAAA"
SECRET_MEMBERS = r"encrypted_content|public_key|token|access_token|ticket"
IN_JSON = re.compile(rf'"(?:{SECRET_MEMBERS})"\s*:\s*"([^"\\]{{{SHORTEST},}})"')
IN_ADDRESS = re.compile(r"[?&](?:token|ticket)=([^&\s#]+)")
IN_HEADER = re.compile(r"[Bb]earer[ .]([^\s,;]+)")
BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
LONG_WORD = re.compile(rf"\S{{{PIECE},}}")


@dataclass
class Canaries:
    """The pieces of secrets, each with a word for what it is a piece of."""

    pieces: dict[str, str] = field(default_factory=dict)
    secrets: set[int] = field(default_factory=set)  # hashes, to tell which were noted before
    searched_bytes: int = 0
    searched_lines: int = 0

    def note(self, text: str) -> None:
        """Remember the secrets in a frame, a body, an address or a header."""
        for where in (IN_JSON, IN_HEADER):
            for secret in where.findall(text):
                self.add(secret)
        for secret in IN_ADDRESS.findall(text):
            self.add(unquote_plus(secret))

    def add(self, secret: str) -> None:
        """Remember one secret."""
        if len(secret) < SHORTEST or hash(secret) in self.secrets:
            return
        self.secrets.add(hash(secret))
        for form, text in _forms(secret):
            # The beginning and the end, too, since logs shorten long values in the middle.
            for word in text.split(" "):
                middle = (len(word) - PIECE) // 2
                for start in (0, middle, len(word) - PIECE):
                    piece = word[max(0, start) : start + PIECE]
                    if len(piece) == PIECE and len(set(piece)) >= DISTINCT:
                        self.pieces.setdefault(piece, form)

    def found_in(self, text: str) -> list[str]:
        """What of all that stands in a text, and in which line of it."""
        self.searched_bytes += len(text)
        self.searched_lines += text.count("\n")
        pieces, found = self.pieces, []
        for word in LONG_WORD.finditer(text):
            shown = word[0]
            for start in range(len(shown) - PIECE + 1):
                form = pieces.get(shown[start : start + PIECE])
                if form is not None:
                    found.append(f"{form} in {_line_around(text, word.start())[:600]!r}")
                    break
        return found


def _forms(secret: str) -> Iterator[tuple[str, str]]:
    """A secret as logs may write it. Of a token only what is its own: payload and signature."""
    if secret.count(".") == 2 and secret.startswith("ey"):
        _, payload, signature = secret.split(".")
        yield "the payload of a token", payload
        yield "the signature of a token", signature
        return
    yield "a secret as it stands", secret
    yield "a secret, percent-encoded", quote(secret, safe="")
    if BASE64URL.fullmatch(secret) and len(secret) % 4 != 1:
        octets = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        yield "the bytes of a secret", repr(octets)[2:-1]
        yield "a secret in hexadecimal", octets.hex()


def _line_around(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].split("\n", 1)[0]


@dataclass
class LogWatch:
    """Reads a server's log once, as it grows, looking for secrets."""

    path: Path
    canaries: Canaries
    position: int = 0

    def check(self) -> None:
        """Fail if a secret stands in what was written since the last call."""
        text = text_after(self.path, self.position)
        self.position += len(text.encode(errors="surrogateescape"))
        found = self.canaries.found_in(text)
        assert not found, f"{len(found)} secrets in {self.path}, the first: {found[0]}"


def text_after(path: Path, position: int) -> str:
    """What a log holds beyond so many bytes."""
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(position)
        return log.read().decode(errors="surrogateescape")


USED = Canaries()  # by all tests of this process
_watches: dict[Path, LogWatch] = {}


def watch(path: Path) -> LogWatch:
    """The one watch of this log, which goes on where it stopped."""
    return _watches.setdefault(path, LogWatch(path, USED))


def check_all() -> None:
    """Fail if a secret stands in what was written to any of the logs after their last checks."""
    for one in _watches.values():
        one.check()
