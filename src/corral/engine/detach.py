"""Detach keys: `ctrl-p,ctrl-q` as the bytes a terminal sends."""

from __future__ import annotations

from corral.errors import InvalidParameter

_DEFAULT = b"\x10\x11"


class BadDetachKeys(InvalidParameter):
    """Keys that cannot be typed so."""


def detach_keys(text: str) -> bytes:
    """Keys separated by commas, each a character or `ctrl-` and one of a-z @ [ \\ ] ^ _; "" is Docker's default."""
    if not text:
        return _DEFAULT
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and (("a" <= key[5] <= "z") or key[5] in "@[\\]^_"):
            keys.append(ord(key[5].upper()) - 64)
        else:
            raise BadDetachKeys(f"Invalid detach keys ({text}): Unknown character: '{key}'")
    return bytes(keys)
