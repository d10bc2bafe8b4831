"""The browser client's modules, for a host's templates: their addresses and what they must be.

The files are for everybody and need no token. A page that preloads all of them with their hashes
runs no other bytes than those of this package, also where a cache or a proxy lies between.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha384
from pathlib import Path

from flask import url_for
from markupsafe import Markup

FOLDER = Path(__file__).parent.parent / "static"

_PRELOAD = Markup('<link rel="modulepreload" href="{}" integrity="{}">')


def integrity(filename: str) -> str:
    """The hash of one file for subresource integrity: `sha384-` and its base64.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return "sha384-" + b64encode(sha384((FOLDER / filename).read_bytes()).digest()).decode()


class Modules:
    """What templates call; the files are read once."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._hashes: dict[str, str] | None = None

    def preload(self) -> Markup:
        """For the `<head>` of a page, before its own modules: a link for each of ours."""
        if self._hashes is None:
            self._hashes = {file.name: integrity(file.name) for file in sorted(FOLDER.glob("*.js"))}
        return Markup("\n").join(
            _PRELOAD.format(url_for(self._endpoint, filename=name), value)
            for name, value in self._hashes.items()
        )
