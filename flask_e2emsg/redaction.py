"""Keeps credentials that stand in addresses out of the logs of the servers that we run under.

gunicorn's and werkzeug's access logs write the whole query of a refused upgrade. A filter on their
loggers replaces the values of `token` and `ticket` before any handler sees the record.
"""

from __future__ import annotations

import logging
import re
from typing import Any

LOGGERS = ("gunicorn.access", "gunicorn.error", "werkzeug")

_SECRET = re.compile(r"((?:^|[?&\s\"'])(?:token|ticket)=)[^&\s\"'#]*", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer[. ]\s*)[A-Za-z0-9_=.-]{8,}", re.IGNORECASE)


def redact(text: str) -> str:
    """The same text without the values of credentials."""
    return _BEARER.sub(r"\1***", _SECRET.sub(r"\1***", text))


class RedactingFilter(logging.Filter):
    """Redacts a record's message and arguments; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact in place."""
        if isinstance(record.msg, str):
            record.msg = redact(record.msg)
        arguments: Any = record.args
        if isinstance(arguments, dict):
            record.args = _RedactedAtoms(arguments)
        elif arguments:
            record.args = tuple(map(_redacted, arguments))
        return True


class _RedactedAtoms(dict[str, Any]):
    """gunicorn's atoms, which look up headers and the environ on demand."""

    def __init__(self, atoms: dict[str, Any]) -> None:
        super().__init__(atoms)
        self._atoms = atoms

    def __getitem__(self, key: str) -> Any:
        return _redacted(self._atoms[key])


def _redacted(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


def install() -> None:
    """Put the filter on the servers' loggers, once."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(one, RedactingFilter) for one in logger.filters):
            logger.addFilter(RedactingFilter())
