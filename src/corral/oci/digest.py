"""Digests: the names of content.

Digest    of bytes as they are stored or travel (`sha256:<64 hex>`)
DiffID    of a layer's uncompressed tar
ChainID   of a stack of layers, defined by the image specification's config.md:
          chain(l0) = l0; chain(l0..ln) = sha256(chain(l0..ln-1) + " " + ln)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NewType

from corral.errors import DataLoss, InvalidParameter

Digest = NewType("Digest", str)
DiffID = NewType("DiffID", str)
ChainID = NewType("ChainID", str)

_HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


class InvalidDigest(InvalidParameter):
    """Text that should name content does not."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid digest format: {text[:200]!r}")


class DigestMismatch(DataLoss):
    """Content is not what its digest promised."""

    def __init__(self, expected: str, got: str, what: str = "content") -> None:
        super().__init__(f"{what} digest mismatch: expected {expected}, got {got}")
        self.expected, self.got = expected, got


def parse_digest(text: str) -> Digest:
    """`text` as a Digest; raises InvalidDigest for an unknown algorithm, a wrong length or upper-case letters."""
    algorithm, colon, value = text.partition(":")
    if not colon or len(value) != _HEX_LENGTHS.get(algorithm) or not _HEX.issuperset(value):
        raise InvalidDigest(text)
    return Digest(text)


def is_hex(text: str) -> bool:
    """Whether `text` is not empty and made of lower-case hexadecimal digits: a (short) id."""
    return bool(text) and _HEX.issuperset(text)


def algorithm_of(digest: str) -> str:
    """`sha256` of `sha256:...`."""
    return digest.partition(":")[0]


def hex_of(digest: str) -> str:
    """The part after the colon."""
    return digest.partition(":")[2]


def digest_of(data: bytes) -> Digest:
    """The sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def verify(data: bytes, expected: str, what: str = "content") -> None:
    """Raise DigestMismatch unless `data` hashes to `expected`."""
    algorithm = algorithm_of(parse_digest(expected))
    got = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if got != expected:
        raise DigestMismatch(expected, got, what)


def chain_on(parent: str, diff_id: str) -> ChainID:
    """The chain id of a layer on top of the stack `parent` ("" for none)."""
    return ChainID(digest_of(f"{parent} {diff_id}".encode())) if parent else ChainID(diff_id)


def chain_ids(diff_ids: Iterable[str]) -> list[ChainID]:
    """The chain id after each layer, lowest first; empty for no layers."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        parse_digest(diff_id)
        chain.append(chain_on(chain[-1] if chain else "", diff_id))
    return chain
