"""A chat in a terminal: `python -m flask_e2emsg.client http://127.0.0.1:8000 --user alice`.

With `--user` it logs in as the example app does it; a host with another login gives a file that has
an access token in it, and is read again whenever a token is needed. Secrets are asked for or read
from files: what stands on the command line, everybody on the machine can see.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from .client import Client
from .errors import StoreError
from .store import Store
from .terminal import HELP, Terminal

LOGIN_SECONDS = 20.0


def main(arguments: list[str] | None = None) -> int:
    """Chat until `/quit` or the end of the input."""
    options = _options(arguments)
    token = _token_of(options)
    try:
        token()
        store = Store(options.store, _secret(options.passphrase_file, "Passphrase of the store: "))
    except (StoreError, OSError, ValueError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    print(HELP, flush=True)
    with Client(options.url, token, store) as client:
        Terminal(client, _say, _draw).run(sys.stdin)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flask_e2emsg.client")
    parser.add_argument("url", help="where the host is, such as https://chat.example")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", help="log in as the example app does it")
    who.add_argument("--token-file", type=Path, help="has an access token in it")
    parser.add_argument("--password-file", type=Path, help="of --user; else it is asked for")
    parser.add_argument("--passphrase-file", type=Path, help="of the store; else it is asked for")
    parser.add_argument("--store", type=Path, default=Path("e2emsg.sqlite"), help="%(default)s")
    return parser.parse_args(arguments)


def _token_of(options: argparse.Namespace) -> Callable[[], str]:
    if options.token_file is not None:
        path: Path = options.token_file
        return lambda: path.read_text().strip()
    password = _secret(options.password_file, f"Password of {options.user}: ")
    return lambda: login(options.url, options.user, password)


def login(url: str, username: str, password: str) -> str:
    """An access token from the example app.

    Raises:
        ValueError: the login was refused, or there is no answer.
    """
    body = json.dumps({"username": username, "password": password}).encode()
    address = f"{url.rstrip('/')}/api/login"
    request = Request(address, body, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=LOGIN_SECONDS) as response:
            return str(json.load(response)["access_token"])
    except HTTPError as error:
        with error:
            raise ValueError(f"The login was refused: {error.code}") from None
    except URLError:
        raise ValueError(f"There is no answer from {url}.") from None


def _secret(file: Path | None, prompt: str) -> str:
    return getpass.getpass(prompt) if file is None else file.read_text().strip()


def _say(line: str) -> None:
    print(line, flush=True)


def _draw(text: str) -> None:
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
