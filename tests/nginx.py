"""A real nginx with docs/nginx.conf in front of a server, on loopback.

`WITHOUT_NGINX=1` leaves its tests out; the end of the run then says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.servers import REPOSITORY, START_SECONDS, STOP_SECONDS, wait_until

CONFIGURATION = REPOSITORY / "docs" / "nginx.conf"
OPT_OUT = "WITHOUT_NGINX"

MAIN = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/main.log warn;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/messaging.conf;
}}
"""


class Nginx:
    """The published configuration, with other addresses, places of logs, and read timeout.

    `upstream` is what its block of that name holds.
    """

    def __init__(self, upstream: str, folder: Path, read_timeout: str) -> None:
        self._folder = folder
        self._address = free_address()
        published = CONFIGURATION.read_text()
        for old, new in (
            ("server 127.0.0.1:8000;", upstream),
            ("listen 80;", f"listen {self._address};"),
            ("/var/log/nginx/messaging.access.log", str(self.access_log)),
            ("/var/log/nginx/messaging.error.log", str(self.error_log)),
            ("proxy_read_timeout 75s;", f"proxy_read_timeout {read_timeout};"),
        ):
            assert published.count(old) == 1, old
            published = published.replace(old, new)
        (folder / "messaging.conf").write_text(published)
        (folder / "main.conf").write_text(MAIN.format(folder=folder))

    @property
    def access_log(self) -> Path:
        return self._folder / "access.log"

    @property
    def error_log(self) -> Path:
        return self._folder / "error.log"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, without a slash at the end."""
        return f"http://{self._address}"

    @property
    def ws_url(self) -> str:
        """`ws://127.0.0.1:<port>/api/ws`, without a query."""
        return f"ws://{self._address}/api/ws"

    def logs(self) -> str:
        """Everything that nginx has written."""
        return "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def __enter__(self) -> Self:
        command = [program(), "-p", str(self._folder), "-c", str(self._folder / "main.conf")]
        with (self._folder / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until(self._listens, START_SECONDS, self.logs)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_SECONDS)

    def _listens(self) -> bool:
        assert self._process.poll() is None, f"nginx has ended: {self.logs()}"
        host, port = self._address.split(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0


def free_address() -> str:
    """Host and port of loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def program() -> str:
    """Where nginx is."""
    # It is often not on the PATH of an ordinary user.
    found = shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    assert found is not None, (
        "There is no nginx. Install it (on Debian: apt-get install nginx-light), or leave its "
        f"tests out with {OPT_OUT}=1."
    )
    return found
