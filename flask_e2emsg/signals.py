"""Signals that a host can listen to (blinker).

Each is sent with the app as sender, from a thread of its own and in an app context, after what it
tells of is committed.

* `message_stored`: `message_id`, `sender_id`, `recipient_id`, `conversation_id`
* `message_delivered`: `message_ids`, `sender_id`, `recipient_id`
* `user_connected`, `user_disconnected`: `user_id`, `connection_id`; of this process
"""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

message_stored = _signals.signal("message-stored")
message_delivered = _signals.signal("message-delivered")
user_connected = _signals.signal("user-connected")
user_disconnected = _signals.signal("user-disconnected")
