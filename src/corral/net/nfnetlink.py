"""Messages of the kernel's netfilter subsystems, where no library is needed.  Formats: `nfnetlink.h`.  Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator

NETLINK_NETFILTER = 12
REQUEST, ACK, CREATE = 0x1, 0x4, 0x400
ERROR = 2
BATCH_BEGIN, BATCH_END = 0x10, 0x11


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute."""
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by kind; the last of a kind counts."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def message(kind: int, flags: int, family: int, resource: int, body: bytes) -> bytes:
    """A request of an address family, or about a resource."""
    payload = struct.pack("!BBH", family, 0, resource) + body
    return struct.pack("=IHHII", 16 + len(payload), kind, flags | REQUEST, 1, 0) + payload


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, errno if that is ERROR, body past `nfgenmsg`) of each message of a datagram."""
    offset = 0
    while offset + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 20:
            return
        number = -struct.unpack_from("=i", data, offset + 16)[0] if kind == ERROR else 0
        yield kind, number, data[offset + 20 : offset + length]
        offset += (length + 3) & ~3
