"""Keeps credentials out of logs: ours, the host's, and those of the servers that we run under.

Access logs write the whole query of a refused upgrade, and reports of errors quote requests. A
filter replaces the values of `token`, `ticket` and `Bearer`, and whatever looks like a JWT, in a
record's text and in its traceback, before any handler writes it. What needs no redaction passes
untouched. `stack_of` is for our own reports, which must not quote what an exception says.
"""

from __future__ import annotations

import logging
import re
import traceback
from urllib.parse import unquote

SERVERS = ("gunicorn.access", "gunicorn.error", "werkzeug")
OURS = (
    "flask_e2emsg.auth",
    "flask_e2emsg.background",
    "flask_e2emsg.bus",
    "flask_e2emsg.client",
    "flask_e2emsg.client.websockets",
    "flask_e2emsg.committer",
    "flask_e2emsg.cooperation",
    "flask_e2emsg.durability",
    "flask_e2emsg.greenlets",
    "flask_e2emsg.http",
    "flask_e2emsg.process",
    "flask_e2emsg.recheck",
    "flask_e2emsg.sockets",
    "flask_e2emsg.threads",
    "flask_e2emsg.ws",
)

NAMES = ("token", "ticket")
LONGEST = 262_144  # characters of one line or traceback

# A value follows `=`, however often that was percent-encoded, or stands in quotes after a name.
_FOLLOWS = r"""(?:=|%(?:25){0,4}3[dD]|\\?["']\s*[:,]\s*\\?["'])"""
_VALUE = r"""[^&\s"'#]*+"""
_PLAIN = re.compile(rf"((?:[tT][oO][kK][eE][nN]|[tT][iI][cC][kK][eE][tT]){_FOLLOWS}){_VALUE}")
# Of a name, too, any letter may be percent-encoded.
_ENCODED = re.compile(rf"""([?&\s"'=][^?&\s"'#=%]*+%[^?&\s"'#=]*+)={_VALUE}""")
_BEARER = re.compile(r"([bB][eE][aA][rR][eE][rR](?:[. +]|%20|%2[eE])\s*+)[A-Za-z0-9_=.+/~%-]{8,}+")
_WORD, _DOT = "[A-Za-z0-9_-]", r"(?:\.|%2[eE])"
# Begins where a word does, so that no character is looked at more than twice.
_BEGINS = rf"(?:(?<!{_WORD}eyJ)|(?<=%[0-9A-Fa-f]{{2}}eyJ)|(?<=\\[nrt]eyJ))"
_JWT = re.compile(rf"eyJ{_BEGINS}{_WORD}*+(?:{_DOT}{_WORD}*+){{2,}}+")


def redact(text: str) -> str:
    """The same text without the values of credentials, and without its end if it is very long.

    Nobody else has a turn meanwhile, and however quick the look at each character is, there is a
    length at which it is too slow.
    """
    if len(text) > LONGEST:
        # With dots after it, half a token is redacted like a whole one; half a dot prevents it.
        kept = text[:LONGEST].removesuffix("%2").removesuffix("%")
        text = f"{kept}... ({len(text) - len(kept)} characters are left out)"
    lowered = text.lower()
    if any(name in lowered for name in NAMES):
        text = _PLAIN.sub(r"\1***", text)
    if "%" in text:
        text = _ENCODED.sub(_without_value, f"?{text}")[1:]
    if "bearer" in lowered:
        text = _BEARER.sub(r"\1***", text)
    return _JWT.sub("***", text)


def _without_value(parameter: re.Match[str]) -> str:
    name = parameter[1]
    return f"{name}=***" if unquote(name).lower().endswith(NAMES) else parameter[0]


class RedactingFilter(logging.Filter):
    """Redacts a record's text and traceback; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact in place."""
        text = _text_of(record)
        clean = redact(text)
        if clean != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            _redact_traceback(record)
        return True


def _text_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # The report of a record that cannot be formatted quotes its arguments.
        return f"{record.msg} {record.args!r}"


def _redact_traceback(record: logging.LogRecord) -> None:
    assert record.exc_info
    text = record.exc_text or logging.Formatter().formatException(record.exc_info)
    clean = redact(text)
    if clean != text:
        record.exc_text, record.exc_info = clean, None


def stack_of(error: BaseException) -> str:
    """Where an exception comes from, without what it and its causes say.

    Texts of exceptions may quote a statement's values or a request, and so may the local
    variables that an error tracker collects when it is given the exception itself.
    """
    lines = traceback.format_tb(error.__traceback__)
    return f"{type(error).__name__}, most recent call last:\n{''.join(lines)}".rstrip()


def install(app_logger: str) -> None:
    """Put the filter on these loggers and on the root's handlers, once.

    Args:
        app_logger: the name of the host's own logger.
    """
    root = logging.getLogger()
    loggers = [logging.getLogger(name) for name in (*SERVERS, *OURS, app_logger)]
    for one in (root, *loggers, *root.handlers):
        if not any(isinstance(other, RedactingFilter) for other in one.filters):
            one.addFilter(RedactingFilter())
