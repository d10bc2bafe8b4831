"""Envelopes: the bytes of `encrypted_content` (docs/crypto.md, 2). No I/O, no state.

`seal` makes one that the recipient and the sender can open, `open_envelope` checks everything and
gives the cleartext or refuses the whole. Ciphers come from `cryptography` and `pyhpke` alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKeyPair, PyHPKEError

from ..protocol.envelope import (
    HEADER_LENGTH,
    NONCE_LENGTH,
    SUITE,
    TAG_LENGTH,
    VERSION,
    WRAP_LENGTH,
    kid_of,
)
from .errors import Forged, Malformed, NotForMe, UnknownSenderKey, UnknownSuite, WrongMessageId
from .keys import IdentityKey, hpke_public_key, label, length_prefixed
from .plaintext import BUCKETS, pad, unpad

KEY_LENGTH = 32

HPKE = CipherSuite.new(
    KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM
)  # keeps nothing between calls


@dataclass(frozen=True, slots=True)
class Address:
    """What the frame says around an envelope, and the envelope is bound to."""

    message_id: UUID
    sender: str
    recipient: str
    conversation_id: str | None = None

    def context(self, sender_kid: bytes) -> bytes:
        """What payload and wraps authenticate."""
        parties = (self.sender, self.recipient, self.conversation_id or "")
        return b"".join(
            [
                label("flask-e2emsg envelope v1"),
                bytes([VERSION, SUITE]),
                self.message_id.bytes,
                sender_kid,
                *map(length_prefixed, parties),
            ]
        )


@dataclass(frozen=True, slots=True)
class Wrap:
    """The content key, sealed for one reader."""

    kid: bytes = field(repr=False)
    enc: bytes = field(repr=False)
    sealed_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope whose lengths and numbers are right, and of which nothing else is known."""

    message_id: UUID
    sender_kid: bytes = field(repr=False)
    wraps: tuple[Wrap, ...] = field(repr=False)
    nonce: bytes = field(repr=False)
    payload: bytes = field(repr=False)  # ciphertext and tag


def parse(octets: bytes) -> Envelope:
    """Take the bytes apart.

    Raises:
        Malformed: lengths and numbers are not those of the table.
        UnknownSuite: the first two bytes are of another version or suite.
    """
    if len(octets) < HEADER_LENGTH:
        raise Malformed("The envelope is cut short.")
    version, suite, count = octets[0], octets[1], octets[HEADER_LENGTH - 1]
    if (version, suite) != (VERSION, SUITE):
        raise UnknownSuite(version, suite)
    wraps_end = HEADER_LENGTH + count * WRAP_LENGTH
    payload = octets[wraps_end + NONCE_LENGTH :]
    if count == 0 or len(payload) - TAG_LENGTH not in BUCKETS:
        raise Malformed("The envelope has a length that no client makes.")
    wraps = tuple(_parse_wrap(octets, at) for at in range(HEADER_LENGTH, wraps_end, WRAP_LENGTH))
    if len({wrap.kid for wrap in wraps}) != count:
        raise Malformed("The envelope has two wraps for one key.")
    nonce = octets[wraps_end : wraps_end + NONCE_LENGTH]
    return Envelope(UUID(bytes=octets[2:18]), octets[18:26], wraps, nonce, payload)


def _parse_wrap(octets: bytes, at: int) -> Wrap:
    wrap = octets[at : at + WRAP_LENGTH]
    return Wrap(wrap[:8], wrap[8:40], wrap[40:])


def seal(text: bytes, address: Address, sender: IdentityKey, readers: Iterable[bytes]) -> bytes:
    """Seal a text for the public keys of its readers; the sender reads it as well.

    Raises:
        TooLong: the text does not fit the largest bucket.
        UnusableKey: a reader's key is none that an honest client makes.
    """
    return _seal(text, address, sender, readers, _Randomness())


@dataclass(frozen=True)
class _Randomness:
    """Fresh for every envelope; vectors alone fix it."""

    content_key: bytes = field(default_factory=lambda: secrets.token_bytes(KEY_LENGTH), repr=False)
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE_LENGTH), repr=False)
    ephemerals: Sequence[KEMKeyPair | None] = field(
        default=(), repr=False
    )  # one for each wrap, or none


def _seal(
    text: bytes,
    address: Address,
    sender: IdentityKey,
    readers: Iterable[bytes],
    random: _Randomness,
) -> bytes:
    context = address.context(sender.kid)
    payload = AESGCM(random.content_key).encrypt(random.nonce, pad(text), context)
    binding = hashlib.sha256(random.nonce + payload).digest()
    public_keys = list(dict.fromkeys([*readers, sender.public]))
    ephemerals = random.ephemerals or [None] * len(public_keys)
    wraps = [
        _wrap(random.content_key, key, sender, context, binding, ephemeral)
        for key, ephemeral in zip(public_keys, ephemerals, strict=True)
    ]
    head = bytes([VERSION, SUITE]) + address.message_id.bytes + sender.kid + bytes([len(wraps)])
    return b"".join([head, *wraps, random.nonce, payload])


def _wrap(
    content_key: bytes,
    reader: bytes,
    sender: IdentityKey,
    context: bytes,
    binding: bytes,
    ephemeral: KEMKeyPair | None,
) -> bytes:
    enc, sealing = HPKE.create_sender_context(
        hpke_public_key(reader), info=context, sks=sender.hpke, eks=ephemeral
    )
    return kid_of(reader) + enc + bytes(sealing.seal(content_key, binding))


def open_envelope(
    envelope: Envelope,
    address: Address,
    mine: Iterable[IdentityKey],
    senders: Iterable[bytes],
) -> bytes:
    """The JSON text inside, after every check of docs/crypto.md, 2.

    Args:
        envelope: what `parse` made of the bytes.
        address: what the frame says.
        mine: my keys, also those of before.
        senders: the public keys that are pinned for the sender, also those of before.

    Raises:
        CannotOpen: in one of its kinds; nothing of the envelope is to be used.
    """
    if envelope.message_id != address.message_id:
        raise WrongMessageId
    key, wrap = _my_wrap(envelope, mine)
    sender = next((one for one in senders if kid_of(one) == envelope.sender_kid), None)
    if sender is None:
        raise UnknownSenderKey(envelope.sender_kid)
    context = address.context(envelope.sender_kid)
    binding = hashlib.sha256(envelope.nonce + envelope.payload).digest()
    try:
        opening = HPKE.create_recipient_context(
            wrap.enc, key.hpke, info=context, pks=hpke_public_key(sender)
        )
        content_key = opening.open(wrap.sealed_key, binding)
        padded = AESGCM(content_key).decrypt(envelope.nonce, envelope.payload, context)
    except (PyHPKEError, InvalidTag, ValueError):
        raise Forged from None
    return unpad(padded)


def _my_wrap(envelope: Envelope, mine: Iterable[IdentityKey]) -> tuple[IdentityKey, Wrap]:
    wraps = {wrap.kid: wrap for wrap in envelope.wraps}
    for key in mine:
        if key.kid in wraps:
            return key, wraps[key.kid]
    raise NotForMe
