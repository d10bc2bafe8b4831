"""The REST routes: keys, messages, history, conversations, and the socket's twin for plain HTTP.

Each view reads the request, asks one layer below, and shapes the answer. Who is asking was settled
by the gate before the view runs; every query is scoped to that user.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from threading import Event
from typing import Any

from flask import Blueprint, Response, g, request

from ..delivery.hub import Hub
from ..delivery.router import Router
from ..errors import BadRequest, NotFound, TooLarge
from ..protocol import frames, strict
from ..protocol.keys import check_public_key
from ..protocol.values import (
    MAX_SEQ,
    Cursor,
    check_user_id,
    decode_binary,
    encode_binary,
    format_time,
)
from ..store.accounts import Accounts, Party, PublicKey
from ..store.backups import Backups
from ..store.history import Conversation, History, HistoryPage, Span, StoredMessage
from ..store.mailbox import Ack, Mailboxes, Read
from ..store.tickets import LIFETIME_SECONDS, Tickets
from .auth import Identity
from .ws import Start

MAX_PAGE = 100
DEFAULT_PAGE = 50
MAX_WAIT_SECONDS = 30
MAX_BACKUP_BYTES = 65536
READ_AT_ONCE = 500


class Rest:
    """The views over the lower layers of this process.

    `let_go` gives back what the request holds of the host's database before a long wait; `keep_up`
    makes sure that the sweep runs, which ends a wait whose wake-up was lost; `rekeyed` tells all
    workers that a user has published a key.
    """

    def __init__(
        self,
        router: Callable[[], Router],
        mailboxes: Callable[[], Mailboxes],
        history: Callable[[], History],
        tickets: Callable[[], Tickets],
        backups: Callable[[], Backups],
        let_go: Callable[[], None],
        keep_up: Callable[[], None],
        rekeyed: Callable[[str], None],
    ) -> None:
        self._router = router
        self._mailboxes = mailboxes
        self._history = history
        self._tickets = tickets
        self._backups = backups
        self._let_go = let_go
        self._keep_up = keep_up
        self._rekeyed = rekeyed

    def add_to(self, blueprint: Blueprint) -> None:
        """Register the routes."""
        for method, path, view in (
            ("POST", "/keys", self.publish_key),
            ("GET", "/keys/<e2emsg_id:user_id>", self.show_key),
            ("PUT", "/key-backup", self.put_backup),
            ("GET", "/key-backup", self.show_backup),
            ("DELETE", "/key-backup", self.delete_backup),
            ("POST", "/messages", self.send),
            ("GET", "/messages/<e2emsg_id:contact_id>", self.history),
            ("POST", "/messages/<e2emsg_id:contact_id>/read", self.read_up_to),
            ("GET", "/conversations", self.conversations),
            (
                "GET",
                "/conversations/<e2emsg_id:conversation_id>/messages",
                self.conversation_history,
            ),
            ("GET", "/sync", self.sync),
            ("POST", "/sync/ack", self.ack),
            ("POST", "/ws-ticket", self.issue_ticket),
            ("GET", "/session", self.session),
        ):
            # An id may hold any character, slashes included, so slashes are not tidied up.
            blueprint.add_url_rule(path, view.__name__, view, methods=[method], merge_slashes=False)

    @property
    def _accounts(self) -> Accounts:
        return self._router().accounts

    @property
    def _hub(self) -> Hub:
        return self._router().hub

    def publish_key(self) -> Response:
        """Answer `POST /keys`."""
        text = self._object().get("public_key")
        if not isinstance(text, str):
            raise BadRequest("`public_key` must be base64url of 32 bytes.")
        key = check_public_key(decode_binary(text, "public_key"))
        published = self._accounts.set_public_key(_me_id(), key)
        self._rekeyed(published.user_id)
        return _answer(_key(published))

    def show_key(self, user_id: str) -> Response:
        """Answer `GET /keys/<user_id>`."""
        published = self._accounts.public_key(check_user_id(user_id, "user_id"))
        if published is None:
            raise NotFound
        return _answer(_key(published))

    def put_backup(self) -> Response:
        """Answer `PUT /key-backup`."""
        body = self._object()
        text, version = body.get("blob"), _seq(body, "version")
        if not isinstance(text, str):
            raise BadRequest("`blob` must be base64url.")
        blob = decode_binary(text, "blob")
        if len(blob) > MAX_BACKUP_BYTES:
            raise TooLarge(f"A backup has at most {MAX_BACKUP_BYTES} bytes.")
        stored = self._backups().put(self._me(), blob, version)
        return _answer({"version": stored.version, "updated_at": format_time(stored.updated_at)})

    def show_backup(self) -> Response:
        """Answer `GET /key-backup`."""
        stored = self._backups().get(self._me())
        return _answer(
            {
                "blob": encode_binary(stored.blob),
                "version": stored.version,
                "updated_at": format_time(stored.updated_at),
            }
        )

    def delete_backup(self) -> Response:
        """Answer `DELETE /key-backup`."""
        self._backups().delete(self._me())
        return Response(status=204)

    def send(self) -> Response:
        """Answer `POST /messages`."""
        message = frames.decode_send(self._body())
        router = self._router()
        outcome = router.commit(router.prepare(self._me(), [message], keeps_sent=True))
        return _answer(
            {
                "id": str(message.id),
                "created_at": format_time(outcome.created_at),
                "duplicate": not outcome.is_new,
            },
            201 if outcome.is_new else 200,
        )

    def history(self, contact_id: str) -> Response:
        """Answer `GET /messages/<contact_id>`."""
        span = _span()
        contact = self._accounts.find(check_user_id(contact_id, "contact_id"))
        if contact is None:
            return _answer(_page(HistoryPage([], None, False)))
        return _answer(_page(self._history().with_contact(self._me(), contact, span)))

    def conversation_history(self, conversation_id: str) -> Response:
        """Answer `GET /conversations/<conversation_id>/messages`."""
        check_user_id(conversation_id, "conversation_id")
        page = self._history().in_conversation(self._me(), conversation_id, _span())
        return _answer(_page(page))

    def conversations(self) -> Response:
        """Answer `GET /conversations`."""
        limit, before = _limit(), _position("before")
        found = self._history().conversations(self._me(), before, limit)
        return _answer([_conversation(one) for one in found])

    def read_up_to(self, contact_id: str) -> Response:
        """Answer `POST /messages/<contact_id>/read`."""
        up_to = _seq(self._object(), "up_to")
        contact = self._accounts.find(check_user_id(contact_id, "contact_id"))
        me, count = self._me(), 0
        while contact is not None and (
            ids := self._history().unread_from(me, contact, up_to, READ_AT_ONCE)
        ):
            count += self._router().mark(Read(me, ids))
            if len(ids) < READ_AT_ONCE:
                break
        return _answer({"read": count})

    def sync(self) -> Response:
        """Answer `GET /sync`."""
        text = request.args.get("cursor")
        cursor = None if text is None else Cursor.parse(text)
        limit, wait = _limit(), _number("wait", 0, MAX_WAIT_SECONDS, 0)
        me = self._me()
        self._keep_up()
        # Who does not wait takes no room from those who do.
        waiting = self._hub.waiting(me.user_id, me.account_id) if wait else nullcontext(Event())
        with waiting as grown:
            start = Start.at(cursor, self._accounts.ensure(me.user_id))
            page = self._mailboxes().entries_after(me, start.after, limit)
            deadline = time.monotonic() + wait
            while not (page.entries or start.reset or self._hub.is_draining):
                seconds = deadline - time.monotonic()
                if seconds <= 0:
                    break
                self._let_go()
                grown.wait(seconds)
                grown.clear()
                page = self._mailboxes().entries_after(me, start.after, limit)
        head = max(page.through, start.state.last_seq)
        parts = b",".join(entry.frame() for entry in page.entries)
        opening = frames.encode_value(
            {"epoch": start.state.epoch, "head": head, "reset": start.reset}
        )
        body = opening[:-1] + b',"entries":[' + parts + b"]}"
        return Response(body, mimetype="application/json")

    def ack(self) -> Response:
        """Answer `POST /sync/ack`."""
        seq = _seq(self._object(), "seq")
        state = self._accounts.ensure(_me_id())
        if seq > state.last_seq:
            raise BadRequest("`seq` is beyond the newest position of the mailbox.")
        self._router().mark(Ack(state.owner, seq))
        return _answer({"seq": max(seq, state.delivered_seq)})

    def issue_ticket(self) -> Response:
        """Answer `POST /ws-ticket`."""
        identity = _identity()
        text = self._tickets().issue(identity.to_ticket())
        return _answer({"ticket": text, "expires_in": LIFETIME_SECONDS})

    def session(self) -> Response:
        """Answer `GET /session`."""
        identity = _identity()
        expires_at = format_time(identity.expires_at)
        return _answer({"user_id": identity.user_id, "expires_at": expires_at})

    def _me(self) -> Party:
        user_id = _me_id()
        return self._accounts.find(user_id) or self._accounts.ensure(user_id).owner

    def _body(self) -> bytes:
        return request.get_data()

    def _object(self) -> dict[str, Any]:
        value = strict.loads(self._body())
        if not isinstance(value, dict):
            raise BadRequest("The body must be a JSON object.")
        return value


def _identity() -> Identity:
    identity: Identity = g.e2emsg_identity
    return identity


def _me_id() -> str:
    return _identity().user_id


def _answer(value: object, status: int = 200) -> Response:
    return Response(frames.encode_value(value), status, mimetype="application/json")


def _span() -> Span:
    before, after = _position("before"), _position("after")
    if before is not None and after is not None:
        raise BadRequest("Give `before` or `after`, not both.")
    return Span(_limit(), before, after)


def _limit() -> int:
    return _number("limit", 1, MAX_PAGE, DEFAULT_PAGE)


def _position(name: str) -> int | None:
    return _number(name, 0, MAX_SEQ, -1) if name in request.args else None


def _number(name: str, low: int, high: int, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
        raise BadRequest(f"`{name}` must be a whole number from {low} to {high}.")
    return int(text)


def _seq(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEQ:
        raise BadRequest(f"`{name}` must be a position.")
    return value


def _key(key: PublicKey) -> dict[str, Any]:
    return {
        "user_id": key.user_id,
        "public_key": encode_binary(key.public_key),
        "key_version": key.key_version,
        "updated_at": format_time(key.updated_at),
    }


def _page(page: HistoryPage) -> dict[str, Any]:
    return {
        "messages": [_message(message) for message in page.messages],
        "next": page.next,
        "has_more": page.has_more,
    }


def _message(message: StoredMessage) -> dict[str, Any]:
    times = (message.expires_at, message.delivered_at, message.read_at)
    expires_at, delivered_at, read_at = (t and format_time(t) for t in times)
    return {
        "seq": message.position,
        "id": str(message.id),
        "sender": message.sender,
        "recipient": message.recipient,
        "conversation_id": message.conversation_id,
        "encrypted_content": encode_binary(message.content),
        "created_at": format_time(message.created_at),
        "expires_at": expires_at,
        "position": message.position,
        "delivered_at": delivered_at,
        "read_at": read_at,
    }


def _conversation(conversation: Conversation) -> dict[str, Any]:
    return {
        "contact_id": conversation.contact_id,
        "conversation_id": conversation.conversation_id,
        "last": _message(conversation.last),
        "unread": conversation.unread,
    }
