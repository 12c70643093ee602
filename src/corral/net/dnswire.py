"""DNS messages (RFC 1035), as little of them as the embedded server needs: one question in, addresses out.  Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

A, PTR, AAAA, IN, ANY_CLASS = 1, 12, 28, 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 1, 2, 3, 4
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_HEADER = struct.Struct("!HHHHHH")
_TTL_S = 600
MAX_UDP = 512


class Malformed(ValueError):
    """Not a DNS query."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question; `name` in lower case without the final dot; `raw` its bytes, to be repeated in the answer."""

    id: int
    flags: int
    name: str
    type: int
    raw: bytes

    @property
    def opcode(self) -> int:
        """0 is a query."""
        return self.flags >> 11 & 0xF


def parse(message: bytes) -> Query:
    """The query in a message; Malformed when it is an answer or has not exactly one question."""
    if len(message) < _HEADER.size:
        raise Malformed("shorter than a header")
    number, flags, questions, _, _, _ = _HEADER.unpack_from(message)
    if flags & _QR or questions != 1:
        raise Malformed("not one question")
    labels: list[str] = []
    offset = _HEADER.size
    while True:
        if offset >= len(message):
            raise Malformed("name without an end")
        length = message[offset]
        offset += 1
        if not length:
            break
        if length > 63 or offset + length > len(message) or offset > _HEADER.size + 254:
            raise Malformed("label too long")  # compression has no place in a question
        labels.append(message[offset : offset + length].decode("latin-1").lower())
        offset += length
    if offset + 4 > len(message):
        raise Malformed("question without a type")
    kind, of_class = struct.unpack_from("!HH", message, offset)
    if of_class not in (IN, ANY_CLASS):
        kind = 0  # nothing of ours is in another class
    return Query(number, flags, ".".join(labels), kind, message[_HEADER.size : offset + 4])


def answer(query: Query, records: Sequence[IPv4Address | IPv6Address | str], *, code: int = NOERROR) -> bytes:
    """An answer of addresses or names (for PTR)."""
    parts = []
    for record in records:
        kind, data = _record(record)
        parts.append(struct.pack("!HHHIH", 0xC00C, kind, IN, _TTL_S, len(data)) + data)
    flags = _QR | _AA | _RA | query.flags & _RD | query.flags & 0x7800 | code
    return _HEADER.pack(query.id, flags, 1, len(parts), 0, 0) + query.raw + b"".join(parts)


def failure(message: bytes, code: int) -> bytes:
    """An answer to something that has at least a header."""
    number, flags = struct.unpack_from("!HH", message)
    return _HEADER.pack(number, _QR | _RA | flags & (_RD | 0x7800) | code, 0, 0, 0, 0)


def fit(reply: bytes, query: Query, limit: int) -> bytes:
    """The reply, or an empty truncated one that sends the client to TCP."""
    if len(reply) <= limit:
        return reply
    flags = struct.unpack_from("!H", reply, 2)[0] | _TC
    return _HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.raw


def with_id(message: bytes, number: int) -> bytes:
    """The message with another id."""
    return struct.pack("!H", number) + message[2:]


def reverse(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a name under in-addr.arpa or ip6.arpa stands for."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return IPv4Address(".".join(reversed(labels[:4])))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            digits = "".join(reversed(labels[:32]))
            return IPv6Address(bytes.fromhex(digits)) if len(digits) == 32 else None
    except ValueError:
        return None
    return None


def _record(record: IPv4Address | IPv6Address | str) -> tuple[int, bytes]:
    if isinstance(record, str):
        labels = [label.encode("latin-1", "replace")[:63] for label in record.split(".") if label]
        return PTR, b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return (A if record.version == 4 else AAAA), ip_address(record).packed
