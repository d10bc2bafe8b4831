"""What a client wants stored: a message by itself, or several that are stored together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Letter:
    """One message, and the `send` that it goes out by."""

    id: str
    to: str
    content: str
    conversation_id: str | None = None

    @property
    def ref(self) -> str:
        """By what answers name it."""
        return self.id

    @property
    def letters(self) -> Sequence[Letter]:
        return (self,)

    @property
    def members(self) -> dict[str, str]:
        return {"id": self.id, "to": self.to, "encrypted_content": self.content}

    def frame(self) -> str:
        return _frame({"type": "send", **self.members}, self.conversation_id)


@dataclass(frozen=True)
class Bundle:
    """Messages that go out by one `send_many`: all are stored, or none."""

    ref: str
    letters: Sequence[Letter]
    conversation_id: str | None = None

    def frame(self) -> str:
        messages = [letter.members for letter in self.letters]
        return _frame(
            {"type": "send_many", "ref": self.ref, "messages": messages}, self.conversation_id
        )


Mail = Letter | Bundle


def _frame(members: dict[str, object], conversation_id: str | None) -> str:
    if conversation_id is not None:
        members["conversation_id"] = conversation_id
    return json.dumps(members)
