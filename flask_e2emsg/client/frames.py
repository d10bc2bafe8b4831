"""Checks what the server says before it is kept: a frame that makes no sense is kept nowhere.

What is checked here has every member that the rest of the client looks at, each of its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from .errors import Garbled

Frame = dict[str, Any]


class _Message(msgspec.Struct, tag="message"):
    id: str
    sender: str
    recipient: str
    encrypted_content: str
    created_at: datetime
    conversation_id: str | None

    def __repr__(self) -> str:
        return "_Message(...)"


class _MessageEntry(_Message, tag="message"):
    seq: int


class _Receipt(msgspec.Struct, tag="receipt"):
    seq: int
    kind: str
    by: str
    ids: Sequence[str]
    at: datetime


class _OldMessage(_Message, tag=False):
    position: int
    delivered_at: datetime | None = None
    read_at: datetime | None = None


class _Page(msgspec.Struct):
    messages: Sequence[_OldMessage]
    next: int | None


def check_entry(frame: Frame) -> None:
    """A `message` or `receipt` frame.

    Raises:
        Garbled: it is none.
    """
    _check(frame, _MessageEntry | _Receipt)


def check_page(page: Frame) -> Frame:
    """The same page of history.

    Raises:
        Garbled: it is none.
    """
    _check(page, _Page)
    return page


def _check(value: Any, kind: Any) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise Garbled from None
