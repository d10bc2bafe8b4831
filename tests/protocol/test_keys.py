"""Which 32 bytes are a usable X25519 public key, judged by another implementation."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st

from flask_e2emsg.errors import UnusableKey
from flask_e2emsg.protocol.keys import check_public_key

P = 2**255 - 19
ORDER_8 = [
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
]
OTHERS = [n.to_bytes(32, "little").hex() for n in (0, 1, P - 1, P, P + 1)]
PRIVATE_KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))


def gives_a_secret(key: bytes) -> bool:
    """Whether key agreement with it works: OpenSSL refuses a secret of zeros."""
    try:
        PRIVATE_KEY.exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("key", ORDER_8 + OTHERS)
@pytest.mark.parametrize("top_bit", [0, 0x80])
def test_every_spelling_of_a_low_order_point_is_refused(key: str, top_bit: int) -> None:
    spelling = bytearray.fromhex(key)
    spelling[31] |= top_bit
    assert not gives_a_secret(bytes(spelling))
    with pytest.raises(UnusableKey, match="low order"):
        check_public_key(bytes(spelling))


@given(st.binary(min_size=32, max_size=32))
@example(PRIVATE_KEY.public_key().public_bytes_raw())
@example((2).to_bytes(32, "little"))
@example((P + 2).to_bytes(32, "little"))
@example((P - 2).to_bytes(32, "little"))
@example(b"\xff" * 32)
def test_every_other_point_is_accepted_as_it_is(key: bytes) -> None:
    if gives_a_secret(key):
        assert check_public_key(key) == key
    else:
        with pytest.raises(UnusableKey):
            check_public_key(key)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(UnusableKey, match="32 bytes"):
        check_public_key(b"\x09" * length)
