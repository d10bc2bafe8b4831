"""Key backups as docs/crypto.md, 6 and the REST calls have them, for a server that has none yet."""

from __future__ import annotations

from typing import Any

import pytest

from flask_e2emsg.client.errors import Refused
from flask_e2emsg.client.rest import Rest

Json = dict[str, Any]


class Shelf:
    """Answers `/key-backup` in the server's place; everything else goes to the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept: dict[str, Json] = {}
        self.versions: dict[str, int] = {}
        call = Rest.call

        def answer(rest: Rest, method: str, target: str, body: Json | None = None) -> Json:
            if target != "/key-backup":
                return call(rest, method, target, body)
            return self._answer(rest.user_id(), method, body or {})

        monkeypatch.setattr(Rest, "call", answer)

    def _answer(self, user_id: str, method: str, body: Json) -> Json:
        version = self.versions.get(user_id, 0)
        if method == "PUT":
            if body["version"] != version:
                raise Refused(409, "version_conflict", facts={"version": version})
            self.versions[user_id] = version + 1
            self.kept[user_id] = {"blob": body["blob"], "version": version + 1}
            return {"version": version + 1}
        if method == "DELETE":
            self.kept.pop(user_id, None)
            return {}
        if user_id not in self.kept:
            raise Refused(404, "not_found")
        return self.kept[user_id]
