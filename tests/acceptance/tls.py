"""A gunicorn that ends TLS itself, and clients that trust it."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

from flask_e2emsg.client.tls import ThreadSafeTls
from flask_e2emsg.protocol.values import now
from tests.acceptance.conftest import JWT_SECRET_KEY
from tests.acceptance.tokens import sign
from tests.acceptance.wire import new_id
from tests.certificates import make_certificate
from tests.servers import GunicornServer

TIMEOUT_SECONDS = 20.0


class TlsServer(GunicornServer):
    """A gunicorn that ends TLS itself, with a certificate that signs itself."""

    def __init__(self, folder: Path, **options: Any) -> None:
        certificate, key = make_certificate(folder)
        self.context = ssl.create_default_context(cafile=str(certificate))
        super().__init__(arguments=[f"--certfile={certificate}", f"--keyfile={key}"], **options)

    def _answers(self) -> bool:
        self._fail_if_dead()
        try:
            with urlopen(self.url.replace("http", "https"), context=self.context):
                return True
        except OSError:
            return False

    def token(self, user_id: str) -> str:
        """An access token of this user's."""
        claims = {"sub": user_id, "type": "access", "jti": new_id(), "fresh": False}
        return sign({**claims, "exp": now() + timedelta(hours=1)}, JWT_SECRET_KEY)

    def connect(self, user_id: str) -> ClientConnection:
        """A socket of this user's."""
        return connect(
            self.ws_url.replace("ws:", "wss:"),
            additional_headers={"Authorization": f"Bearer {self.token(user_id)}"},
            ssl=cast(ssl.SSLContext, ThreadSafeTls(self.context)),
            open_timeout=TIMEOUT_SECONDS,
        )
