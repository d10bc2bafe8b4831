"""Makes the vectors: `python -m tests.vectors.make [test-vectors.json of RFC 9180]`.

Everything is made of fixed inputs, so the files change only when docs/crypto.md does. Bytes are in
hexadecimal, but for what travels, which is base64url as on the wire. `hpke.json` is an excerpt of
the RFC's own vectors and is made again only when they are given.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from pyhpke import KEMKey, KEMKeyPair

from flask_e2emsg.client import backup, safety
from flask_e2emsg.client.envelope import Address, _Randomness, _seal
from flask_e2emsg.client.keys import IdentityKey
from flask_e2emsg.client.plaintext import BUCKETS, Plaintext, encode, hash_of, hash_text, pad
from flask_e2emsg.protocol.values import decode_binary, encode_binary

FOLDER = Path(__file__).parent
OURS = {"mode": 2, "kem_id": 0x20, "kdf_id": 1, "aead_id": 2}
HPKE_MEMBERS = (
    *("info", "skEm", "pkEm", "skRm", "pkRm", "skSm", "pkSm", "enc"),
    *("shared_secret", "key", "base_nonce"),
)
SENT_AT = 1_772_366_400_123
Json = dict[str, Any]


def fixed(name: str, length: int = 32) -> bytes:
    """Bytes that look random and are always the same."""
    return hashlib.shake_256(f"flask_e2emsg vectors: {name}".encode()).digest(length)


def key(name: str) -> IdentityKey:
    """The key pair of a person of the vectors."""
    return IdentityKey.from_bytes(fixed(f"key of {name}"))


def message_id(number: int) -> UUID:
    """A UUIDv7 with a fixed time."""
    return UUID(f"019ca8f1-0000-7000-8000-{number:012x}")


def pair(name: str) -> KEMKeyPair:
    """An ephemeral key pair."""
    public = key(name)._private.public_key()
    return KEMKeyPair(key(name).hpke, KEMKey.from_pyca_cryptography_key(public))


def person(name: str, user_id: str) -> Json:
    """Somebody with both halves of their key."""
    its = key(name)
    return {"user_id": user_id, "private_key": its.to_bytes().hex(), "public_key": its.public.hex()}


ALICE, BOB = person("alice", "alice"), person("bob", "bob")
KEYS = {"alice": key("alice"), "bob": key("bob"), "7": key("seven"), "Zoë": key("zoe")}


def sealed(name: str, text: bytes, address: Address) -> Json:
    """One envelope, with everything that went into it."""
    sender, recipient = KEYS[address.sender], KEYS[address.recipient]
    count = 1 if sender is recipient else 2
    ephemerals = [f"ephemeral {at} of {name}" for at in range(count)]
    content_key, nonce = fixed(f"content key of {name}"), fixed(f"nonce of {name}", 12)
    random = _Randomness(content_key, nonce, [pair(one) for one in ephemerals])
    envelope = _seal(text, address, sender, [recipient.public], random)
    return {
        "name": name,
        "message_id": str(address.message_id),
        "sender": address.sender,
        "recipient": address.recipient,
        "conversation_id": address.conversation_id,
        "sender_private_key": sender.to_bytes().hex(),
        "sender_public_key": sender.public.hex(),
        "recipient_private_key": recipient.to_bytes().hex(),
        "recipient_public_key": recipient.public.hex(),
        "plaintext": text.decode(),
        "content_key": content_key.hex(),
        "nonce": nonce.hex(),
        "ephemeral_private_keys": [key(one).to_bytes().hex() for one in ephemerals],
        "context": address.context(sender.kid).hex(),
        "envelope": encode_binary(envelope),
    }


def envelopes() -> Json:
    hello = encode(Plaintext("text", SENT_AT, 1, None, "Hello, Bob!"))
    long = encode(Plaintext("text", SENT_AT, 2, hash_text(fixed("prev")), "long " * 100))
    edit = encode(Plaintext("edit", SENT_AT, 3, None, "Grüße 👋", str(message_id(1))))
    delete = encode(Plaintext("delete", SENT_AT, 9, None, target=str(message_id(1))))
    return {
        "about": "docs/crypto.md, 2. The first wrap is the recipient's, the last the sender's.",
        "envelopes": [
            sealed("plain", hello, Address(message_id(1), "alice", "bob")),
            sealed("in a conversation", long, Address(message_id(2), "bob", "alice", "team/1")),
            sealed("not ASCII", edit, Address(message_id(3), "Zoë", "7", "Gespräch")),
            sealed("to oneself", delete, Address(message_id(4), "alice", "alice")),
        ],
    }


def kids() -> Json:
    people = [person(name, name) for name in ("alice", "bob", "seven", "zoe")]
    for one in people:
        one["kid"] = key(one.pop("user_id")).kid.hex()
    return {"about": "docs/crypto.md, 1", "keys": people}


def paddings() -> Json:
    lengths = [0, 1, 254, *(bucket + more for bucket in BUCKETS[:-1] for more in (-1, 0)), 65535]
    short = [b"", b"{}", b'{"body":"\xc3\xa9"}', b"x" * 255]
    buckets = [{"length": length, "padded_length": len(pad(b"x" * length))} for length in lengths]
    return {
        "about": "docs/crypto.md, 3",
        "buckets": buckets,
        "too_long": 65536,
        "padded": [{"text": text.hex(), "padded": pad(text).hex()} for text in short],
        "refused": {
            "no marker": bytes(256).hex(),
            "something after the marker": (b"{}\x80" + bytes(252) + b"\x01").hex(),
            "no bucket": (b"{}\x80" + bytes(254)).hex(),
            "half a bucket": (b"{}\x80" + bytes(125)).hex(),
            "nothing": "",
        },
    }


def safety_numbers() -> Json:
    pairs = [("alice", "bob"), ("bob", "alice"), ("Zoë", "7"), ("alice", "alice")]
    found = []
    for one, other in pairs:
        number = safety.safety_number((one, KEYS[one].public), (other, KEYS[other].public))
        sides = [{"user_id": who, "public_key": KEYS[who].public.hex()} for who in (one, other)]
        halves = [safety.half(who, KEYS[who].public) for who in (one, other)]
        texts = {"digits": number.digits, "groups": number.groups, "qr_text": number.qr_text}
        found.append({"sides": sides, "halves": halves, **texts})
    return {"about": "docs/crypto.md, 5", "numbers": found}


def backups() -> Json:
    secrets = [bytes(16), b"\xff" * 16, fixed("code", 16), bytes(range(16))]
    codes = [{"secret": secret.hex(), "code": backup.format_code(secret)} for secret in secrets]
    code = codes[2]["code"]
    return {
        "about": "docs/crypto.md, 6",
        "codes": codes,
        "typed": [
            {"typed": typed, "secret": secret.hex()}
            for typed, secret in [
                (code.lower(), secrets[2]),
                (code.replace("-", ""), secrets[2]),
                (code.replace("-", " "), secrets[2]),
                (codes[0]["code"].replace("0", "O"), secrets[0]),
                (codes[0]["code"].replace("0", "o"), secrets[0]),
                (codes[3]["code"].replace("1", "I"), secrets[3]),
                (codes[3]["code"].replace("1", "l"), secrets[3]),
            ]
        ],
        "mistyped": ["", code[:-1], code + "0", code[:-1] + "U", _one_letter_off(code)],
        "backups": [_backup("alice", code, "alice"), _backup("Zoë", codes[3]["code"], "zoe")],
    }


def _one_letter_off(code: str) -> str:
    return ("1" if code[0] == "0" else "0") + code[1:]


def _backup(user_id: str, code: str, name: str) -> Json:
    nonce = fixed(f"nonce of the backup of {name}", 12)
    blob = backup.seal_backup(key(name), user_id, code, SENT_AT, nonce)
    secrets = {"code": code, "private_key": key(name).to_bytes().hex(), "nonce": nonce.hex()}
    return {"user_id": user_id, "created_at": SENT_AT, **secrets, "blob": encode_binary(blob)}


def chains() -> Json:
    """Envelopes of alice to bob, and how bob judges them when they come in some order.

    0, 1, 2, 3 follow each other. 4 has the `n` of 2 and another id; 5 has the `n` of 1 and knows
    nothing of 0.
    """
    made: list[Json] = []

    def add(n: int, prev: bytes | None) -> bytes:
        number = len(made)
        text = encode(Plaintext("text", SENT_AT + number, n, hash_text(prev), f"number {number}"))
        address = Address(message_id(16 + number), "alice", "bob")
        made.append(sealed(f"chain {number}", text, address))
        hashed = hash_of(decode_binary(made[-1]["envelope"], "envelope"))
        made[-1]["hash"] = encode_binary(hashed)
        return hashed

    hashes = [add(1, None)]
    hashes += [add(2, hashes[0])]
    hashes += [add(3, hashes[1])]
    hashes += [add(4, hashes[2])]
    add(3, hashes[1])
    add(2, fixed("another envelope"))
    orders = [
        ([0, 1, 2, 3], ["next", "next", "next", "next"]),
        ([0, 2, 3], ["next", "gap", "next"]),
        ([2, 3], ["gap", "next"]),
        ([0, 1, 1, 2], ["next", "next", "replay", "next"]),
        ([0, 1, 2, 4, 3], ["next", "next", "next", "fork", "next"]),
        ([0, 1, 4, 3], ["next", "next", "next", "fork"]),
        ([0, 5, 2], ["next", "fork", "fork"]),
        ([0, 1, 3, 2], ["next", "next", "gap", "fork"]),
    ]
    told = [{"order": order, "verdicts": verdicts} for order, verdicts in orders]
    return {"about": "docs/crypto.md, 3", "messages": made, "orders": told}


def hpke(source: Path) -> Json:
    """The vector of our suite in the file of the RFC, with the first messages of its context."""
    (vector,) = (
        one for one in json.loads(source.read_text()) if {name: one[name] for name in OURS} == OURS
    )
    wanted = {name: vector[name] for name in HPKE_MEMBERS}
    about = "RFC 9180, mode_auth, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM"
    return {"about": about, **OURS, **wanted, "encryptions": vector["encryptions"][:4]}


FILES = {
    "kid": kids,
    "padding": paddings,
    "safety": safety_numbers,
    "envelope": envelopes,
    "chain": chains,
    "backup": backups,
}


def text_of(made: Json) -> str:
    """The text of a file."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    """Write the files."""
    made = {name: make() for name, make in FILES.items()}
    if arguments:
        made["hpke"] = hpke(Path(arguments[0]))
    for name, content in made.items():
        (FOLDER / f"{name}.json").write_text(text_of(content), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
