"""What makes 32 bytes a usable X25519 public key.

The low-order points give a shared secret of zeros whatever the private key is, so a client that
publishes one is broken or hostile. X25519 reads a key modulo 2^255 - 19 and ignores the top bit
(RFC 7748, section 5), so each point has several spellings: all are refused.
"""

from __future__ import annotations

from ..errors import UnusableKey

KEY_LENGTH = 32

_P = 2**255 - 19
# The u-coordinates of order 1, 2, 4 and 8 on the curve and its twist.
_LOW_ORDER = frozenset(
    {
        0,
        1,
        _P - 1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    }
)


def check_public_key(key: bytes) -> bytes:
    """The same key.

    Raises:
        UnusableKey: it does not have 32 bytes, or is a point of low order.
    """
    if len(key) != KEY_LENGTH:
        raise UnusableKey(f"An X25519 public key has {KEY_LENGTH} bytes.")
    if (int.from_bytes(key, "little") & (2**255 - 1)) % _P in _LOW_ORDER:
        raise UnusableKey("This X25519 public key is a point of low order.")
    return key
